package gateway

import "time"

// Result is how a request ended: a small, fixed set.
type Result string

// The results.
const (
	Accepted    Result = "accepted"    // published, and acknowledged
	Duplicate   Result = "duplicate"   // a repeat of what was acknowledged
	Handshake   Result = "handshake"   // answered, and no event
	Rejected    Result = "rejected"    // the sender's fault: see the reasons
	Unavailable Result = "unavailable" // ours: the sender was told to come again
	Failed      Result = "failed"      // a bug of ours
)

// Results are all of them.
func Results() []Result {
	return []Result{Accepted, Duplicate, Handshake, Rejected, Unavailable, Failed}
}

// Observer hears of requests. Its methods are called by many goroutines, and must be fast.
type Observer interface {
	// Inbound is called once for each request with the time from its header to its answer. source is "" where none was
	// found. reason says why, for [Rejected] and [Unavailable]: one of a small set.
	Inbound(source string, result Result, reason string, took time.Duration)
	// DeadLettered is called for each typed event that could not be made, with the class of its dead letter.
	DeadLettered(source, class string)
	// Evicted is called when ids had to be forgotten before their window was over.
	Evicted(source string, ids int)
	// Reloaded is called after each look at a folder that has changed, or cannot be used.
	Reloaded(ok bool)
}

// nobody is an Observer that does not listen.
type nobody struct{}

func (nobody) Inbound(string, Result, string, time.Duration) {}
func (nobody) DeadLettered(string, string)                   {}
func (nobody) Evicted(string, int)                           {}
func (nobody) Reloaded(bool)                                 {}
