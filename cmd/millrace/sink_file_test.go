package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const sinkYAML = `name: analytics
topics: [shop.orders, shop.payments]
into:
  sqlite: data/analytics.db
start: "-1h"
batch: 1000
wait: 20ms
dedupe: 2d
evolve: true
attempts: 3
tables:
  - name: orders
    event: shop.OrderPlaced
    key: order_id
    columns: [order_id, cents, {country: customer.country}]
  - name: order_log
    event: shop.OrderPlaced
    append: true
    dedupe: none
`

func TestASinksFile(t *testing.T) {
	t.Parallel()
	s, err := parseSink("sink.yaml", []byte(sinkYAML))
	if err != nil {
		t.Fatal(err)
	}
	c := s.config
	if c.Name != "analytics" || !slices.Equal(c.Topics, []string{"shop.orders", "shop.payments"}) || c.Batch != 1000 || c.Wait != 20*time.Millisecond ||
		c.Dedupe != 48*time.Hour || !c.Evolve || c.Retry.Attempts != 3 || s.start != "-1h" || s.into.sqlite != "data/analytics.db" {
		t.Errorf("got %+v, into %+v, start %q", c, s.into, s.start)
	}
	orders, log := s.tables[0], s.tables[1]
	if orders.Name != "orders" || orders.Event != "shop.OrderPlaced" || !slices.Equal(orders.Key, []string{"order_id"}) || orders.Columns[2].Name != "country" || orders.Columns[2].From != "customer.country" {
		t.Errorf("got %+v", orders)
	}
	if !log.Append || !log.NoDedupe || log.Columns != nil {
		t.Errorf("got %+v", log)
	}
}

// A batch is a file there: it is large where the file says nothing.
func TestASinksFileForParquet(t *testing.T) {
	t.Parallel()
	s, err := parseSink("sink.yaml", []byte("name: lake\ntopics: shop.orders\ninto:\n  parquet: data/lake\nwait: 5s\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.config.Batch != 1<<16 || s.config.Wait != 5*time.Second {
		t.Errorf("got batches of %d after %s, want 65,536 and 5 s", s.config.Batch, s.config.Wait)
	}
	two := strings.Replace(sinkYAML, "sqlite: data/analytics.db", "parquet: data/lake", 1)
	if _, err := parseSink("sink.yaml", []byte(two)); err == nil || !strings.Contains(err.Error(), "tables has 2") {
		t.Errorf("two tables in a folder: %v", err)
	}
}

func TestASinksFileForPostgres(t *testing.T) {
	t.Parallel()
	text := strings.Replace(sinkYAML, "sqlite: data/analytics.db", "postgres: env:DSN\n  schema: shop\n  timeout: 5m", 1)
	s, err := parseSink("sink.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s.into.dsn != "env:DSN" || s.into.schema != "shop" || s.into.timeout != 5*time.Minute {
		t.Errorf("got %+v", s.into)
	}
}

// Each fault is told with its line and what is allowed.
func TestASinksFileWithFaults(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, from, to, says string }{
		{"empty", sinkYAML, "", "the file is empty"},
		{"not yaml", "name: analytics", "name: [", "sink.yaml: "},
		{"a word", "batch: 1000", "batches: 1000", "sink.yaml:6: batches is not known"},
		{"twice", "batch: 1000", "batch: 1000\nbatch: 2000", "sink.yaml:7: batch is said twice"},
		{"no name", "name: analytics\n", "", "name is missing"},
		{"no topics", "topics: [shop.orders, shop.payments]\n", "", "topics is missing"},
		{"no target", "into:\n  sqlite: data/analytics.db\n", "", "into is missing"},
		{"two targets", "sqlite: data/analytics.db", "sqlite: data/analytics.db\n  parquet: lake", "sink.yaml:3: into names 2 targets"},
		{"an unknown target", "sqlite: data/analytics.db", "mysql: x", "sink.yaml:4: mysql is not known"},
		{"a password", "sqlite: data/analytics.db", "postgres: postgres://u:hunter2@db/x", "sink.yaml:4: postgres has a password in it"},
		{"a password as a key", "sqlite: data/analytics.db", "postgres: host=db password=hunter2", "sink.yaml:4: postgres has a password in it"},
		{"a schema of SQLite", "sqlite: data/analytics.db", "sqlite: data/analytics.db\n  schema: x", "schema belongs to postgres"},
		{"a timeout of SQLite", "sqlite: data/analytics.db", "sqlite: data/analytics.db\n  timeout: 5m", "timeout belongs to postgres"},
		{"a timeout", "sqlite: data/analytics.db", "postgres: env:DSN\n  timeout: long", "sink.yaml:5: timeout is a duration"},
		{"a name of a rebuild", "name: order_log", "name: orders__v2", "names that end in __v2 or __old"},
		{"a time", `start: "-1h"`, "start: yesterday-ish", "sink.yaml:5: start: "},
		{"a duration", "wait: 20ms", "wait: 20", "sink.yaml:7: wait is a duration"},
		{"a count", "batch: 1000", "batch: many", "sink.yaml:6: batch is a number from 1"},
		{"a flag", "evolve: true", "evolve: perhaps", "sink.yaml:9: evolve is true or false"},
		{"no table", sinkYAML[strings.Index(sinkYAML, "tables:"):], "", "tables is missing"},
		{"tables are a list", "tables:", "tables: orders\nother:", "tables is a list"},
		{"a table without a key", "    key: order_id\n", "", "table orders has no key"},
		{"a table with both", "    key: order_id\n", "    key: order_id\n    append: true\n", "table orders has a key and append"},
		{"a table without an event", "    event: shop.OrderPlaced\n    key", "    key", "a table has a name, and an event"},
		{"a table twice", "name: order_log", "name: orders", "table orders is described twice"},
		{"dedupe of a table", "dedupe: none", "dedupe: 1d", "dedupe of a table is none"},
		{"a column", "{country: customer.country}", "[x]", "columns is a list"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(sinkYAML, tt.from, tt.to, 1)
			_, err := parseSink("sink.yaml", []byte(text))
			if err == nil {
				t.Fatalf("taken:\n%s", text)
			}
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %q, want one that says %q, and no secret", err, tt.says)
			}
		})
	}
}
