package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// contexts writes a user's file with contexts that all lead to the world's cluster, and takes its address out of the
// environment: nothing but a context names it.
func (w *world) contexts(t *testing.T) (brokers string) {
	t.Helper()
	brokers = w.env["MILLRACE_BROKERS"]
	registry := w.env["MILLRACE_REGISTRY"]
	delete(w.env, "MILLRACE_BROKERS")
	delete(w.env, "MILLRACE_REGISTRY")
	if w.env["XDG_CONFIG_HOME"] == "" {
		w.env["XDG_CONFIG_HOME"] = t.TempDir()
	}
	reach := fmt.Sprintf("    brokers: %s\n    registry: %s\n", brokers, registry)
	w.user(t, "contexts:\n"+
		"  plain:\n"+reach+
		"  staging:\n"+reach+"    clusterID: "+w.clusterID(t)+"\n"+
		"  frozen:\n"+reach+"    readOnly: true\n"+
		"  prod:\n"+reach+"    production: true\n    color: red\n"+
		"  elsewhere:\n"+reach+"    clusterID: another\n"+
		"  secured:\n"+reach+"    sasl-user: orders\n    sasl-password: env:A_SECRET\n")
	return brokers
}

func (w *world) user(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(w.env["XDG_CONFIG_HOME"], userFile)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) clusterID(t *testing.T) string {
	t.Helper()
	m, err := w.admin.BrokerMetadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m.Cluster
}

// writes notes every request that changes something.
func (w *world) writes() func() []string {
	var (
		mu   sync.Mutex
		seen []string
	)
	reads := []kmsg.Key{
		kmsg.ApiVersions, kmsg.Metadata, kmsg.DescribeConfigs, kmsg.DescribeCluster, kmsg.ListOffsets, kmsg.Fetch, kmsg.FindCoordinator,
		kmsg.OffsetFetch, kmsg.ListGroups, kmsg.DescribeGroups, kmsg.ConsumerGroupDescribe, kmsg.DescribeLogDirs, kmsg.OffsetForLeaderEpoch,
		kmsg.GetTelemetrySubscriptions, // of the clients of the test itself
	}
	w.fake.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.fake.KeepControl()
		if key := kmsg.Key(r.Key()); !slices.Contains(reads, key) {
			mu.Lock()
			seen = append(seen, key.Name())
			mu.Unlock()
		}
		return nil, nil, false
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// guarded is a command line for each command that writes; one that has none here is a command that nobody thought about.
var guarded = map[string]string{
	"millrace produce":          "produce shop.orders --format json --from lines.jsonl",
	"millrace copy":             "copy shop.orders shop.orders",
	"millrace replay":           "replay shop.orders --from start --into topic:shop.orders --allow-loop",
	"millrace topics apply":     "topics apply --yes",
	"millrace schemas register": "schemas register schemas",
	"millrace serve":            "serve registry --create-topics --listen 127.0.0.1:0",

	"millrace groups pause":          "groups pause shipping",
	"millrace groups resume":         "groups resume shipping",
	"millrace groups offsets apply":  "groups offsets apply shipping --at end --yes",
	"millrace groups offsets undo":   "groups offsets undo shipping --yes",
	"millrace groups offsets import": "groups offsets import shipping shipping.json --yes",

	"millrace sources test": "sources test acme",

	"millrace sink":              "sink -f sink.yaml",
	"millrace sink rewind apply": "sink rewind apply -f sink.yaml --at start --yes",
	"millrace sink rewind undo":  "sink rewind undo -f sink.yaml --yes",
	"millrace sink rebuild":      "sink rebuild -f sink.yaml --yes",
}

// Nothing is written in a read-only context, in another cluster, and in a production context that nobody confirmed,
// whichever command it is and whatever it was told; and it exits 5.
func TestWritingCommandsAreGuarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.write(t, "topics/orders.yaml", strings.Replace(ordersYAML, "7d", "14d", 1))
	w.write(t, "schemas/order_placed.avsc", strings.Replace(ordersAVSC, `"fields":[`, `"fields":[{"name":"note","type":"string","default":""},`, 1))
	w.write(t, "lines.jsonl", `{"a":1}`+"\n")
	w.records(t, "shop.orders", "one", "two")
	commit := kadm.Offsets{}
	commit.AddOffset("shop.orders", 0, 0, -1)
	if err := w.admin.CommitAllOffsets(t.Context(), "shipping", commit); err != nil {
		t.Fatal(err)
	}
	w.write(t, "shipping.json", w.want(t, codeDone, "groups", "offsets", "export", "shipping").out)
	w.want(t, codeDone, "groups", "offsets", "apply", "shipping", "--at", "offset:1", "--topic", "shop.orders", "--partition", "0", "--yes")
	w.sinkOnce(t)
	w.want(t, codeDone, "sink", "rewind", "apply", "-f", "sink.yaml", "--at", "offset:1", "--topic", "shop.orders", "--partition", "0", "--yes")
	w.sources(t)
	w.contexts(t)
	before := w.run(t, "", "schemas", "ls", "-c", "plain").out + w.run(t, "", "sink", "describe", "-f", "sink.yaml", "-c", "plain", "-o", "json").out
	written := w.writes()
	refusals := []struct{ context, extra, says string }{
		{"frozen", "", "read-only"},
		{"frozen", "--confirm frozen", "read-only"},
		{"frozen", "--read-only=false", "read-only"},
		{"prod", "", "--confirm prod"},
		{"prod", "--confirm staging", `"staging" is not the name`},
		{"elsewhere", "", "another cluster"},
	}
	for command, line := range guarded {
		for _, r := range refusals {
			if r.context == "elsewhere" && command == "millrace schemas register" {
				continue // it speaks to the registry alone
			}
			args := append(strings.Fields(line), append([]string{"-c", r.context}, strings.Fields(r.extra)...)...)
			got := w.run(t, "", args...)
			if got.code != codeRefused {
				t.Errorf("millrace %s exits %d, want %d\n%s", strings.Join(args, " "), got.code, codeRefused, got.err)
			}
			has(t, strings.Join(args, " "), got.err, r.says, "→")
		}
	}
	if seen := written(); len(seen) > 0 {
		t.Errorf("refused, and yet sent: %v", seen)
	}
	if after := w.run(t, "", "schemas", "ls", "-c", "plain").out + w.run(t, "", "sink", "describe", "-f", "sink.yaml", "-c", "plain", "-o", "json").out; after != before {
		t.Errorf("refused, and yet registered:\n%s", after)
	}
	w.want(t, codeDone, "produce", "shop.orders", "--format", "json", "--from", "lines.jsonl", "-c", "prod", "--confirm", "prod")
	w.want(t, codeDone, "topics", "apply", "--yes", "-c", "prod", "--confirm", "prod")
	w.want(t, codeDone, "schemas", "register", "schemas", "-c", "prod", "--confirm", "prod")
	w.want(t, codeDone, "topics", "ls", "-c", "prod") // who reads is not asked
	w.want(t, codeDone, "topics", "apply", "--yes", "-c", "staging")
	if len(written()) == 0 {
		t.Error("the test sees no writes")
	}
}

