package soak_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/internal/devbroker/soak"
)

// childDir is the variable that makes the test binary a broker.
const childDir = "DEVBROKER_SOAK_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		m.Run()
		return
	}
	cfg := devbroker.Config{Dir: dir, Addr: os.Args[1]}
	if err := devbroker.Child(context.Background(), cfg, os.Stdin, os.NewFile(soak.StatusFD, "status")); err != nil {
		panic(err)
	}
}

// A broker that is killed again and again loses, repeats, tears and shows nothing that it should not. make soak-dev is
// the long version.
func TestKills(t *testing.T) {
	t.Parallel()
	for _, transactions := range []bool{false, true} {
		name := map[bool]string{false: "idempotent", true: "transactions"}[transactions]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			dir := t.TempDir()
			report, err := soak.Run(ctx, soak.Config{
				Kills: 15, Every: 200 * time.Millisecond, Transactions: transactions,
				Command: func(ctx context.Context, addr string) *exec.Cmd {
					if addr == "" {
						addr = "127.0.0.1:0"
					}
					cmd := exec.CommandContext(ctx, os.Args[0], addr)
					cmd.Env = append(os.Environ(), childDir+"="+dir)
					cmd.Stderr = os.Stderr
					return cmd
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			said, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s", said)
			if report.Violations() != 0 || report.Acked < 100 {
				t.Errorf("got %s, want no violation and at least 100 acked", said)
			}
		})
	}
}
