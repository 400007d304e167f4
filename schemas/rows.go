package schemas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/millrace/millrace/event"
)

// Rows are events as rows, held as one vector per column: what a database or a file of columns takes in bulk. They
// are decoded straight from Avro's bytes, whichever version of a schema each event was written with. Not safe for
// concurrent use.
//
//	columns, err := schema.Columns()
//	rows, err := registry.NewRows(columns...)
//	for i := range events {
//		err := rows.Append(ctx, &events[i])
//	}
//	ids, cents := rows.Texts(0), rows.Ints(1)
type Rows struct {
	reg     *Registry
	columns []Column
	targets []target // by column: how a value in its own type is taken in
	fields  bool     // some column is a field
	plans   map[*entry]*step
	last    *entry // the plan of the last event, which is nearly always that of the next
	plan    *step

	n       int
	vectors []vector
	deleted []bool // nil as long as no row is
	bytes   []byte // of texts and the like, one after the other
	text    string // bytes as a string, once somebody asked
	spare   vector
}

// vector holds the values of one column: in ints, floats or spans as the column's kind has it.
type vector struct {
	ints   []int64
	floats []float64
	spans  []span
	nulls  []bool // empty where the column is not nullable
}

// span is a value's place in Rows.bytes.
type span struct{ from, size uint32 }

// maxRowsSize bounds the bytes of one Rows.
const maxRowsSize = 1 << 30

// ErrFull means that Rows hold as many bytes as they can, 1 GiB.
var ErrFull = errors.New("the rows hold 1 GiB: write them in smaller batches")

// NewRows returns empty rows with the columns. They may come from [Schema.Columns], [Schema.Column] or [Attribute], or
// be declared by hand: then a writer that lacks the field makes a null. An error says which column is none.
func (r *Registry) NewRows(columns ...Column) (*Rows, error) {
	rows := &Rows{reg: r, columns: columns, plans: map[*entry]*step{}, vectors: make([]vector, len(columns))}
	names := map[string]bool{}
	for i := range columns {
		c := &columns[i]
		if err := c.validate(); err != nil {
			return nil, fmt.Errorf("schemas: %w", err)
		}
		if names[strings.ToLower(c.Name)] {
			return nil, fmt.Errorf("schemas: two columns have the name %s", c.Name)
		}
		names[strings.ToLower(c.Name)] = true
		rows.fields = rows.fields || c.attribute() == ""
		t, err := targetOf(i, c, c.like())
		if err != nil {
			return nil, fmt.Errorf("schemas: column %s: %w", c.Name, err)
		}
		rows.targets = append(rows.targets, t)
	}
	return rows, nil
}

// Fresh returns empty rows with the same columns.
func (r *Rows) Fresh() *Rows {
	return &Rows{reg: r.reg, columns: r.columns, targets: r.targets, fields: r.fields, plans: map[*entry]*step{}, vectors: make([]vector, len(r.columns))}
}

// Append adds e as a row. After an error the rows are as they were.
//
// A field that the writer's schema lacks is the default that the column's schema gives it, else null. A tombstone
// makes a deleted row: it has its attributes and, of its fields, the columns marked Key, which are read from the
// record's key; the others are null or zero.
//
// An error wraps ErrPoison (the bytes or a value are damaged: dead-letter the record), ErrUnavailable (wait and try
// again), ErrIncompatible (the columns cannot take what the writer writes, or a null; stop, or dead-letter where
// others fit) or [ErrFull], and names the record and the schema. Data is Avro behind a frame, or JSON.
func (r *Rows) Append(ctx context.Context, e *event.Event) error {
	size := len(r.bytes)
	entry, err := r.append(ctx, e)
	if err != nil {
		r.truncate(r.n, size)
		return blame(e, entry, err)
	}
	r.n++
	r.text = ""
	return nil
}

func (r *Rows) append(ctx context.Context, e *event.Event) (found *entry, err error) {
	if len(r.bytes) > maxRowsSize {
		return nil, ErrFull
	}
	if err := r.attributes(e); err != nil {
		return nil, err
	}
	if e.Value == nil || r.deleted != nil {
		for len(r.deleted) < r.n {
			r.deleted = append(r.deleted, false)
		}
		r.deleted = append(r.deleted, e.Value == nil)
	}
	if e.Value == nil {
		return nil, r.tombstone(e)
	}
	if !r.fields {
		return nil, nil //nolint:nilnil // the schema was not needed
	}
	found, body, err := r.reg.frameOf(ctx, e)
	switch {
	case err != nil:
		return found, err
	case found != nil && found.schema.Type == TypeAvro:
		return found, r.avro(found, body)
	default:
		return found, r.plain(e, found, body)
	}
}