// A command that writes and is not in the list of those that ask for a production context's name is refused by the
// connection; one that is in the list has a line in the test above.
func TestEveryWritingCommandIsInTheTest(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir()}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if _, writes := writing[c.CommandPath()]; writes && guarded[c.CommandPath()] == "" {
			t.Errorf("%s has no line in the test", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(w.app(strings.NewReader(""), newBuffer(), newBuffer()).root())
}

func TestAContextThatNobodyListedAsWritingIsReadOnlyInProduction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.contexts(t)
	a := w.app(strings.NewReader(""), newBuffer(), newBuffer())
	a.root()
	a.contextFlag = "prod"
	c, err := a.cluster(t.Context())
	if err != nil || !c.ReadOnly {
		t.Errorf("got read-only %v, %v", c.ReadOnly, err)
	}
	a.confirmFlag = "prod"
	if err := a.mayWrite(); err != nil {
		t.Error(err)
	}
	if c, err = a.cluster(t.Context()); err != nil || c.ReadOnly {
		t.Errorf("confirmed: got read-only %v, %v", c.ReadOnly, err)
	}
}

// Which context holds: the flag, the variable, the project's file, what "use" wrote. Who names brokers more strongly
// means another cluster.
func TestWhichContextHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	brokers := w.contexts(t)
	holds := func(want string, args ...string) {
		t.Helper()
		r := w.want(t, codeDone, append([]string{"context", "show", "-o", "json"}, args...)...)
		var doc struct{ Context string }
		if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Context != want {
			t.Errorf("%v: the context is %q, want %q (%v)\n%s", args, doc.Context, want, err, r.out)
		}
	}
	holds("")
	w.want(t, codeDone, "context", "use", "plain")
	holds("plain")
	r := w.want(t, codeDone, "context", "ls")
	has(t, "stdout", r.out, "* plain", "prod", "production")
	w.want(t, codeDone, "topics", "describe", "t")
	w.write(t, ".millrace.yaml", "context: frozen\n")
	holds("frozen")
	r = w.want(t, codeDone, "context", "use", "plain")
	has(t, "stderr", r.err, "but not here: .millrace.yaml chooses frozen")
	w.env["MILLRACE_CONTEXT"] = "staging"
	holds("staging")
	holds("prod", "-c", "prod")
	holds("prod", "--context=prod")
	holds("", "-B", brokers)
	holds("prod", "-B", brokers, "-c", "prod")
	delete(w.env, "MILLRACE_CONTEXT")
	w.env["MILLRACE_BROKERS"] = "127.0.0.1:1"
	holds("")
	holds("prod", "-c", "prod")
	w.want(t, codeDone, "topics", "ls", "-c", "plain") // the flag wins over the variable
	delete(w.env, "MILLRACE_BROKERS")
	w.write(t, ".millrace.yaml", "")
	w.want(t, codeDone, "context", "use", "--none")
	holds("")
	r = w.want(t, codeUsage, "topics", "ls", "-c", "prood")
	has(t, "stderr", r.err, `no context "prood"`, "millrace context ls")
	w.want(t, codeUsage, "context", "use", "prood")
}

