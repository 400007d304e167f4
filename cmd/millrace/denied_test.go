package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/kafka"
)

// A principal without rights gets an error that names it and what it lacks, in every command, at once.
func TestWithoutRights(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, "t"),
		kfake.Superuser("SCRAM-SHA-512", "admin", "secret"), kfake.User("SCRAM-SHA-512", "nobody", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	w := &world{dir: t.TempDir(), cluster: kafka.Cluster{Seeds: fake.ListenAddrs()}, env: map[string]string{
		"MILLRACE_BROKERS": fake.ListenAddrs()[0], "MILLRACE_SASL_USER": "nobody", "MILLRACE_SASL_PASSWORD": "secret",
	}}
	w.write(t, "topics/orders.yaml", ordersYAML)
	for args, says := range map[string]string{
		"tail t -n 1":                   "topic t",
		"produce t --format json":       "topic t",
		"groups describe g":             "group g",
		"groups lag g":                  "group g",
		"topics describe t":             "topic t",
		"topics apply --yes":            "shop.orders",
		"tail t --from start":           "topic t",
		"produce t --format raw -o raw": "topic t",
	} {
		r := w.run(t, `{"a":1}`, strings.Fields(args)...)
		if r.code != codeFailed {
			t.Errorf("%s: exits %d, want %d", args, r.code, codeFailed)
		}
		has(t, args, r.err, "User:nobody", says, "→")
	}
	w.env["MILLRACE_SASL_PASSWORD"] = "guess"
	r := w.want(t, codeFailed, "topics", "ls")
	has(t, "stderr", r.err, "nobody", "refuse", "millrace help connecting")
	if strings.Contains(r.err, "guess") {
		t.Errorf("the password is printed: %s", r.err)
	}
}