// avro reads body by the writer's schema.
func (r *Rows) avro(e *entry, body []byte) error {
	if e != r.last {
		p, ok := r.plans[e]
		if !ok {
			g, err := e.schema.generic()
			if err != nil {
				return err
			}
			p = planOf(g.tree.root, r.columns)
			if len(r.plans) >= maxCached {
				clear(r.plans)
			}
			r.plans[e] = p
		}
		r.last, r.plan = e, p
	}
	in := intake{Rows: r}
	rest, err := in.run(r.plan, body)
	if err == nil && len(rest) > 0 {
		err = errRest(rest)
	}
	return unfitOr(err)
}

// unfitOr is err as one of poison, where it is of no other class.
func unfitOr(err error) error {
	if err == nil || errors.Is(err, ErrIncompatible) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrPoison, err)
}

// attributes sets the columns that are no fields.
func (r *Rows) attributes(e *event.Event) error {
	for i := range r.columns {
		c := &r.columns[i]
		name := c.attribute()
		var err error
		switch name {
		case "":
		case "$key":
			err = r.optional(i, e.Key)
		case "$id":
			err = r.putText(i, e.ID)
		case "$type":
			err = r.putText(i, e.Type)
		case "$source":
			err = r.putText(i, e.Source)
		case "$topic":
			err = r.putText(i, e.Topic)
		case "$tenant":
			if e.Tenant == "" {
				err = r.putNull(i)
			} else {
				err = r.putText(i, e.Tenant)
			}
		case "$partition":
			r.putInt(i, int64(e.Partition))
		case "$offset":
			r.putInt(i, e.Offset)
		case "$published":
			r.putInt(i, e.Published.UnixMicro())
		case "$time":
			if e.Time.IsZero() {
				err = r.putNull(i)
			} else {
				r.putInt(i, e.Time.UnixMicro())
			}
		default:
			err = r.optional(i, e.Headers.Get(strings.TrimPrefix(name, "$header.")))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// optional sets a column to bytes that may be null.
func (r *Rows) optional(i int, b []byte) error {
	if b == nil {
		return r.putNull(i)
	}
	return unfitOr(r.take(r.targets[i], b))
}

func (r *Rows) putText(i int, s string) error {
	from := len(r.bytes)
	r.bytes = append(r.bytes, s...)
	return unfitOr(r.sealText(i, from))
}

// tombstone sets the fields of a deleted row.
func (r *Rows) tombstone(e *event.Event) error {
	for i := range r.columns {
		c := &r.columns[i]
		switch {
		case c.attribute() != "":
		case c.Key:
			if e.Key == nil {
				return fmt.Errorf("%w: a tombstone without a key deletes nothing", ErrPoison)
			}
			if err := r.keyed(i, string(e.Key)); err != nil {
				return fmt.Errorf("%w: the key as %s: %w", ErrPoison, c.Name, err)
			}
		default:
			r.putNothing(i)
		}
	}
	return nil
}

// keyed reads the text of a key as a value of column i.
func (r *Rows) keyed(i int, key string) error {
	n := r.columns[i].like()
	var v any = key
	switch r.columns[i].Kind {
	case KindInt, KindFloat:
		v = json.Number(key)
	case KindBool:
		b, err := strconv.ParseBool(key)
		if err != nil {
			return n.unfit(key)
		}
		v = b
	case KindBytes:
		v = []byte(key)
	default:
	}
	return r.putAny(i, n, v)
}

// Len is the number of rows.
func (r *Rows) Len() int { return r.n }

// Size is the bytes that the values take, less what nulls and vectors do.
func (r *Rows) Size() int {
	fixed := 0
	for i := range r.columns {
		if r.columns[i].wide() == inInts || r.columns[i].wide() == inFloats {
			fixed += 8
		}
	}
	return len(r.bytes) + fixed*r.n
}

// Columns are those that NewRows was given. They must not be changed.
func (r *Rows) Columns() []Column { return r.columns }

// Reset empties the rows. What Bytes returned is overwritten; texts stay what they are.
func (r *Rows) Reset() { r.truncate(0, 0) }

// truncate takes back what lies beyond n rows, whose bytes end at size. The vectors may hold parts of a row.
func (r *Rows) truncate(n, size int) {
	for i := range r.vectors {
		v := &r.vectors[i]
		v.ints, v.floats = v.ints[:min(n, len(v.ints))], v.floats[:min(n, len(v.floats))]
		v.spans, v.nulls = v.spans[:min(n, len(v.spans))], v.nulls[:min(n, len(v.nulls))]
	}
	r.deleted = r.deleted[:min(n, len(r.deleted))]
	if n == 0 {
		r.deleted = nil
	}
	r.n, r.bytes, r.text = n, r.bytes[:size], ""
}

// Deleted says which rows tombstones made. Nil when none did.
func (r *Rows) Deleted() []bool { return r.deleted }

// Nulls says which values of column i are null. Nil for a column that is not nullable.
func (r *Rows) Nulls(i int) []bool {
	if !r.columns[i].Nullable {
		return nil
	}
	return r.vectors[i].nulls
}

// Ints are the values of column i, which is of KindBool, KindInt, KindDate, KindTime or KindTimestamp; 0 where null.
// They are good until the rows change.
func (r *Rows) Ints(i int) []int64 { return r.vectors[i].ints }

// Floats are the values of column i, which is of KindFloat; 0 where null. They are good until the rows change.
func (r *Rows) Floats(i int) []float64 { return r.vectors[i].floats }

// Bytes is a value of column i, which is of KindString, KindBytes, KindDecimal, KindUUID or KindJSON; empty where
// null. It is good until the rows change and must not be changed.
func (r *Rows) Bytes(i, row int) []byte {
	s := r.vectors[i].spans[row]
	return r.bytes[s.from : s.from+s.size : s.from+s.size]
}

// Texts are the values of column i as text: a column of KindString or KindJSON as it is, decimals with all their
// digits (19.90), UUIDs in the form 8-4-4-4-12; "" where null. All texts of the rows share one copy of their bytes.
func (r *Rows) Texts(i int) []string {
	v := &r.vectors[i]
	out := make([]string, len(v.spans))
	c := &r.columns[i]
	if c.Kind == KindDecimal || c.Kind == KindUUID {
		var all []byte
		ends := make([]int, len(out))
		for row := range out {
			if b := r.Bytes(i, row); len(b) > 0 {
				all = appendKindText(all, c, b)
			}
			ends[row] = len(all)
		}
		text, from := string(all), 0
		for row, end := range ends {
			out[row], from = text[from:end], end
		}
		return out
	}
	if r.text == "" {
		r.text = string(r.bytes)
	}
	for row, s := range v.spans {
		out[row] = r.text[s.from : s.from+s.size]
	}
	return out
}

func appendKindText(dst []byte, c *Column, b []byte) []byte {
	if c.Kind == KindUUID {
		return append(dst, formatUUID([16]byte(b))...)
	}
	return appendDecimal(dst, b, c.Scale)
}

// width is where a kind's values lie.
type width int

const (
	inInts width = iota
	inFloats
	inBytes
)

func (c *Column) wide() width {
	switch c.Kind {
	case KindBool, KindInt, KindDate, KindTime, KindTimestamp:
		return inInts
	case KindFloat:
		return inFloats
	default:
		return inBytes
	}
}

func (r *Rows) putInt(i int, x int64) {
	v := &r.vectors[i]
	v.ints = append(v.ints, x)
	if r.columns[i].Nullable {
		v.nulls = append(v.nulls, false)
	}
}

func (r *Rows) putFloat(i int, x float64) {
	v := &r.vectors[i]
	v.floats = append(v.floats, x)
	if r.columns[i].Nullable {
		v.nulls = append(v.nulls, false)
	}
}

// seal makes what was appended to the bytes since from the value of column i.
func (r *Rows) seal(i, from int) error {
	size := len(r.bytes) - from
	if len(r.bytes) > math.MaxUint32 {
		return ErrFull
	}
	v := &r.vectors[i]
	v.spans = append(v.spans, span{uint32(from), uint32(size)})
	if r.columns[i].Nullable {
		v.nulls = append(v.nulls, false)
	}
	return nil
}

func (r *Rows) putNull(i int) error {
	if !r.columns[i].Nullable {
		return fmt.Errorf("%w: null for the column %s, which takes none", ErrIncompatible, r.columns[i].Name)
	}
	r.putNothing(i)
	return nil
}

// putNothing sets column i to null, or to zero where there is no null.
func (r *Rows) putNothing(i int) {
	v := &r.vectors[i]
	switch r.columns[i].wide() {
	case inInts:
		v.ints = append(v.ints, 0)
	case inFloats:
		v.floats = append(v.floats, 0)
	case inBytes:
		v.spans = append(v.spans, span{})
	}
	if r.columns[i].Nullable {
		v.nulls = append(v.nulls, true)
	}
}
