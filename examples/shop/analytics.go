package shop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

// Analytics is the service that keeps revenue per minute and country.
//
// Its numbers stay right through kill -9, though delivery is at least once and the table is in memory only. The log is
// the truth: at the start the table is built from all of it, up to the end as it is then. The group goes on from its
// commit, which lies at or before that end, so what it brings again is recognised by its offset and skipped. An order
// that was published twice, because its producer did not hear the answer, has one id at two offsets: recent ids are
// remembered for that. A table that must outlive the log, or is too large to rebuild, belongs in a database, in one
// transaction with the position.
//
// One process at a time: a second member of the group would hold a table of its own.
func Analytics(ctx context.Context, s *service.Service) error {
	return Analyse(ctx, s, NewRevenue())
}

// Analyse is [Analytics] with a table of the caller's.
func Analyse(ctx context.Context, s *service.Service, revenue *Revenue) error {
	if err := rebuild(ctx, s, revenue); err != nil {
		return fmt.Errorf("rebuild the table from %s: %w", Orders, err)
	}
	mux := consumer.NewMux()
	consumer.OnBatch(mux, revenue.OrdersPlaced)
	s.Consume(mux, consumer.Config{Topics: []string{Orders}, SessionTimeout: sessionTimeout})
	s.Report(revenue.Result)
	return nil
}

// rebuild reads the orders up to the end of the log.
func rebuild(ctx context.Context, s *service.Service, revenue *Revenue) error {
	read, err := reader.Open(ctx, s.Cluster, reader.Config{Topics: []string{Orders}, Log: s.Log})
	if err != nil {
		return err
	}
	for e, err := range read.Events(ctx) {
		if err != nil {
			return err
		}
		order := event.Of[OrderPlaced]{Meta: e.Meta}
		switch err := s.Schemas.Decode(ctx, &e, &order.Data); {
		case errors.Is(err, schemas.ErrPoison): // the group's dead letters have it
			continue
		case err != nil:
			return err
		}
		if err := revenue.OrdersPlaced(ctx, []event.Of[OrderPlaced]{order}); err != nil {
			return err
		}
	}
	s.Log.Info("table rebuilt", zap.Stringer("read", read.Complete()))
	return nil
}

// Cell is what a country bought in a minute.
type Cell struct {
	Orders, Cents int64
}

// Revenue is revenue per minute and country. Events of a partition come in order; an event that comes again changes
// nothing.
type Revenue struct {
	mu      sync.Mutex
	cells   map[minute]Cell
	total   Cell
	repeats int64
	next    map[int32]int64 // by partition: the offset after the last one that is counted
	ids     recent
}

type minute struct {
	at      int64 // minutes since the epoch
	country string
}

// NewRevenue returns an empty table.
func NewRevenue() *Revenue {
	return &Revenue{cells: map[minute]Cell{}, next: map[int32]int64{}}
}

// keep is how long cells are kept, by the clock of the orders.
const keep = 24 * time.Hour

// OrdersPlaced counts orders.
func (r *Revenue) OrdersPlaced(_ context.Context, es []event.Of[OrderPlaced]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range es {
		e := &es[i]
		if e.Offset < r.next[e.Partition] || !r.ids.add(e.ID) {
			r.repeats++
			continue
		}
		r.next[e.Partition] = e.Offset + 1
		at := minute{e.Data.PlacedAt.Unix() / 60, e.Data.Country}
		c := r.cells[at]
		if c.Orders == 0 {
			r.expire(at.at)
		}
		r.cells[at] = Cell{c.Orders + 1, c.Cents + e.Data.Cents}
		r.total = Cell{r.total.Orders + 1, r.total.Cents + e.Data.Cents}
	}
	return nil
}

// expire forgets the cells that are older than keep, seen from now.
func (r *Revenue) expire(now int64) {
	for m := range r.cells {
		if m.at < now-int64(keep/time.Minute) {
			delete(r.cells, m)
		}
	}
}

// Total is what all countries bought, and how many events came again and were skipped.
func (r *Revenue) Total() (c Cell, repeats int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total, r.repeats
}

// In is what country bought in the minute of t.
func (r *Revenue) In(t time.Time, country string) Cell {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cells[minute{t.Unix() / 60, country}]
}

// Result says in one line how the table stands.
func (r *Revenue) Result() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var last int64
	for m := range r.cells {
		last = max(last, m.at)
	}
	var best string
	for m, c := range r.cells {
		if b := r.cells[minute{last, best}]; m.at == last && (c.Cents > b.Cents || c.Cents == b.Cents && m.country < best) {
			best = m.country
		}
	}
	line := fmt.Sprintf("%s orders, %s EUR", grouped(r.total.Orders), euros(r.total.Cents))
	if best != "" {
		line += fmt.Sprintf("; %s UTC: %s leads with %s EUR", time.Unix(last*60, 0).UTC().Format("15:04"), best, euros(r.cells[minute{last, best}].Cents))
	}
	return fmt.Sprintf("%s; %s repeats skipped", line, grouped(r.repeats))
}

// recent remembers the last ids, between recentIDs and twice as many, in two generations: the older is dropped whole.
type recent struct {
	young, old map[string]struct{}
}

const recentIDs = 50_000

// add reports false when id is remembered.
func (r *recent) add(id string) bool {
	if _, ok := r.young[id]; ok {
		return false
	}
	if _, ok := r.old[id]; ok {
		return false
	}
	if r.young == nil || len(r.young) >= recentIDs {
		r.young, r.old = make(map[string]struct{}), r.young
	}
	r.young[strings.Clone(id)] = struct{}{} // an event's id shares the memory of the batch it was read in
	return true
}
