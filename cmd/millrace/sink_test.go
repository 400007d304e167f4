package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/sink/sqlitesink"
)

const ordersSink = `name: analytics
topics: [shop.orders]
into:
  sqlite: data/analytics.db
tables:
  - name: orders
    event: shop.OrderPlaced
    key: order_id
`

// placed publishes events, each with a sum that is its place among them.
func (w *world) placed(t *testing.T, ids ...string) {
	t.Helper()
	var lines strings.Builder
	for i, id := range ids {
		fmt.Fprintf(&lines, `{"order_id":%q,"cents":%d}`+"\n", id, i)
	}
	if r := w.run(t, lines.String(), "produce", "shop.orders", "--key", "value.order_id"); r.code != codeDone {
		t.Fatal(r.err)
	}
}

// sinkOnce runs the sink of sink.yaml until nothing is left to write.
func (w *world) sinkOnce(t *testing.T) {
	t.Helper()
	w.write(t, "sink.yaml", ordersSink)
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	log := newBuffer()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, w.app(strings.NewReader(""), newBuffer(), log), []string{"sink", "-f", "sink.yaml"})
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case code := <-ended:
			t.Fatalf("the sink ended with %d\n%s", code, log)
		case <-tick.C:
		}
		var at struct{ Partitions []sinkRow }
		r := w.run(t, "", "sink", "describe", "-f", "sink.yaml", "-o", "json")
		if r.code != codeDone || json.Unmarshal([]byte(r.out), &at) != nil {
			continue // it has not begun
		}
		left := int64(0)
		for _, p := range at.Partitions {
			left += *p.Lag
		}
		if len(at.Partitions) == 3 && left == 0 {
			break
		}
	}
	stop()
	if code := <-ended; code != codeDone {
		t.Fatalf("the sink exits %d when it is told to stop\n%s", code, log)
	}
}

