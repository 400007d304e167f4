package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "bare")
	w.write(t, "topics/orders.yaml", ordersYAML)
	w.write(t, "broken/orders.yaml", ordersYAML+"colour: blue\n")
	w.write(t, "schemas/order_placed.avsc", ordersAVSC)
	w.write(t, "bad.jsonl", `{"order_id":"o1","cents":1}`+"\n"+`{"order_id":"o2","cents":2,"colour":"blue"}`+"\n"+`{"order_id":"o3","cents":3}`+"\n")
	w.write(t, "worse.jsonl", `{"order":1}`+"\n")
	steps := []struct {
		args string
		code int
		says []string // on stderr
	}{
		{"", codeDone, nil},
		{"version", codeDone, nil},
		{"--bogus", codeUsage, []string{"unknown flag", "millrace --help"}},
		{"tial", codeUsage, []string{`no command "tial"`, "did you mean:  millrace tail"}},
		{"topics pln", codeUsage, []string{`no command "pln"`, "millrace topics plan"}},
		{"tail", codeUsage, []string{"name a topic", "millrace tail TOPIC"}},
		{"tail t -o xml", codeUsage, []string{"table, json, jsonl, raw"}},
		{"tail t --offset 5:2", codeUsage, []string{"the range is empty"}},
		{"tail t --from yesteday", codeUsage, []string{"yesterday 09:00"}},
		{"tail t --from start --offset 5", codeUsage, []string{"use one way"}},
		{"tail t -n 5 --key k", codeUsage, []string{"--from start"}},
		{"tail t --tz Mars", codeUsage, []string{"Europe/Rome"}},
		{"tail t --header x", codeUsage, []string{"name=value"}},
		{"tail no.such -n 1", codeFailed, []string{"no.such", "millrace topics ls"}},
		{"topics describe no.such", codeFailed, []string{"no.such", "millrace topics ls"}},
		{"groups describe nobody", codeFailed, []string{"nobody", "millrace groups ls"}},
		{"schemas get no.such-value", codeFailed, []string{"millrace schemas ls"}},
		{"topics plan nowhere", codeUsage, []string{"no folder nowhere"}},
		{"topics plan broken", codeFailed, []string{"orders.yaml:9", "colour"}},
		{"topics plan", codePending, []string{"1 change", "millrace topics apply topics"}},
		{"topics apply", codeRefused, []string{"no terminal", "--yes"}},
		{"topics apply --yes --read-only", codeRefused, []string{"read-only"}},
		{"topics apply --yes", codeDone, []string{"1 change made"}},
		{"topics plan", codeDone, []string{"nothing to change"}},
		{"schemas register schemas --dry-run", codePending, []string{"1 schema to register"}},
		{"schemas register schemas --read-only", codeRefused, []string{"--read-only"}},
		{"schemas register schemas", codeDone, nil},
		{"schemas register schemas --dry-run", codeDone, nil},
		{"produce shop.orders --from nowhere.jsonl", codeUsage, []string{"nowhere.jsonl"}},
		{"produce shop.orders --from bad.jsonl", codePartial, []string{"line 2: ", "colour", "published 2 events", "1 failed"}},
		{"produce shop.orders --from worse.jsonl", codeFailed, []string{"line 1: ", "nothing was published"}},
		{"produce no.such --from bad.jsonl", codeFailed, []string{"no topic no.such", "millrace topics apply"}},
		{"produce bare --from bad.jsonl", codeFailed, []string{"bare-value", "millrace schemas register", "--format json"}},
		{"produce bare --from bad.jsonl --format json --read-only", codeRefused, []string{"read-only"}},
		{"produce shop.orders --key a --key-field b", codeUsage, []string{"use one way"}},
		{"completion bash", codeDone, nil},
	}
	for _, s := range steps { // in order: later ones stand on what earlier ones made
		r := w.run(t, "", strings.Fields(s.args)...)
		if r.code != s.code {
			t.Errorf("millrace %s exits %d, want %d\nstdout: %s\nstderr: %s", s.args, r.code, s.code, r.out, r.err)
		}
		has(t, "millrace "+s.args, r.err, s.says...)
		if r.code != codeDone && r.code != codePending && !strings.Contains(r.err, "→") {
			t.Errorf("millrace %s fails and does not say what to type next:\n%s", s.args, r.err)
		}
	}
}

