// Package parquetsink writes events to Parquet files in a directory, each once. There is nothing beside the directory:
// it is the data and the position.
//
//	out := parquetsink.New(parquetsink.Config{Dir: "/data/lake"})
//	err := sink.Run(ctx, cluster, registry, out, sink.Config{
//		Name: "lake", Topics: []string{"shop.orders"}, Batch: parquetsink.Batch, Wait: parquetsink.Wait,
//	})
//
// A batch becomes one file, so batches should be large: [Batch] and [Wait] are good values.
//
// # The directory
//
// The events of partition 3 of shop.orders from offset 1,200 on are in
//
//	shop.orders/shop.orders-3-00000000000000001200.parquet
//
// and the offset that follows the last of them is in the file's footer, with the topic's id and the columns. The files of
// a partition are a chain: each begins where the one before ends, and the sink goes on where the last ends. A file is
// written under a temporary name, brought to the disk, and then given its name by link(2), which fails where the name is
// taken; the directory is brought to the disk as well before the batch counts as written. So an owner that has lost its
// partition, however long it slept, cannot add a file: the name that its file would have is taken. A name that told where
// the file ends could not promise that.
//
// .shop.orders-3.start has the offset that a partition's first file begins at, once somebody has claimed it. Readers pass
// over names with a dot in front.
//
// The oldest files of a partition may be taken away, the newest never: the sink would write their events again. A gap in
// a chain, files that overlap, and a file that cannot be read stop the sink with an error that names them. The directory
// needs hard links and fsync: a local disk, or NFS.
//
// # Columns
//
// They are the fields of the events' Avro schemas, records within records flattened (customer_country), or those of
// [Config.Columns]. Where events of several versions of a schema meet, a file has the columns of all of them, and null for
// what an event's own version lacks; a column that one version lacks is nullable in every later file. Read files of different
// columns with union_by_name (DuckDB) or a unified schema (pyarrow). A field whose type changes to one that the column
// cannot take (int to string, another scale) stops the sink: read it under another name of the sink into another directory.
//
// A tombstone has no fields and makes no row; nor does an event of a type other than [Config.Event].
package parquetsink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// What sink.Config should have: files of many rows, none older than a minute.
const (
	Batch = 1 << 16
	Wait  = time.Minute
)

// Config says what is written where.
type Config struct {
	// Dir is the directory; it is created where it does not exist. Each topic has a folder in it. Required.
	Dir string
	// Event is the full name of the event type whose events become rows. Defaults to the type of the topic's events, which
	// then must be one.
	Event string
	// Columns are what to take of an event. Defaults to all of its fields.
	Columns []sink.Column
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("parquetsink: Config.Dir is empty: name a directory")
	}
	for _, col := range c.Columns {
		if col.Name == "" {
			return errors.New("parquetsink: Config.Columns: a column without a name")
		}
	}
	return nil
}

// Dir is a directory of Parquet files. It implements [sink.Target].
type Dir struct{ cfg Config }

// New returns a target that writes to cfg.Dir. It does nothing yet: what is wrong with cfg is told by Run.
func New(cfg Config) *Dir { return &Dir{cfg: cfg} }

// registry is what columns and rows need of a decoder: *schemas.Registry has it.
type registry interface {
	NewRows(columns ...schemas.Column) (*schemas.Rows, error)
	SchemaOf(ctx context.Context, e *event.Event) (schemas.Schema, []byte, error)
}

// writer is a directory that is open for one sink.
type writer struct {
	cfg   Config
	reg   registry
	setup sink.Setup
	now   func() time.Time
	plant plant

	topics map[string]*topic

	mu      sync.Mutex
	footers map[stamp]footer // of files that were read once
}

// plant are bugs that tests plant to see that they are found.
type plant struct {
	rangeNames bool // name a file by where it begins and ends
	rename     bool // publish by rename, which replaces what is there
}

// Open implements [sink.Target]. Suffix is put behind the folders' names.
func (d *Dir) Open(_ context.Context, dec consumer.Decoder, s sink.Setup) (sink.Writer, error) {
	return d.open(dec, s)
}

func (d *Dir) open(dec consumer.Decoder, s sink.Setup) (*writer, error) {
	if err := d.cfg.validate(); err != nil {
		return nil, err
	}
	reg, ok := dec.(registry)
	if !ok {
		return nil, fmt.Errorf("open %s: columns are taken from schemas: a schema registry is needed, not a %T", d.cfg.Dir, dec)
	}
	if s.Dedupe > 0 {
		return nil, fmt.Errorf("open %s: a directory does not remember event ids: leave Dedupe off, and drop repeats by $id when you read", d.cfg.Dir)
	}
	w := &writer{cfg: d.cfg, reg: reg, setup: s, now: time.Now, topics: map[string]*topic{}, footers: map[stamp]footer{}}
	for _, name := range s.Topics {
		folder := filepath.Join(d.cfg.Dir, name+s.Suffix)
		if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // data is shared with its readers
			return nil, fmt.Errorf("open %s: %w", d.cfg.Dir, err)
		}
		if err := syncDir(d.cfg.Dir); err != nil {
			return nil, fmt.Errorf("open %s: %w", d.cfg.Dir, err)
		}
		if err := errors.Join(w.tidy(folder), probe(folder)); err != nil {
			return nil, fmt.Errorf("open %s: %w", folder, err)
		}
		w.topics[name] = &topic{name: name, folder: folder, known: map[int32]bool{}}
	}
	return w, nil
}

