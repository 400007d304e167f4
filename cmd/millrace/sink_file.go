package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/millrace/millrace/internal/secret"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/parquetsink"
)

// maxSinkFile bounds a sink's file, in bytes.
const maxSinkFile = 1 << 20

// sinkFile is a sink as a file describes it:
//
//	name: analytics                     # of the position rows, and of the group that shows the lag
//	topics: [shop.orders]
//	into:
//	  postgres: env:ANALYTICS_DSN       # or sqlite: data/analytics.db, or parquet: data/lake
//	tables:
//	  - name: orders
//	    event: shop.OrderPlaced
//	    key: order_id                   # one row of each; append: true makes one of each event
//	    columns: [order_id, cents, {country: customer.country}]
//
// All of it is known after reading but the DSN, which may be a variable's or a file's.
type sinkFile struct {
	*configFile

	config sink.Config
	start  string // a position, of the moment when it is used
	into   sinkInto
	tables []sink.Table
}

// sinkInto is where rows go: one of the three.
type sinkInto struct {
	dsn     string        // of PostgreSQL, as the file has it: env:NAME or file:PATH where it holds a password
	schema  string        // of PostgreSQL
	timeout time.Duration // of a transaction of PostgreSQL; 0 is the default
	sqlite  string        // the database's file
	parquet string        // the folder
	line    int
}

// readSinkFile reads a sink's file. An error names the file and the line.
func readSinkFile(path string) (*sinkFile, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, hint(usage(fmt.Errorf("there is no file %s", path)), "see how one is written:  millrace sink --help")
	}
	if err != nil {
		return nil, fmt.Errorf("read the sink's file: %w", err)
	}
	defer func() { _ = f.Close() }() // it was read only
	src, err := io.ReadAll(io.LimitReader(f, maxSinkFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the sink's file: %w", err)
	case len(src) > maxSinkFile:
		return nil, usage(fmt.Errorf("%s: the file is larger than %d KiB", path, maxSinkFile>>10))
	}
	s, err := parseSink(path, src)
	if err != nil {
		return nil, usage(err)
	}
	return s, nil
}

func parseSink(path string, src []byte) (*sinkFile, error) {
	s := &sinkFile{configFile: &configFile{path: path}}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(src)).Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil, fmt.Errorf("%s: the file is empty: it has name, topics, into and tables", path)
	}
	root := doc.Content[0]
	if err := s.mapping(root, "a sink has name, topics, into and tables", s.field); err != nil {
		return nil, err
	}
	switch {
	case s.config.Name == "":
		return nil, s.fault(root, "name is missing: it names the position rows, and the consumer group that shows the lag")
	case len(s.config.Topics) == 0:
		return nil, s.fault(root, "topics is missing: write  topics: [shop.orders]")
	case s.into == sinkInto{}:
		return nil, s.fault(root, "into is missing: write  into:  with postgres: env:NAME, sqlite: FILE or parquet: FOLDER below it")
	case len(s.tables) == 0 && s.into.parquet == "":
		return nil, s.fault(root, "tables is missing: each has a name, an event, and a key or append: true")
	}
	if s.into.parquet != "" { // a batch is a file
		s.config.Batch, s.config.Wait = cmp.Or(s.config.Batch, parquetsink.Batch), cmp.Or(s.config.Wait, parquetsink.Wait)
	}
	if s.into.parquet != "" && len(s.tables) > 1 {
		return nil, s.fault(root, "a folder of Parquet files has a folder for each topic, and tables has %d: at most one, which says which event and columns", len(s.tables))
	}
	return s, nil
}

