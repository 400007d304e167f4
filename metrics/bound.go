package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Other is the label value that stands for every value past a bound, and for those that are no label.
const Other = "other"

// How many values a label may have. Past them everything is [Other]: a label that grows with the data would take the
// monitoring down with it.
const (
	maxGroups   = 64
	maxTopics   = 256
	maxHandlers = 128
	maxSubjects = 512
	maxLabel    = 249 // bytes: the longest name of a topic
)

// bound lets the first values of a label pass.
type bound struct {
	most int
	mu   sync.Mutex
	seen map[string]bool
}

func newBound(most int) *bound { return &bound{most: most, seen: map[string]bool{}} }

// label is v, or Other and false where v is one value too many. It is called once per value that stays, and for every
// observation of one that does not.
func (b *bound) label(v string) (string, bool) {
	if len(v) > maxLabel || !utf8.ValidString(v) {
		return Other, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.seen[v] {
		if len(b.seen) >= b.most {
			return Other, false
		}
		b.seen[v] = true
	}
	return v, true
}

// table is a map that is read without a lock and copied to grow: it settles within the first seconds of a process.
// What is put into it must be bounded.
type table[K comparable, V any] struct {
	mu sync.Mutex
	m  atomic.Pointer[map[K]V]
}

func (t *table[K, V]) get(k K) (v V, ok bool) {
	if m := t.m.Load(); m != nil {
		v, ok = (*m)[k]
	}
	return v, ok
}

// put keeps v for k, unless another was first, and returns the one that is kept.
func (t *table[K, V]) put(k K, v V) V {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[K]V{}
	if m := t.m.Load(); m != nil {
		if first, ok := (*m)[k]; ok {
			return first
		}
		maps.Copy(next, *m)
	}
	next[k] = v
	t.m.Store(&next)
	return v
}
