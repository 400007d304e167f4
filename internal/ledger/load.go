package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Load says what is written to the topic.
type Load struct {
	// Events is the number of records, repeats and all.
	Events int
	// Partitions of the topic.
	Partitions int
	Topic      string
	SchemaID   int
	// Seed makes the same load again.
	Seed uint64
	// From is the time of the first event; those that follow are ten milliseconds apart. It is some hours ago: an event
	// counts as of its record's timestamp at the latest.
	From time.Time
}

const (
	step    = 10 * time.Millisecond
	far     = 20_000 // the most records between an event and its repeat: less than the lateness of the fold
	regions = 17
)

// planner makes the records of a load, one after the other.
type planner struct {
	Load
	rng     *rand.Rand
	next    []int64  // by account: its next Seq
	kept    []origin // what may be repeated
	records []*kgo.Record
}

// origin is a record that may be repeated: neither late nor to be dead-lettered.
type origin struct {
	*kgo.Record
	account int
	seq     int64
}

// Plan makes the records of a load: each has its partition. Of a thousand, some thirty repeat an earlier one by its id, at
// once or long after, in its partition or in another; three delete their account; one comes too late for its
// window. Of ten thousand, one does not decode, one is refused, and one holds what PostgreSQL does not take.
func Plan(l Load) []*kgo.Record {
	p := &planner{Load: l, rng: rand.New(rand.NewPCG(l.Seed, 11)), next: make([]int64, max(l.Events/250, 8))} //nolint:gosec // it is to be the same again
	for i := range l.Events {
		p.one(i)
	}
	return p.records
}

func (p *planner) one(i int) {
	switch dice := p.rng.IntN(10_000); {
	case dice >= 300:
		p.move(i, dice)
	case dice < 100 && p.repeat(50, false), dice >= 100 && dice < 200 && p.repeat(far, false), dice >= 200 && p.repeat(far, true):
	default: // there is nothing to repeat
		p.move(i, 9999)
	}
}

// move adds an event of an account, or the end of the account.
func (p *planner) move(i, dice int) {
	account := p.rng.IntN(len(p.next))
	m := Moved{
		Account: fmt.Sprintf("account-%04d", account), Region: fmt.Sprintf("region-%02d", account%regions),
		Seq: p.next[account], Cents: p.rng.Int64N(100_000) - 20_000,
	}
	p.next[account]++
	at, keep := p.From.Add(time.Duration(i)*step), false
	switch {
	case dice < 310:
		at = at.Add(-time.Hour)
	case dice < 311:
		m.Note = refused
	case dice < 312:
		m.Note = nul
	default:
		keep = true
	}
	r := p.record(account%p.Partitions, m.Account, m.encode(p.SchemaID), at)
	r.Headers[0].Value = fmt.Appendf(nil, "%s-%06d", m.Account, m.Seq)
	switch {
	case dice == 312:
		r.Value, keep = r.Value[:len(r.Value)-3], false
	case dice >= 400 && dice < 430:
		r.Value, keep = nil, false
	}
	p.records = append(p.records, r)
	if keep {
		p.kept = append(p.kept, origin{r, account, m.Seq})
	}
}

func (p *planner) record(partition int, key string, value []byte, at time.Time) *kgo.Record {
	return &kgo.Record{Topic: p.Topic, Partition: int32(partition), Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{
		{Key: "ce_id"},
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_type", Value: []byte(typeName)},
		{Key: "ce_source", Value: []byte("ledger")},
		{Key: "ce_time", Value: []byte(at.UTC().Format(time.RFC3339Nano))},
	}}
}

// repeat adds one of the last records once more. In another partition it is one that its own partition goes on after: which
// of the two is read first is nobody's choice, and the last word on an account must not depend on it.
// It reports whether there was one.
func (p *planner) repeat(within int, elsewhere bool) bool {
	within = min(within, len(p.kept))
	if within == 0 {
		return false
	}
	o := p.kept[len(p.kept)-1-p.rng.IntN(within)]
	again := *o.Record
	if elsewhere {
		if p.next[o.account] < o.seq+2 {
			return false
		}
		again.Partition = (again.Partition + 1) % int32(p.Partitions)
	}
	p.records = append(p.records, &again)
	return true
}

// Publish writes records in their order and returns when all are acknowledged. Before each hundred it calls pace, which
// waits for as long as it likes. client must have [kgo.ManualPartitioner].
func Publish(ctx context.Context, client *kgo.Client, records []*kgo.Record, pace func(ctx context.Context, published int)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i, r := range records {
		if i%100 == 0 {
			pace(ctx, i)
		}
		again := *r // the client writes into it
		client.Produce(ctx, &again, func(_ *kgo.Record, err error) {
			if err != nil {
				cancel(fmt.Errorf("publish record %d: %w", i, err))
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return context.Cause(ctx)
	}
	return context.Cause(ctx)
}
