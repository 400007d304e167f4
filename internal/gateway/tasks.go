package gateway

import "sync"

// tasks counts what has no outcome yet. Once it is closed nothing begins: a request that a drain has cut off may still
// come as far.
type tasks struct {
	mu     sync.Mutex
	n      int
	closed bool
	done   chan struct{}
}

func newTasks() *tasks { return &tasks{done: make(chan struct{})} }

// begin adds one, unless it is closed.
func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.n++
	}
	return !t.closed
}

func (t *tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.closed {
		close(t.done)
	}
}

// close lets nothing begin any more. The channel is closed when all have ended.
func (t *tasks) close() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && t.n == 0 {
		close(t.done)
	}
	t.closed = true
	return t.done
}