// table are the orders and their sums, by order.
func (w *world) table(t *testing.T, name string) string {
	t.Helper()
	db, err := sqlitesink.Open(filepath.Join(w.dir, "data", "analytics.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var all sql.NullString
	if err := db.QueryRowContext(t.Context(), "SELECT group_concat(order_id || '=' || cents, ' ') FROM (SELECT * FROM "+name+" ORDER BY order_id)").Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all.String
}

func TestASinkWritesWhatItsFileSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.placed(t, "a", "b", "c", "b")

	w.sinkOnce(t)
	if got, want := w.table(t, "orders"), "a=0 b=3 c=2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.placed(t, "d")
	w.sinkOnce(t) // from where it stood
	if got, want := w.table(t, "orders"), "a=0 b=3 c=2 d=0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r := w.want(t, codeDone, "sink", "describe", "-f", "sink.yaml")
	has(t, "stdout", r.out, "TOPIC", "shop.orders", "LAG")
}

// Its group only reports: offsets are refused with the command that moves the sink, and that command moves it.
func TestASinkIsRewoundInItsDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.placed(t, "a", "b", "c")
	w.sinkOnce(t)
	for _, line := range []string{"plan analytics --at start", "apply analytics --at start --yes", "export analytics"} {
		r := w.want(t, codeRefused, strings.Fields("groups offsets "+line)...)
		has(t, line, r.err, "by sink analytics", "millrace sink rewind plan -f sink.yaml --at -1h", "millrace sink rewind plan --name analytics")
	}
	db, err := sqlitesink.Open(filepath.Join(w.dir, "data", "analytics.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "DELETE FROM orders"); err != nil {
		t.Fatal(err)
	}
	r := w.want(t, codePending, "sink", "rewind", "plan", "-f", "sink.yaml", "--at", "start")
	has(t, "stdout", r.out, "analytics on cluster", "shop.orders", "left alone")
	r = w.want(t, codeDone, "sink", "rewind", "apply", "-f", "sink.yaml", "--at", "start", "--yes")
	has(t, "stderr", r.err, "of sink analytics changed", "millrace sink rewind undo -f sink.yaml")
	r = w.want(t, codeDone, "sink", "rewind", "undo", "-f", "sink.yaml", "--yes")
	has(t, "stderr", r.err, "of sink analytics changed")
	w.sinkOnce(t)
	if got := w.table(t, "orders"); got != "" {
		t.Errorf("after an undo it wrote %s", got)
	}
	w.want(t, codeDone, "sink", "rewind", "apply", "--name", "analytics", "--sqlite", "data/analytics.db", "--at", "start", "--topic", "shop.orders", "--yes")
	w.sinkOnce(t)
	if got, want := w.table(t, "orders"), "a=0 b=1 c=2"; got != want {
		t.Errorf("after a rewind: got %s, want %s", got, want)
	}
}

func TestASinkIsBuiltAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.placed(t, "a", "b", "c")
	w.sinkOnce(t)
	db, err := sqlitesink.Open(filepath.Join(w.dir, "data", "analytics.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "UPDATE orders SET cents = 999"); err != nil {
		t.Fatal(err)
	}
	w.placed(t, "d") // the live sink has not seen it
	r := w.want(t, codeDone, "sink", "rebuild", "-f", "sink.yaml", "--yes")
	has(t, "stderr", r.err, "1 table of sink analytics built anew", "__old")
	if got, want := w.table(t, "orders"), "a=0 b=1 c=2 d=0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := w.table(t, "orders__old"), "a=999 b=999 c=999"; got != want {
		t.Errorf("what was there: got %s, want %s", got, want)
	}
	w.placed(t, "e")
	w.sinkOnce(t) // goes on where the rebuild stands
	if got, want := w.table(t, "orders"), "a=0 b=1 c=2 d=0 e=0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A rebuild that lost its table begins anew when it is told to, and nothing live is lost before.
func TestARebuildWithoutItsTableIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.placed(t, "a", "b", "c")
	w.sinkOnce(t)
	db, err := sqlitesink.Open(filepath.Join(w.dir, "data", "analytics.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	// What an interrupted rebuild leaves, without its table.
	_, err = db.ExecContext(t.Context(), `INSERT INTO millrace_sink_offsets SELECT sink || '__v2', topic, part, topic_id, next_offset, epoch, watermark, owner, updated FROM millrace_sink_offsets`)
	if err != nil {
		t.Fatal(err)
	}
	r := w.want(t, codeFailed, "sink", "rebuild", "-f", "sink.yaml", "--yes")
	has(t, "stderr", r.err, "a table of the rebuild is not there", "orders__v2", "→", "--afresh")
	if got, want := w.table(t, "orders"), "a=0 b=1 c=2"; got != want {
		t.Errorf("after the refusal: got %s, want %s", got, want)
	}
	w.want(t, codeDone, "sink", "rebuild", "-f", "sink.yaml", "--afresh", "--yes")
	if got, want := w.table(t, "orders"), "a=0 b=1 c=2"; got != want {
		t.Errorf("built anew: got %s, want %s", got, want)
	}
}

// While one rebuild has a member another is refused, and leaves no position behind.
func TestASecondRebuildIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.placed(t, "a", "b", "c")
	w.sinkOnce(t)
	member, err := w.cluster.Client(kgo.ConsumerGroup("analytics__v2"), kgo.ConsumeTopics("shop.orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	member.PollFetches(ctx) // it has joined
	r := w.want(t, codeRefused, "sink", "rebuild", "-f", "sink.yaml", "--yes")
	has(t, "stderr", r.err, "another rebuild runs", "1 member", "groups describe analytics__v2")
	db, err := sqlitesink.Open(filepath.Join(w.dir, "data", "analytics.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if at, err := sqlitesink.New(db, sqlitesink.Config{}).Admin().Positions(ctx, "analytics__v2"); err != nil || len(at) > 0 {
		t.Errorf("positions of the rebuild that was refused: %v, %v", at, err)
	}
}

func TestSinkCommandsSayWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.write(t, "sink.yaml", ordersSink)
	w.write(t, "pg.yaml", strings.Replace(ordersSink, "sqlite: data/analytics.db", "postgres: env:DSN", 1))
	tests := []struct {
		line string
		code int
		says []string
	}{
		{"sink describe", codeUsage, []string{"name the sink", "millrace sink describe -f sink.yaml"}},
		{"sink describe -f sink.yaml --name x", codeUsage, []string{"name the sink once"}},
		{"sink describe --sqlite x.db", codeUsage, []string{"need --name"}},
		{"sink describe --name x --postgres postgres://u:hunter2@h/d", codeUsage, []string{"env:NAME"}},
		{"sink describe -f missing.yaml", codeUsage, []string{"there is no file", "millrace sink --help"}},
		{"sink -f missing.yaml", codeUsage, []string{"there is no file"}},
		{"sink describe -f sink.yaml", codeFailed, []string{"has not run yet", "millrace sink -f sink.yaml"}},
		{"sink rewind plan -f sink.yaml", codeFailed, []string{"has not run yet"}},
		{"sink describe -f pg.yaml", codeUsage, []string{"pg.yaml:3: the variable DSN"}},
		{"sink rebuild", codeUsage, []string{"name the sink's file"}},
	}
	for _, tt := range tests {
		r := w.want(t, tt.code, strings.Fields(tt.line)...)
		has(t, tt.line, r.err, tt.says...)
		if strings.Contains(r.err, "hunter2") {
			t.Errorf("%s: the password is printed", tt.line)
		}
	}
	w.env["DSN"] = "postgres://u:hunter2@127.0.0.1:1/d"
	began := time.Now()
	r := w.want(t, codeFailed, "sink", "-f", "pg.yaml")
	has(t, "stderr", r.err, "reach PostgreSQL at 127.0.0.1:1", "→")
	if bytes.Contains([]byte(r.err), []byte("hunter2")) || time.Since(began) > 6*time.Second {
		t.Errorf("after %s: %s", time.Since(began), r.err)
	}
}
