package signature

import "time"

// UnitText writes a time as the clock does.
func (c *Clock) UnitText(at time.Time) string { return c.Unit.format(at) }
