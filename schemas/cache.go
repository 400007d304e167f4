package schemas

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// cache is a map for keys that are few, come early and are then read for every event: a read is one look-up
// without a lock or an allocation, a write copies the map. The zero value is ready, and holds at most maxCached keys.
type cache[K comparable, V any] struct {
	read  atomic.Pointer[map[K]V]
	write sync.Mutex
}

// maxCached bounds a cache. Whoever meets more schemas than that loses some of what was compiled, no more.
const maxCached = 4096

func (c *cache[K, V]) get(k K) (V, bool) {
	if m := c.read.Load(); m != nil {
		v, ok := (*m)[k]
		return v, ok
	}
	var zero V
	return zero, false
}

// put keeps v. A full cache first drops a quarter of its keys, whichever they are.
func (c *cache[K, V]) put(k K, v V) {
	c.write.Lock()
	defer c.write.Unlock()
	var next map[K]V
	if m := c.read.Load(); m != nil {
		next = maps.Clone(*m)
	}
	if next == nil {
		next = make(map[K]V)
	}
	if _, ok := next[k]; !ok && len(next) >= maxCached {
		drop := maxCached / 4
		for old := range next {
			if drop--; drop < 0 {
				break
			}
			delete(next, old)
		}
	}
	next[k] = v
	c.read.Store(&next)
}

// drop forgets k.
func (c *cache[K, V]) drop(k K) {
	c.write.Lock()
	defer c.write.Unlock()
	m := c.read.Load()
	if m == nil {
		return
	}
	next := maps.Clone(*m)
	delete(next, k)
	c.read.Store(&next)
}

// refusals remember for some seconds what a healthy registry did not know, so that a topic full of one unknown id
// does not become a storm of requests.
type refusals struct {
	mu    sync.Mutex
	until map[string]refusal
}

type refusal struct {
	err error
	end time.Time
}

const refusalTTL = 3 * time.Second

func (r *refusals) get(key string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.until[key]
	if !ok {
		return nil
	}
	if time.Now().After(f.end) {
		delete(r.until, key)
		return nil
	}
	return f.err
}

func (r *refusals) put(key string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil || len(r.until) >= maxCached {
		r.until = map[string]refusal{}
	}
	r.until[key] = refusal{err, time.Now().Add(refusalTTL)}
}

// forget is called when something was registered: what was unknown may be known now.
func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = nil
}
