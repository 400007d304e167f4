//go:build unix

package sqlitesink

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sink"
)

// writerEnv has TestKilled write to a file until it is killed, instead of testing.
const writerEnv = "MILLRACE_TEST_SQLITE_WRITER"

var (
	killID    = cursor.ID{Reader: "kill", Topic: "plain", TopicID: [16]byte{1}}
	killTable = &sink.Table{Name: "offsets", Event: "x", Append: true, NoDedupe: true}
)

// killRows are rows of one column, the offset.
func killRows() (*schemas.Rows, error) {
	at, err := schemas.Attribute("$offset")
	if err != nil {
		return nil, err
	}
	return schemas.Memory().NewRows(at)
}

// writeForever writes rows and a fold behind the position, in batches of all sizes, and says where it stands after
// each commit.
func writeForever(path string) error {
	ctx := context.Background()
	pool, err := Open(path)
	if err != nil {
		return err
	}
	d := newDB(pool, Config{})
	rows, err := killRows()
	if err != nil {
		return err
	}
	if err := d.Prepare(ctx, sink.Plan{Sink: "kill", Dedupe: true, Folds: []string{"counts"}, Tables: []sink.Layout{{Table: killTable, Columns: rows.Fresh()}}}); err != nil {
		return err
	}
	got, err := d.Claim(ctx, "writer", []cursor.ID{killID}, map[cursor.ID]int64{killID: 0})
	if err != nil {
		return err
	}
	from := sink.Place{ID: killID, Lease: got[killID].Lease, Next: got[killID].Position}
	for {
		to := from
		to.Next += 1 + rand.Int64N(500)
		rows.Reset()
		for offset := from.Next; offset < to.Next; offset++ {
			if err := rows.Append(ctx, &event.Event{Meta: event.Meta{Offset: offset}, Value: []byte{}}); err != nil {
				return err
			}
		}
		err := d.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if err := d.Advance(ctx, tx, from, to); err != nil {
				return err
			}
			key := []sink.FoldKey{{Key: "n"}}
			states, err := d.Load(ctx, tx, "counts", key)
			if err != nil {
				return err
			}
			n, _ := strconv.ParseInt(string(states[0]), 10, 64)
			if err := d.Store(ctx, tx, "counts", key, [][]byte{strconv.AppendInt(nil, n+to.Next-from.Next, 10)}); err != nil {
				return err
			}
			_, err = d.Write(ctx, tx, killTable, rows, nil)
			return err
		})
		if err != nil {
			return err
		}
		from = to
		fmt.Println(to.Next)
	}
}

// A process that is killed in the midst of its work twenty times leaves every row once, the fold counting them, and
// the position behind them: no commit that it had an answer to is lost.
func TestKilled(t *testing.T) {
	if path := os.Getenv(writerEnv); path != "" {
		t.Fatal(writeForever(path))
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sink.db")
	var acknowledged int64
	for range 20 {
		acknowledged = max(acknowledged, writeAndKill(t, path, 1+rand.IntN(30)))
	}
	pool := open(t, path)
	d := newDB(pool, Config{})
	positions, err := d.Positions(t.Context(), "kill")
	if err != nil || len(positions) != 1 {
		t.Fatalf("positions %v, %v", positions, err)
	}
	next := positions[0].Next
	if next < acknowledged || positions[0].Epoch != 20 {
		t.Errorf("the position is %d of epoch %d, want at least %d and 20", next, positions[0].Epoch, acknowledged)
	}
	var n, distinct, highest int64
	if err := pool.QueryRowContext(t.Context(), `SELECT count(*), count(DISTINCT "offset"), max("offset") FROM offsets`).Scan(&n, &distinct, &highest); err != nil {
		t.Fatal(err)
	}
	if n != next || distinct != next || highest != next-1 {
		t.Errorf("%d rows, %d of them different, the highest %d; the position is %d", n, distinct, highest, next)
	}
	if got := dump(t, pool, "counts", []string{"state"})[0][0]; got != strconv.FormatInt(next, 10) {
		t.Errorf("the fold has counted %s of %d", got, next)
	}
}

// writeAndKill returns the last position that the process has told of before it was killed.
func writeAndKill(t *testing.T, path string, commits int) (last int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if last, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Errorf("the writer says %q", lines.Text())
		}
		if n == commits {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the writer ended by itself")
	}
	return last
}