func (w *writer) topic(name string) (*topic, error) {
	t, ok := w.topics[name]
	if !ok {
		return nil, fmt.Errorf("topic %s is none that the sink was opened for", name)
	}
	return t, nil
}

// Write implements [sink.Writer].
func (w *writer) Write(ctx context.Context, b sink.Batch) error {
	started := time.Now()
	did, err := w.write(ctx, b)
	w.setup.Observer.Written(b.To.ID, did, time.Since(started), err)
	if errors.Is(err, sink.ErrNotOwner) {
		w.setup.Observer.Fenced(b.To.ID)
	}
	return err
}

func (w *writer) write(ctx context.Context, b sink.Batch) (sink.Written, error) {
	did := sink.Written{Events: len(b.Events)}
	t, err := w.topic(b.To.ID.Topic)
	if err != nil {
		return did, consumer.Stop(err)
	}
	rows, bad, err := w.rows(ctx, t, b.Events)
	if err != nil {
		return did, err
	}
	defer t.giveBack(rows)
	for _, f := range bad {
		if err := b.Bury(ctx, f.i, "parquet", f.err); err != nil {
			return did, fmt.Errorf("bury the event at offset %d: %w", b.Events[f.i].Offset, err)
		}
		did.Buried++
	}
	if rows != nil {
		did.Rows = rows.Len()
	}
	err = w.publish(ctx, t, b, rows)
	switch {
	case err == nil, errors.Is(err, sink.ErrNotOwner):
		return did, err
	case errors.Is(err, errForm):
		return did, consumer.Stop(err)
	default:
		return did, sink.Pause(err) // the disk's fault, never an event's
	}
}

// refused is an event that is no row.
type refused struct {
	i   int
	err error
}

// rows makes rows of a batch, which the caller gives back; nil where no event has told of any columns.
func (w *writer) rows(ctx context.Context, t *topic, events []event.Event) (*schemas.Rows, []refused, error) {
	take, bad, err := w.look(ctx, t, events)
	if err != nil {
		return nil, nil, err
	}
	rows, err := t.borrow(w.reg)
	if err != nil {
		return nil, nil, consumer.Stop(fmt.Errorf("make the columns of topic %s: %w", t.name, err))
	}
	for i := range events {
		if !take[i] {
			continue
		}
		err := rows.Append(ctx, &events[i])
		switch {
		case err == nil:
		case errors.Is(err, schemas.ErrPoison):
			bad = append(bad, refused{i, err})
		case errors.Is(err, schemas.ErrIncompatible), errors.Is(err, schemas.ErrFull):
			return nil, nil, consumer.Stop(err)
		default:
			return nil, nil, err
		}
	}
	return rows, bad, nil
}

// look finds the events that become rows, and the columns that they have between them.
func (w *writer) look(ctx context.Context, t *topic, events []event.Event) (take []bool, bad []refused, err error) {
	take = make([]bool, len(events))
	for i := range events {
		e := &events[i]
		if e.IsTombstone() {
			continue
		}
		s, _, err := w.reg.SchemaOf(ctx, e)
		switch {
		case errors.Is(err, schemas.ErrPoison):
			bad = append(bad, refused{i, err})
			continue
		case err != nil:
			return nil, nil, err
		case s.Type != schemas.TypeAvro:
			bad = append(bad, refused{i, fmt.Errorf("%w: columns come from Avro schemas, and the event has none", schemas.ErrPoison)})
			continue
		case w.cfg.Event != "" && s.Name != w.cfg.Event:
			continue
		}
		if err := t.learn(&s, w.cfg); err != nil {
			return nil, nil, consumer.Stop(fmt.Errorf("event at offset %d of %s/%d: %w", e.Offset, e.Topic, e.Partition, err))
		}
		take[i] = true
	}
	return take, bad, nil
}

// Claim implements [sink.Writer].
func (w *writer) Claim(_ context.Context, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]sink.Claimed, error) {
	out := make(map[cursor.ID]sink.Claimed, len(ids))
	for _, id := range ids {
		next, err := w.claim(id, start[id])
		switch {
		case errors.Is(err, errForm):
			return nil, consumer.Stop(fmt.Errorf("claim %s: %w", id, err))
		case errors.Is(err, sink.ErrOtherTopic):
			out[id] = sink.Claimed{Claimed: cursor.Claimed{Err: fmt.Errorf("claim %s: %w: read it into another directory", id, err)}}
		case err != nil:
			return nil, fmt.Errorf("claim %s: %w", id, err)
		default:
			out[id] = sink.Claimed{Claimed: cursor.Claimed{Cursor: cursor.Cursor{Position: next, Epoch: -1, Floor: next}}}
		}
	}
	return out, nil
}

// columnsOf are the columns that the configuration makes of a schema.
func (c Config) columnsOf(s *schemas.Schema) ([]schemas.Column, error) {
	if len(c.Columns) == 0 {
		return s.Columns()
	}
	var out []schemas.Column
	for _, col := range c.Columns {
		from := col.From
		if from == "" {
			from = col.Name
		}
		var column schemas.Column
		var err error
		if strings.HasPrefix(from, "$") {
			column, err = schemas.Attribute(from)
		} else if column, err = s.Column(strings.Split(from, ".")...); errors.Is(err, schemas.ErrIncompatible) {
			continue // another version may have it: until one does, it is no column
		}
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", col.Name, err)
		}
		column.Name = col.Name
		out = append(out, column)
	}
	return out, nil
}
