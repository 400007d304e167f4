package gateway

import (
	"crypto/x509"
	"time"
)

// Deaf is how long nothing may get through before a gateway is not ready.
const Deaf = deafAfter

// The planted bugs.
func WithAnswerEarly(c Config) Config  { c.plant.answerEarly = true; return c }
func WithMarkEarly(c Config) Config    { c.plant.markEarly = true; return c }
func WithDedupeEarly(c Config) Config  { c.plant.dedupeEarly = true; return c }
func WithVerifyParsed(c Config) Config { c.plant.verifyParsed = true; return c }

// WithRoots are the roots that the senders' certificates lead to.
func WithRoots(c Config, roots *x509.CertPool) Config { c.roots = roots; return c }

// Snapshot writes one as an earlier gateway did: n ids of a source, whose i-th is name(i).
func Snapshot(at time.Time, source string, n int, name func(i int) string) []byte {
	marks := make([]mark, n)
	for i := range marks {
		marks[i] = mark{kindID, printOf(kindID, name(i))}
	}
	return appendSnapshot(nil, at, source, marks)
}

// ReadSnapshot is readSnapshot without its result.
func ReadSnapshot(src []byte) error {
	_, _, _, err := readSnapshot(src)
	return err
}

// InMemory says how much of the budgets is taken, and how many ids are under way.
func (g *Gateway) InMemory() (read, produce int64, flights int) {
	g.states.Range(func(_, v any) bool {
		st := v.(*state) //nolint:forcetypeassert // nothing else is in it
		st.mu.Lock()
		defer st.mu.Unlock()
		flights += len(st.flights)
		return true
	})
	g.reading.mu.Lock()
	defer g.reading.mu.Unlock()
	g.producing.mu.Lock()
	defer g.producing.mu.Unlock()
	return g.reading.used, g.producing.used, flights
}
