package sink

import (
	"context"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
)

// The bugs that can be planted into a Mux and into Run.
const (
	ExpectFirst = "expected taken from the first record"
	ByTime      = "dedupe by time"
	FoldTwice   = "a repeat folded twice"
	FromKafka   = "resume from Kafka's offset"
)

// Letters is where a Member's dead letters go.
type Letters func(ctx context.Context, e event.Event, f deadletter.Failure) error

// Write is that of a deadletter.Writer.
func (l Letters) Write(ctx context.Context, e event.Event, f deadletter.Failure) error {
	return l(ctx, e, f)
}

// Member is a member of a sink without an engine: a test says what it claims and handles.
type Member struct {
	store  *store
	runner *runner
}

// NewMember opens target for a member with a planted bug, or with "".
func NewMember[Tx any](ctx context.Context, f engine.Feed, l logs, dec consumer.Decoder, t *Mux[Tx], cfg Config, letters Letters, bug string) (*Member, error) {
	cfg = cfg.withDefaults()
	w, err := t.Open(ctx, dec, Setup{Sink: cfg.name(), Owner: "test", Topics: cfg.Topics, Suffix: cfg.suffix(), Dedupe: cfg.Dedupe, Observer: cfg.Observer, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	open := w.(*writer[Tx]) //nolint:forcetypeassert // a Mux makes no other
	open.plant = plant{expectFirst: bug == ExpectFirst, byTime: bug == ByTime, foldTwice: bug == FoldTwice}
	ps := &places{of: make(map[cursor.ID]*place)}
	m := &Member{
		store:  &store{name: cfg.name(), feed: f, logs: l, target: w, places: ps},
		runner: &runner{target: w, places: ps, cfg: cfg, letters: letters, now: time.Now},
	}
	if bug == FromKafka {
		m.store.plant.fromKafka = make(map[cursor.ID]int64)
	}
	return m, nil
}

// Claim is what the engine calls. committed are Kafka's offsets, which only a planted bug looks at.
func (m *Member) Claim(ctx context.Context, ids []cursor.ID, committed map[cursor.ID]int64) (map[cursor.ID]cursor.Claimed, error) {
	if m.store.plant.fromKafka != nil {
		m.store.plant.fromKafka = committed
	}
	return m.store.Claim(ctx, ids)
}

// Handle is what the engine calls.
func (m *Member) Handle(ctx context.Context, b engine.Batch) []verdict.Verdict {
	return m.runner.Handle(ctx, b)
}

// RunOn is Run on a feed of the test's.
func RunOn(ctx context.Context, f engine.Feed, l logs, dec consumer.Decoder, t Target, cfg Config, letters Letters) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	return run(ctx, f, l, dec, t, cfg, letters)
}

// KeepFunctions plants a bug into a shadow of a Mux[Tx]: what functions write stays.
func KeepFunctions[Tx any](s *Shadow) {
	s.writer.(*writer[Tx]).plant.keepFunctions = true //nolint:forcetypeassert // a Mux makes no other
}