// Peers take up to half a minute to say that nobody is there.
func TestDeadBrokerIsReportedInFiveSeconds(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	for _, brokers := range []string{nobody, silent.Addr().String(), nobody + "," + silent.Addr().String()} {
		t.Run(brokers, func(t *testing.T) {
			t.Parallel()
			w := &world{dir: t.TempDir()}
			began := time.Now()
			r := w.run(t, "", "topics", "ls", "-B", brokers)
			if took := time.Since(began); r.code != codeFailed || took > 5500*time.Millisecond {
				t.Errorf("exits %d after %s, want %d within 5 s", r.code, took, codeFailed)
			}
			has(t, "stderr", r.err, strings.Split(brokers, ",")[0], "millrace dev", "-B host:port")
			if r.out != "" {
				t.Errorf("stdout is for data: %q", r.out)
			}
		})
	}
}

func TestBrokersAloneWorkWithoutAnyFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	alone := &world{dir: t.TempDir()} // no environment, no home
	r := alone.want(t, codeDone, "topics", "ls", "-B", w.env["MILLRACE_BROKERS"])
	has(t, "stdout", r.out, "t ", "PARTITIONS")
}

func TestFlagsWinOverEnvironmentOverProjectOverUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	alive := w.env["MILLRACE_BROKERS"]
	const dead = "127.0.0.1:1"
	home := t.TempDir()
	set := func(flag, env, project, user string) []string {
		w.env = map[string]string{"XDG_CONFIG_HOME": home}
		if env != "" {
			w.env["MILLRACE_BROKERS"] = env
		}
		for file, v := range map[string]string{filepath.Join(w.dir, "..", "x", ".millrace.yaml"): project, filepath.Join(home, userFile): user} {
			_ = os.MkdirAll(filepath.Dir(file), 0o750)
			text := ""
			if v != "" {
				text = "brokers: [" + v + "]\n"
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"topics", "ls"}
		if flag != "" {
			args = append(args, "--brokers", flag)
		}
		return args
	}
	x := filepath.Join(w.dir, "..", "x")
	w.dir = filepath.Join(x, "deep", "er") // the project file is found on the way up
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	w.dir = filepath.Clean(w.dir)
	for name, at := range map[string][4]string{
		"flag":        {alive, dead, dead, dead},
		"environment": {"", alive, dead, dead},
		"project":     {"", "", alive, dead},
		"user":        {"", "", "", alive},
	} {
		dir := w.dir
		w.dir = x
		args := set(at[0], at[1], at[2], at[3])
		w.dir = dir
		if r := w.run(t, "", args...); r.code != codeDone {
			t.Errorf("%s does not win: exit %d\n%s", name, r.code, r.err)
		}
	}
	w.want(t, codeFailed, set(dead, alive, alive, alive)...)
}

func TestProjectFileIsNotLookedForAboveTheRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, ".millrace.yaml", "nonsense: true\n")
	w.write(t, "repo/.git/HEAD", "")
	w.write(t, "repo/sub/x", "")
	w.dir = filepath.Join(w.dir, "repo", "sub")
	w.want(t, codeDone, "topics", "ls")
}

func TestFaultyFilesNameTheLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for text, says := range map[string]string{
		"client-id: x\nbrokrs: y\n":        ".millrace.yaml:2: there is no setting \"brokrs\"",
		"brokers: {a: b}\n":                ".millrace.yaml:1: brokers is a value",
		"- a\n":                            ".millrace.yaml:1: settings are written like",
		"read-only: perhaps\n":             ".millrace.yaml:1: read-only is true or false",
		"brokers: [a:1\n":                  ".millrace.yaml: yaml",
		strings.Repeat("# long\n", 10_000): "larger than",
	} {
		w.write(t, ".millrace.yaml", text)
		r := w.want(t, codeUsage, "topics", "ls")
		has(t, "stderr", r.err, says)
		w.want(t, codeDone, "version") // what needs no settings works
	}
}

func TestReadOnlyInTheProjectFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, ".millrace.yaml", "read-only: true\n")
	w.write(t, "topics/orders.yaml", ordersYAML)
	r := w.want(t, codeRefused, "topics", "apply", "--yes")
	has(t, "stderr", r.err, "read-only")
	w.want(t, codePending, "topics", "plan")
}

func TestInterruptedCommandsExit130(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	w.records(t, "t", "one")
	ctx, cancel := context.WithCancel(t.Context())
	out, errs := newBuffer(), newBuffer()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w.app(strings.NewReader(""), out, errs), []string{"tail", "t", "--from", "start"})
	}()
	out.await(t, "one")
	w.records(t, "t", "two")
	out.await(t, "two")
	cancel()
	if got := <-code; got != codeInterrupted {
		t.Errorf("exits %d, want %d", got, codeInterrupted)
	}
	has(t, "stderr", errs.String(), "following t", "scanned 2 records")
}

