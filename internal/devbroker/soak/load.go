package soak

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// format is a value: worker, number of the record or transaction, part of the transaction.
const format = "%d/%d/%d"

type sent struct {
	worker, number, part int
	partition            int32
}

type outcome struct {
	parts int
	state state
}

type state int

const (
	unknown state = iota
	committed
	aborted // by the producer, who never asked for a commit
)

// journal is what a worker was told, by number.
type journal struct {
	worker int
	mu     sync.Mutex
	txns   map[int]outcome // a record that stands alone is one with a single part
}

func (j *journal) note(number, parts int, s state) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.txns[number] = outcome{parts, s}
}

func (j *journal) record(number, part int) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: int32((number + part) % partitions),
		Value: fmt.Appendf(nil, format, j.worker, number, part),
	}
}

func connect(addr string, opts ...kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(500),
		kgo.ProducerLinger(0), kgo.DisableClientMetrics(), kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.MetadataMinAge(20 * time.Millisecond), kgo.RetryTimeout(drain),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return client, nil
}

// idempotent produces until ctx ends, with several batches under way at all times.
func idempotent(ctx context.Context, addr string, j *journal) error {
	client, err := connect(addr)
	if err != nil {
		return err
	}
	defer client.Close()
	for n := 0; ctx.Err() == nil; n++ {
		if n%16 == 15 && wait(ctx, time.Millisecond) != nil { // the journal is in memory
			break
		}
		j.note(n, 1, unknown)
		// Not ctx: a record that is called off has an unknown end.
		client.Produce(context.WithoutCancel(ctx), j.record(n, 0), func(_ *kgo.Record, err error) {
			if err == nil {
				j.note(n, 1, committed)
			}
		})
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := client.Flush(last); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// transactional commits one transaction after the other until ctx ends.
func transactional(ctx context.Context, addr string, j *journal) error {
	var client *kgo.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	for n := 0; ctx.Err() == nil; n++ {
		if client == nil {
			var err error
			if client, err = connect(addr, kgo.TransactionalID(fmt.Sprintf("soak-%d", j.worker)), kgo.TransactionTimeout(drain)); err != nil {
				return err
			}
		}
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		healthy := j.transaction(one, client, n)
		cancel()
		if !healthy { // a new client fences the old one
			client.Close()
			client = nil
		}
	}
	return nil
}

// transaction runs one, and says whether the client can run another.
func (j *journal) transaction(ctx context.Context, client *kgo.Client, n int) bool {
	if client.BeginTransaction() != nil {
		return false
	}
	parts := 1 + n%4
	j.note(n, parts, aborted) // until a commit is asked for
	var failed kgo.FirstErrPromise
	for part := range parts {
		client.Produce(ctx, j.record(n, part), failed.Promise())
	}
	if client.Flush(ctx) != nil || failed.Err() != nil || n%10 == 9 {
		return client.EndTransaction(ctx, kgo.TryAbort) == nil
	}
	j.note(n, parts, unknown)
	if client.EndTransaction(ctx, kgo.TryCommit) == nil {
		j.note(n, parts, committed)
		return true
	}
	return client.EndTransaction(ctx, kgo.TryAbort) == nil // its end stays unknown
}

// judge compares what the worker was told with what is there.
func (j *journal) judge(seen map[int][]sent, r *Report) {
	there := make(map[int]map[int]int) // number, part: how often
	last := make(map[int32]int)
	for _, s := range seen[j.worker] {
		if there[s.number] == nil {
			there[s.number] = make(map[int]int)
		}
		there[s.number][s.part]++
		if s.number < last[s.partition] {
			r.Disordered++
		}
		last[s.partition] = s.number
	}
	for number, o := range j.txns {
		parts := there[number]
		for _, times := range parts {
			r.Duplicated += times - 1
		}
		switch {
		case o.state == committed && len(parts) < o.parts:
			r.Lost += o.parts - len(parts)
		case o.state == aborted && len(parts) > 0:
			r.AbortedVisible++
		}
		if len(parts) != 0 && len(parts) != o.parts {
			r.Torn++
		}
		switch {
		case o.state == unknown:
			r.Unknown++
		case o.state == aborted:
			r.Aborted++
		case r.Load == "idempotent":
			r.Acked++
		default:
			r.Acked += o.parts
			r.Committed++
		}
	}
}