func (s *sinkFile) field(key, value *yaml.Node) error {
	c := &s.config
	switch key.Value {
	case "name":
		return s.text(key, value, &c.Name)
	case "topics":
		return s.words(key, value, &c.Topics)
	case "into":
		s.into.line = key.Line
		return s.target(key, value)
	case "start":
		if err := s.text(key, value, &s.start); err != nil {
			return err
		}
		if _, err := position.Parse(s.start, time.Now()); err != nil {
			return s.fault(value, "start: %w", err)
		}
		return nil
	case "batch":
		return s.count(key, value, &c.Batch)
	case "wait":
		return s.duration(key, value, &c.Wait)
	case "dedupe":
		return s.duration(key, value, &c.Dedupe)
	case "evolve":
		return s.boolean(key, value, &c.Evolve)
	case "attempts":
		return s.count(key, value, &c.Retry.Attempts)
	case "tables":
		if value.Kind != yaml.SequenceNode {
			return s.fault(value, "tables is a list: each begins with  - name: …")
		}
		for _, n := range value.Content {
			if err := s.table(n); err != nil {
				return err
			}
		}
		return nil
	default:
		return s.fault(key, "%s is not known: a sink has name, topics, into, tables, start, batch, wait, dedupe, evolve, attempts", key.Value)
	}
}

// password finds a password in a DSN, in its URL form or its key=value form.
var password = regexp.MustCompile(`(?i)^[a-z]+://[^/@]*:[^/@]+@|\bpassword\s*=`)

func (s *sinkFile) target(key, value *yaml.Node) error {
	given := 0
	err := s.mapping(value, "into is one of postgres, sqlite and parquet", func(key, value *yaml.Node) error {
		switch key.Value {
		case "postgres":
			given++
			if err := s.text(key, value, &s.into.dsn); err != nil {
				return err
			}
			if password.MatchString(s.into.dsn) { // it is not printed
				return s.fault(value, "postgres has a password in it: write env:NAME or file:PATH, a file that is shared holds no secret")
			}
			return nil
		case "schema":
			return s.text(key, value, &s.into.schema)
		case "timeout":
			return s.duration(key, value, &s.into.timeout)
		case "sqlite":
			given++
			return s.text(key, value, &s.into.sqlite)
		case "parquet":
			given++
			return s.text(key, value, &s.into.parquet)
		default:
			return s.fault(key, "%s is not known: into has one of postgres, sqlite and parquet, and with postgres a schema and a timeout", key.Value)
		}
	})
	switch {
	case err != nil:
		return err
	case given != 1:
		return s.fault(key, "into names %d targets: one of postgres, sqlite and parquet", given)
	case s.into.schema != "" && s.into.dsn == "":
		return s.fault(key, "schema belongs to postgres alone")
	case s.into.timeout != 0 && s.into.dsn == "":
		return s.fault(key, "timeout belongs to postgres alone")
	}
	return nil
}

func (s *sinkFile) table(n *yaml.Node) error {
	var t sink.Table
	err := s.mapping(n, "a table has a name, an event, and a key or append: true", func(key, value *yaml.Node) error {
		switch key.Value {
		case "name":
			return s.text(key, value, &t.Name)
		case "event":
			return s.text(key, value, &t.Event)
		case "key":
			return s.words(key, value, &t.Key)
		case "append":
			return s.boolean(key, value, &t.Append)
		case "dedupe":
			var how string
			if err := s.text(key, value, &how); err != nil || how != "none" {
				return cmpError(err, s.fault(value, "dedupe of a table is none, or left out: a repeated event_id then changes nothing"))
			}
			t.NoDedupe = true
			return nil
		case "columns":
			return s.columns(value, &t)
		default:
			return s.fault(key, "%s is not known: a table has name, event, key, append, dedupe and columns", key.Value)
		}
	})
	switch {
	case err != nil:
		return err
	case t.Name == "" || t.Event == "":
		return s.fault(n, "a table has a name, and an event: the full name of the type whose events become rows")
	case strings.HasSuffix(t.Name, sink.RebuildSuffix) || strings.HasSuffix(t.Name, oldSuffix):
		return s.fault(n, "table %s: names that end in %s or %s are those of rebuilds", t.Name, sink.RebuildSuffix, oldSuffix)
	case len(t.Key) == 0 && !t.Append:
		return s.fault(n, "table %s has no key: write the columns of its primary key, or append: true for one row of each event", t.Name)
	case len(t.Key) > 0 && t.Append:
		return s.fault(n, "table %s has a key and append: true: one row of each key, or one of each event", t.Name)
	case t.NoDedupe && !t.Append:
		return s.fault(n, "table %s: dedupe: none is for append: true, a key keeps repeats out by itself", t.Name)
	}
	if i := slices.IndexFunc(s.tables, func(o sink.Table) bool { return o.Name == t.Name }); i >= 0 {
		return s.fault(n, "table %s is described twice", t.Name)
	}
	s.tables = append(s.tables, t)
	return nil
}

