package parquetsink

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/schemas"
)

// topic is what is known of the files of one topic.
type topic struct {
	name, folder string

	mu      sync.Mutex
	event   string // the type of its events, once there was one
	columns []schemas.Column
	known   map[int32]bool  // ids of schemas whose columns are among them
	free    []*schemas.Rows // with the columns as they are
}

// borrow returns empty rows with the columns as they are, nil where there are none. Their memory is used again.
func (t *topic) borrow(reg registry) (*schemas.Rows, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.columns) == 0 {
		return nil, nil //nolint:nilnil // no event has told of any
	}
	if n := len(t.free); n > 0 {
		rows := t.free[n-1]
		t.free = t.free[:n-1]
		return rows, nil
	}
	return reg.NewRows(t.columns...)
}

// kind is the type of the topic's events, empty where no event has told.
func (t *topic) kind() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.event
}

// giveBack ends the use of rows that were borrowed, or of nil.
func (t *topic) giveBack(rows *schemas.Rows) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rows == nil || len(t.free) >= maxFree || !slices.EqualFunc(rows.Columns(), t.columns, same) {
		return
	}
	rows.Reset()
	t.free = append(t.free, rows)
}

// maxFree is how many rows of a topic wait to be used again: as many partitions write at once, or nearly.
const maxFree = 2

func same(a, b schemas.Column) bool {
	return a.Name == b.Name && slices.Equal(a.Path, b.Path) && a.Kind == b.Kind && a.Nullable == b.Nullable &&
		a.Precision == b.Precision && a.Scale == b.Scale && a.Local == b.Local
}

// become makes the columns those of the next file.
func (t *topic) become(columns []schemas.Column) {
	if !slices.EqualFunc(columns, t.columns, same) {
		t.columns, t.free = columns, nil
	}
}

// learn adds the columns of a schema.
func (t *topic) learn(s *schemas.Schema, cfg Config) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[s.ID] && s.ID > 0 {
		return nil
	}
	if t.event != "" && t.event != s.Name {
		return fmt.Errorf("the topic has events of the types %s and %s: say which become rows by Event", t.event, s.Name)
	}
	more, err := cfg.columnsOf(s)
	if err != nil {
		return err
	}
	merged, err := merge(t.columns, more)
	if err != nil {
		return fmt.Errorf("%s (schema %d): %w: read the topic into another directory", s.Name, s.ID, err)
	}
	t.become(merged)
	t.event = s.Name
	t.known[s.ID] = true
	return nil
}

// recall adds the columns of a file that was written before.
func (t *topic) recall(f footer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.event != "" && f.event != "" && t.event != f.event {
		return fmt.Errorf("it has rows of the types %s and %s", t.event, f.event)
	}
	merged, err := merge(t.columns, f.columns)
	if err != nil {
		return err
	}
	if f.event != "" {
		t.event = f.event
	}
	t.become(merged)
	return nil
}

var errMerge = errors.New("the columns do not fit those of earlier files")

// merge is the columns that take the events of both: what one side lacks is nullable.
func merge(have, more []schemas.Column) ([]schemas.Column, error) {
	out := make([]schemas.Column, 0, len(have)+len(more))
	for _, c := range have {
		if !slices.ContainsFunc(more, func(m schemas.Column) bool { return strings.EqualFold(m.Name, c.Name) }) && len(more) > 0 {
			c.Nullable = true
		}
		out = append(out, c)
	}
	for i := range more {
		m := declared(&more[i])
		at := slices.IndexFunc(have, func(c schemas.Column) bool { return strings.EqualFold(m.Name, c.Name) })
		if at < 0 {
			m.Nullable = m.Nullable || len(have) > 0
			out = append(out, m)
			continue
		}
		c, err := widen(out[at], m)
		if err != nil {
			return nil, err
		}
		out[at] = c
	}
	return out, nil
}

// declared is c as if it had been declared by hand: what a writer lacks is null, whatever a reader's default, so that
// an event is the same row in whichever batch it comes.
func declared(c *schemas.Column) schemas.Column {
	return schemas.Column{
		Name: c.Name, Path: c.Path, Kind: c.Kind, Nullable: c.Nullable, Precision: c.Precision, Scale: c.Scale, Local: c.Local,
	}
}

// widen is the column that takes the values of both.
func widen(a, b schemas.Column) (schemas.Column, error) {
	number := func(k schemas.ColumnKind) bool { return k == schemas.KindInt || k == schemas.KindFloat }
	switch {
	case !slices.Equal(a.Path, b.Path):
		return a, fmt.Errorf("%w: column %s was the field %s and is the field %s", errMerge, a.Name, strings.Join(a.Path, "."), strings.Join(b.Path, "."))
	case number(a.Kind) && number(b.Kind):
		a.Kind = max(a.Kind, b.Kind)
	case a.Kind != b.Kind || a.Local != b.Local:
		return a, fmt.Errorf("%w: column %s was a %s and is a %s", errMerge, a.Name, a.Kind, b.Kind)
	case a.Scale != b.Scale:
		return a, fmt.Errorf("%w: column %s was a decimal of scale %d and is one of scale %d", errMerge, a.Name, a.Scale, b.Scale)
	}
	a.Precision = max(a.Precision, b.Precision)
	a.Nullable = a.Nullable || b.Nullable
	return a, nil
}

// columnJSON is a column in a footer.
type columnJSON struct {
	Name      string   `json:"name"`
	Path      []string `json:"path"`
	Kind      string   `json:"kind"`
	Nullable  bool     `json:"nullable,omitempty"`
	Precision int      `json:"precision,omitempty"`
	Scale     int      `json:"scale,omitempty"`
	Local     bool     `json:"local,omitempty"`
}

func marshalColumns(columns []schemas.Column) (string, error) {
	all := make([]columnJSON, len(columns))
	for i, c := range columns {
		all[i] = columnJSON{c.Name, c.Path, c.Kind.String(), c.Nullable, c.Precision, c.Scale, c.Local}
	}
	b, err := json.Marshal(all)
	return string(b), err
}

func unmarshalColumns(text string) ([]schemas.Column, error) {
	var all []columnJSON
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("read its columns: %w", err)
	}
	out := make([]schemas.Column, len(all))
	for i, c := range all {
		kind, err := kindOf(c.Kind)
		if err != nil {
			return nil, err
		}
		out[i] = schemas.Column{Name: c.Name, Path: c.Path, Kind: kind, Nullable: c.Nullable, Precision: c.Precision, Scale: c.Scale, Local: c.Local}
	}
	return out, nil
}

func kindOf(word string) (schemas.ColumnKind, error) {
	for k := schemas.KindBool; k <= schemas.KindJSON; k++ {
		if k.String() == word {
			return k, nil
		}
	}
	return 0, fmt.Errorf("read its columns: there is no kind %q", word)
}