// A login of one cluster is never tried on another: settings outside of contexts are not used with one.
func TestAContextIsWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	brokers := w.contexts(t)
	w.user(t, "sasl-user: leaked\nsasl-mechanism: PLAIN\ncontexts:\n  plain:\n    brokers: "+brokers+"\n")
	r := w.want(t, codeDone, "context", "show", "-c", "plain")
	if strings.Contains(r.out, "leaked") || strings.Contains(r.out, "PLAIN") {
		t.Errorf("got\n%s", r.out)
	}
	w.want(t, codeDone, "topics", "ls", "-c", "plain")
}

func TestContextsNeverShowASecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.contexts(t)
	const secret = "correct-horse"
	w.env["A_SECRET"] = secret
	w.write(t, ".millrace.yaml", "contexts:\n  filed:\n    brokers: a:1\n    sasl-user: orders\n    sasl-password: file:secret.txt\n    registry-password: env:A_SECRET\n")
	w.write(t, "secret.txt", secret+"\n")
	for _, context := range []string{"secured", "filed"} {
		for _, args := range []string{"context show " + context, "context show -c " + context, "context show -o json -c " + context, "context ls -c " + context, "topics ls --log-level debug -c " + context} {
			r := w.run(t, "", strings.Fields(args)...)
			if text := r.out + r.err; strings.Contains(text, secret) {
				t.Errorf("%s prints the secret:\n%s", args, text)
			}
		}
	}
	r := w.want(t, codeDone, "context", "show", "-c", "secured")
	has(t, "stdout", r.out, "sasl-password", "***", "config.yaml:")
	r = w.want(t, codeDone, "context", "show", "filed")
	has(t, "stdout", r.out, "file:secret.txt", "env:A_SECRET")
	delete(w.env, "A_SECRET")
	r = w.want(t, codeUsage, "topics", "ls", "-c", "secured")
	has(t, "stderr", r.err, "config.yaml:", "the variable A_SECRET, which holds sasl-password, is not set")
	w.want(t, codeDone, "context", "ls", "-c", "plain")
}

func TestFilesWithSecretsArePrivate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "secret.txt", "x\n")
	secret := filepath.Join(w.dir, "secret.txt")
	for _, line := range []string{"sasl-password: file:secret.txt", "sasl-password-file: secret.txt", "sasl-token-file: secret.txt", "tls-key: secret.txt", "registry-password-file: " + secret} {
		w.write(t, ".millrace.yaml", "contexts:\n  here:\n    brokers: "+w.env["MILLRACE_BROKERS"]+"\n    "+line+"\n")
		if err := os.Chmod(secret, 0o644); err != nil {
			t.Fatal(err)
		}
		r := w.want(t, codeRefused, "topics", "ls", "-c", "here")
		has(t, line, r.err, ".millrace.yaml:4", "everybody on this machine can read", "chmod 600 "+secret)
		if err := os.Chmod(secret, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := w.run(t, "", "topics", "ls", "-c", "here"); strings.Contains(r.err, "everybody") {
			t.Errorf("%s: %s", line, r.err)
		}
	}
}

func TestFaultyContextsNameTheLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for text, says := range map[string]string{
		"contexts:\n  a:\n    brokers: x:1\n    brokrs: y:1\n":                   `.millrace.yaml:4: there is no setting "brokrs"`,
		"contexts:\n  a:\n    readOnly: perhaps\n":                               `.millrace.yaml:3: readOnly is true or false`,
		"contexts:\n  a:\n    brokers: x:1\n    color: mauve\n":                  `.millrace.yaml:4: color "mauve"`,
		"contexts:\n  a:\n    brokers: x:1\n    brokers: y:1\n":                  `.millrace.yaml:4: brokers is said twice`,
		"contexts:\n  a:\n    registry: http://x\n":                              `.millrace.yaml:2: context a names no cluster`,
		"contexts:\n  a b:\n    brokers: x:1\n":                                  `.millrace.yaml:2: "a b" is no name`,
		"contexts: [a]\n":                                                        `.millrace.yaml:1: contexts are names`,
		"contexts:\n  a:\n    brokers: x:1\n    sasl-password: hunter2\n":        `.millrace.yaml:4: sasl-password is written as env:NAME or file:PATH`,
		"sasl-password: hunter2\n":                                               `.millrace.yaml:1: sasl-password is written as`,
		"contexts:\n  a:\n    brokers: x:1\n    registry: https://u:hunter2@x\n": `.millrace.yaml:4: registry is a URL without a login`,
		"contexts:\n  a:\n    brokers: x:1\n    clusterID: [a, b]\n":             `.millrace.yaml:4: clusterID is one value`,
		"contexts:\n  a: &x\n    brokers: x:1\n  b: *x\n":                        `.millrace.yaml:4: a context is settings`,
		"context: [a]\n": `.millrace.yaml:1: context is one value`,
		"contexts:\n  a:\n    brokers: x:1\n    contexts:\n      b: {brokers: y}\n": `.millrace.yaml:5: contexts is a value`,
	} {
		w.write(t, ".millrace.yaml", text)
		r := w.want(t, codeUsage, "topics", "ls")
		has(t, "stderr", r.err, says)
		if strings.Contains(r.err, "hunter2") {
			t.Errorf("the error shows what may be a secret: %s", r.err)
		}
	}
	w.env["XDG_CONFIG_HOME"] = t.TempDir()
	w.write(t, ".millrace.yaml", "")
	w.user(t, "context: a\n")
	r := w.want(t, codeUsage, "topics", "ls")
	has(t, "stderr", r.err, "config.yaml:1:", "millrace context use NAME")
}

func FuzzConfig(f *testing.F) {
	f.Add("brokers: [a:1, b:2]\nread-only: true\ncontext: a\ncontexts:\n  a:\n    brokers: a:1\n    sasl-password: env:X\n    production: true\n    color: red\n")
	f.Add("contexts: {a: {brokers: x, clusterID: y}}")
	f.Add("a: &x [*x]\n")
	f.Add("contexts:\n  ? [a]\n  : b\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConfig("/p/"+projectFile, []byte(text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "/p/"+projectFile+":") {
				t.Errorf("the error names no file: %v", err)
			}
			return
		}
		for _, ctx := range c.contexts {
			if ctx.value("brokers") == "" || !contextName(ctx.name) {
				t.Errorf("got %+v", ctx)
			}
		}
	})
}

// A millrace dev that had to take another port is found from anywhere in its folder.
func TestARunningDevIsTheDefault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topic(t, "t")
	lock := func(pid int) {
		w.write(t, ".millrace/lock", fmt.Sprintf(`{"pid":%d,"broker":%q,"registry":%q}`+"\n", pid, w.fake.ListenAddrs()[0], "http://127.0.0.1:1"))
	}
	lock(os.Getpid())
	w.env = map[string]string{}
	w.write(t, "deep/er/x", "")
	top := w.dir
	w.dir = filepath.Join(top, "deep", "er")
	w.want(t, codeDone, "topics", "describe", "t")
	r := w.want(t, codeDone, "context", "show")
	has(t, "stdout", r.out, "brokers", w.fake.ListenAddrs()[0], "millrace dev in ", "http://127.0.0.1:1")
	w.env["MILLRACE_BROKERS"] = "127.0.0.1:1"
	w.want(t, codeFailed, "topics", "ls")
	w.env = map[string]string{}
	w.dir = top
	lock(1 << 22) // no such process: a killed millrace dev left its address behind
	r = w.want(t, codeDone, "context", "show")
	has(t, "stdout", r.out, defaultBrokers, "default")
	w.write(t, "deep/.git/HEAD", "")
	lock(os.Getpid())
	w.dir = filepath.Join(top, "deep")
	r = w.want(t, codeDone, "context", "show")
	has(t, "stdout", r.out, defaultBrokers)
}