// columns are names, or name: path.to.the.field.
func (s *sinkFile) columns(n *yaml.Node, t *sink.Table) error {
	const shape = "columns is a list of fields, or of  name: path.to.the.field"
	if n.Kind != yaml.SequenceNode {
		return s.fault(n, shape)
	}
	for _, c := range n.Content {
		switch {
		case c.Kind == yaml.ScalarNode && c.Value != "":
			t.Columns = append(t.Columns, sink.Column{Name: c.Value})
		case c.Kind == yaml.MappingNode && len(c.Content) == 2 && c.Content[1].Kind == yaml.ScalarNode:
			t.Columns = append(t.Columns, sink.Column{Name: c.Content[0].Value, From: c.Content[1].Value})
		default:
			return s.fault(c, shape)
		}
	}
	return nil
}

// words is one value, or a list of them.
func (s *sinkFile) words(key, value *yaml.Node, to *[]string) error {
	switch {
	case value.Kind == yaml.ScalarNode && value.Value != "":
		*to = []string{value.Value}
		return nil
	case value.Kind != yaml.SequenceNode || len(value.Content) == 0:
		return s.fault(value, "%s is a value, or a list of values", key.Value)
	}
	*to = nil
	for _, item := range value.Content {
		if item.Kind != yaml.ScalarNode || item.Value == "" {
			return s.fault(item, "%s is a value, or a list of values", key.Value)
		}
		*to = append(*to, item.Value)
	}
	return nil
}

func (s *sinkFile) count(key, value *yaml.Node, to *int) error {
	n, err := strconv.Atoi(value.Value)
	if err != nil || value.Kind != yaml.ScalarNode || n < 1 {
		return s.fault(value, "%s is a number from 1", key.Value)
	}
	*to = n
	return nil
}

func (s *sinkFile) duration(key, value *yaml.Node, to *time.Duration) error {
	d, err := position.ParseDuration(value.Value)
	if err != nil || value.Kind != yaml.ScalarNode || d <= 0 {
		return s.fault(value, "%s is a duration like 50ms, 24h or 3d", key.Value)
	}
	*to = d
	return nil
}

func cmpError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// said is where the target is said: in the file, or by a flag.
func (s *sinkFile) said() string {
	if s.into.line == 0 {
		return "--postgres"
	}
	return fmt.Sprintf("%s:%d", s.path, s.into.line)
}

// secretDSN is the DSN itself.
func (s *sinkFile) secretDSN(getenv func(string) string) (secret.String, error) {
	from, name, ok := reference(s.into.dsn)
	if !ok {
		return secret.New(s.into.dsn), nil
	}
	if from == "env" {
		dsn := getenv(name)
		if dsn == "" {
			return secret.String{}, usage(fmt.Errorf("%s: the variable %s, which says where PostgreSQL is, is not set", s.said(), name))
		}
		return secret.New(dsn), nil
	}
	path := beside(s.path, name, getenv)
	if err := private(path); err != nil {
		return secret.String{}, usage(fmt.Errorf("%s: %w", s.said(), err))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return secret.String{}, usage(fmt.Errorf("%s: %w", s.said(), err))
	}
	return secret.New(strings.TrimSpace(string(text))), nil
}

// local is a path of the file as seen from the file's folder.
func (s *sinkFile) local(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(s.path), path)
}
