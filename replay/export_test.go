package replay

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/kafka"
)

// MemoryStore keeps progress in memory, in the form that it has in Kafka.
type MemoryStore struct {
	mu      sync.Mutex
	commits map[string]map[partition]memoryCommit
	// Fail, if set, is asked before each commit.
	Fail func() error
	// Delay is how long a commit takes.
	Delay time.Duration
}

type memoryCommit struct {
	at   int64
	meta []byte
}

func NewMemoryStore() *MemoryStore {
	return &MemoryStore{commits: map[string]map[partition]memoryCommit{}}
}

func (m *MemoryStore) load(_ context.Context, id string) (*frozen, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &frozen{resumed: true}
	for p, c := range m.commits[id] {
		var k mark
		if err := json.Unmarshal(c.meta, &k); err != nil {
			return nil, err
		}
		f.spans = append(f.spans, Span{p.topic, p.n, k.From, k.Until, c.at})
		if k.Head != nil {
			f.head = *k.Head
		}
	}
	if len(f.spans) == 0 {
		return nil, nil
	}
	slices.SortFunc(f.spans, bySpan)
	return f, nil
}

func (m *MemoryStore) save(_ context.Context, id string, h head, first Span, spans []Span) error {
	<-time.After(m.Delay)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Fail != nil {
		if err := m.Fail(); err != nil {
			return err
		}
	}
	if m.commits[id] == nil {
		m.commits[id] = map[partition]memoryCommit{}
	}
	for _, s := range append(slices.Clone(spans), first) {
		k := mark{Version: 1, From: s.From, Until: s.Until}
		if s.Topic == first.Topic && s.Partition == first.Partition {
			k.Head = &h
		}
		meta, err := json.Marshal(k)
		if err != nil {
			return err
		}
		m.commits[id][partition{s.Topic, s.Partition}] = memoryCommit{s.Position, meta}
	}
	return nil
}

func (m *MemoryStore) close() {}

// Clone is the progress as a crash at this moment leaves it; the lease of the dead run has ended.
func (m *MemoryStore) Clone() *MemoryStore {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemoryStore()
	c.Delay = m.Delay
	for id, commits := range m.commits {
		c.commits[id] = maps.Clone(commits)
		for p, x := range c.commits[id] {
			var k mark
			if err := json.Unmarshal(x.meta, &k); err != nil {
				panic(err)
			}
			if k.Head != nil {
				k.Head.Lease = k.Head.Lease.Add(-2 * lease)
			}
			x.meta, _ = json.Marshal(k)
			c.commits[id][p] = x
		}
	}
	return c
}

// RunWith is Run with another store.
func RunWith(ctx context.Context, s *MemoryStore, t Target, cfg Config) (Summary, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Summary{}, err
	}
	return run(ctx, kafka.Cluster{}, s, t, cfg)
}

// Plant plants a fault.
func Plant(cfg Config, fault string) Config {
	switch fault {
	case "":
	case "commit before delivery":
		cfg.plant.commitFirst = true
	case "resume one further":
		cfg.plant.skipOne = true
	case "workers without keys":
		cfg.plant.anyWorker = true
	case "no window":
		cfg.plant.noWindow = true
	default:
		panic(errors.New("no such fault: " + fault))
	}
	return cfg
}

const (
	Lease    = lease
	MinGrant = minGrant
)

// LeaveDead leaves the progress of a run whose process is gone, with a lease that has not ended.
func LeaveDead(ctx context.Context, c kafka.Cluster, id, topic string, until int64) error {
	s, err := openStore(c)
	if err != nil {
		return err
	}
	defer s.close()
	cmd := exec.CommandContext(ctx, "true")
	if err := cmd.Run(); err != nil {
		return err
	}
	o := newOwner()
	o.Token, o.PID = "dead", cmd.Process.Pid
	span := Span{Topic: topic, Until: until}
	return s.save(ctx, id, head{Owner: o, Lease: time.Now().Add(lease), Parts: 1, Grant: minGrant}, span, []Span{span})
}