// Every example in a help text is a command that works in the demo's world.
func TestExamplesInHelpWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.webhooks(t)
	w.sources(t)
	url, side := w.takeIn(t)
	here := strings.NewReplacer("http://localhost:8085", url, "localhost:9090", side)
	w.write(t, "orders.jsonl", `{"order_id":"o-17","cents":1999}`+"\n")
	w.write(t, "order_placed.avsc", ordersAVSC)
	w.env["XDG_CONFIG_HOME"] = t.TempDir()
	w.user(t, "contexts:\n  staging:\n    brokers: "+w.env["MILLRACE_BROKERS"]+"\n")
	for _, topic := range []string{"shop.payments", "shop.copy", "notes"} {
		w.topic(t, topic)
	}
	w.want(t, codeDone, "produce", "shop.orders", "--from", "orders.jsonl", "--key-field", "order_id")
	w.want(t, codeDone, "topics", "plan")
	plan := w.want(t, codeDone, "topics", "plan", "-o", "json")
	w.write(t, "plan.json", plan.out)
	commit := kadm.Offsets{}
	commit.AddOffset("shop.orders", 0, 0, -1)
	if err := w.admin.CommitAllOffsets(t.Context(), "shipping", commit); err != nil {
		t.Fatal(err)
	}
	w.write(t, "shipping.json", w.want(t, codeDone, "groups", "offsets", "export", "shipping").out)
	w.write(t, "offsets.json", w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--at", "end", "-o", "json").out)
	w.sinkOnce(t)
	ran := 0
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for l := range strings.SplitSeq(c.Example, "\n") {
			if l = strings.TrimSpace(l); l == "" || c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
				continue
			}
			ran++
			w.example(t, here.Replace(l))
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(w.app(strings.NewReader(""), newBuffer(), newBuffer()).root())
	if ran < 20 {
		t.Errorf("only %d examples were found", ran)
	}
}

// example runs one line of a help text: pipes between commands, > files, and what stands behind two spaces is said,
// not typed.
func (w *world) example(t *testing.T, line string) {
	t.Helper()
	typed := regexp.MustCompile(`\s{2,}.*$|\s+the first event of a key$`).ReplaceAllString(line, "")
	typed, _, _ = strings.Cut(typed, " > ")
	stdin := ""
	for part := range strings.SplitSeq(typed, " | ") {
		args := regexp.MustCompile(`'[^']*'|\S+`).FindAllString(part, -1)
		for i := range args {
			args[i] = strings.Trim(args[i], "'")
		}
		if args[0] == "echo" {
			stdin = args[1] + "\n"
			continue
		}
		if args[0] != "millrace" {
			t.Errorf("an example begins with %q: %s", args[0], line)
			return
		}
		if slices.Contains(args, "rewind.json") { // a plan of things as they are
			w.write(t, "rewind.json", w.want(t, codePending, "sink", "rewind", "plan", "-f", "sink.yaml", "--shift", "-1", "-o", "json").out)
		}
		if args[1] == "webhook" && args[2] == "send" { // it wants a receiver, and has tests of its own
			return
		}
		if args[1] == "dev" || args[1] == "serve" || args[1] == "shop" || args[1] == "sink" && args[2] == "-f" || slices.Contains(args, "--watch") { // they run until they are stopped, and have tests of their own
			return
		}
		if strings.HasPrefix(part, "millrace tail") && !strings.ContainsAny(strings.Join(args[2:], " "), "-") {
			w.follow(t, args[1:])
			return
		}
		r := w.run(t, stdin, args[1:]...)
		if r.code != codeDone && (r.code != codePending || !slices.Contains(args, "plan")) {
			t.Errorf("%s\nexits %d: %s", line, r.code, r.err)
		}
		stdin = r.out
	}
}

// follow runs a command that has no end until it says that it follows.
func (w *world) follow(t *testing.T, args []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := newBuffer()
	code := make(chan int, 1)
	go func() { code <- run(ctx, w.app(strings.NewReader(""), newBuffer(), errs), args) }()
	errs.await(t, "following")
	cancel()
	if got := <-code; got != codeInterrupted {
		t.Errorf("millrace %v exits %d, want %d", args, got, codeInterrupted)
	}
}

func TestJSONCarriesItsVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	for _, args := range []string{"topics ls", "topics describe shop.orders", "schemas ls", "schemas get shop.orders-value", "groups ls", "groups lag", "version"} {
		r := w.want(t, codeDone, append(strings.Fields(args), "-o", "json")...)
		var doc map[string]any
		if err := json.Unmarshal([]byte(r.out), &doc); err != nil || fmt.Sprint(doc["millrace"]) != "1" {
			t.Errorf("%s -o json: %v\n%s", args, err, r.out)
		}
	}
}
