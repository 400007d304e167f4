//go:build unix

package parquetsink

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// writerEnv has TestKilled write to a directory until it is killed, instead of testing.
const writerEnv = "MILLRACE_TEST_PARQUET_WRITER"

// writeForever writes batches of all sizes, and says where it stands after each.
func writeForever(l *lake) {
	w := l.open()
	from := l.claim(w, 0)
	for {
		n := 1 + rand.Int64N(300)
		from = l.mustWrite(w, from, from.Next+n, l.numbered(from.Next, n)...)
		fmt.Println(from.Next)
	}
}

// A process that is killed in the midst of its work twenty times leaves every row once: no file that it had told of is
// lost, and none is damaged.
func TestKilled(t *testing.T) {
	l := newLake(t)
	if dir := os.Getenv(writerEnv); dir != "" {
		l.dir = dir
		writeForever(l)
	}
	t.Parallel()
	var acknowledged int64
	for range 20 {
		acknowledged = max(acknowledged, writeAndKill(t, l.dir, 1+rand.IntN(10)))
	}
	next := l.claim(l.open(), 0).Next
	rows := l.read()
	if next < acknowledged || int64(len(rows)) != next {
		t.Errorf("%d rows, the position is %d, want at least %d", len(rows), next, acknowledged)
	}
	for i, row := range rows { // files in the order of their names are rows in the order of their offsets
		if row != fmt.Sprintf("n=%d old=x", i) {
			t.Fatalf("row %d is %s", i, row)
		}
	}
}

// writeAndKill returns the last position that the process has told of before it was killed.
func writeAndKill(t *testing.T, dir string, batches int) (last int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
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
		if n == batches {
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
