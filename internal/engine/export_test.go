package engine

// WithCommitEarly returns c with a planted bug: positions are committed before the handler ends.
func WithCommitEarly(c Config) Config {
	c.plant.commitEarly = true
	return c
}

// WithCommitLate returns c with a planted bug: revoked partitions are neither drained nor fenced, and committed
// afterwards.
func WithCommitLate(c Config) Config {
	c.plant.commitLate = true
	return c
}

// Resolve is resolve.
var Resolve = resolve
