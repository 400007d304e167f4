package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

func TestTabCompletesLiveNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.topic(t, "shop.payments")
	w.topic(t, "notes")
	commit := kadm.Offsets{}
	commit.AddOffset("shop.orders", 0, 0, -1)
	if err := w.admin.CommitAllOffsets(t.Context(), "shipping", commit); err != nil {
		t.Fatal(err)
	}
	w.env["XDG_CONFIG_HOME"] = t.TempDir()
	w.user(t, "contexts:\n  staging:\n    brokers: "+w.env["MILLRACE_BROKERS"]+"\n  prod:\n    brokers: "+w.env["MILLRACE_BROKERS"]+"\n    production: true\n")
	for typed, want := range map[string]string{
		"topics describe |":                           "notes shop.orders shop.payments",
		"topics describe shop.|":                      "shop.orders shop.payments",
		"topics describe shop.orders |":               "notes shop.payments",
		"topics import |":                             "notes shop.orders shop.payments",
		"tail sho|":                                   "shop.orders shop.payments",
		"produce n|":                                  "notes",
		"groups describe |":                           "shipping",
		"groups lag s|":                               "shipping",
		"groups offsets plan shipping --topic n|":     "notes",
		"groups offsets plan audit --like |":          "shipping",
		"schemas get |":                               "shop.orders-value",
		"schemas register x.avsc --subject shop|":     "shop.orders-value",
		"context use |":                               "prod staging",
		"context show s|":                             "staging",
		"topics ls -c |":                              "prod staging",
		"topics ls --context s|":                      "staging",
		"topics describe -c prod n|":                  "notes",
		"topics ls -o j|":                             "table json jsonl raw", // the shell picks
		"topics describe -B 127.0.0.1:1 |":            "",
		"schemas get --registry http://127.0.0.1:1 |": "",
		"topics describe -c nowhere |":                "",
	} {
		line, _ := strings.CutSuffix(typed, "|")
		args := append([]string{"__complete"}, strings.Split(line, " ")...)
		r := w.run(t, "", args...)
		got, directive, _ := strings.Cut(r.out, ":")
		if strings.Join(strings.Fields(got), " ") != want || r.code != codeDone || !strings.HasPrefix(directive, "4") {
			t.Errorf("%s completes\n%s:%s, want %s", typed, got, directive, want)
		}
		if strings.Contains(r.err, "→") || strings.Contains(r.err, "reach") {
			t.Errorf("%s is not silent:\n%s", typed, r.err)
		}
	}
}

// Tab on a cluster that does not answer gives the shell back after two seconds.
func TestTabDoesNotHang(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	w := &world{dir: t.TempDir(), env: map[string]string{"MILLRACE_BROKERS": silent.Addr().String(), "MILLRACE_REGISTRY": "http://" + silent.Addr().String()}}
	for _, line := range []string{"topics describe", "groups describe", "schemas get"} {
		began := time.Now()
		r := w.run(t, "", append(append([]string{"__complete"}, strings.Fields(line)...), "")...)
		if took := time.Since(began); took > completeTimeout+time.Second {
			t.Errorf("%s took %s", line, took)
		}
		if r.code != codeDone || r.out != ":4\n" {
			t.Errorf("%s: exits %d, %q", line, r.code, r.out)
		}
	}
}
