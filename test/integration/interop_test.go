package integration_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

// trip is a hand-written event type.
type trip struct {
	ID   string `avro:"id"`
	City string `avro:"city"`
	Km   int64  `avro:"km"`
}

func (trip) AvroName() string { return "interop.Trip" }

// Java picks the partition that we pick, for ten thousand keys of every sort.
func TestRealJavaAndWePickTheSamePartition(t *testing.T) {
	t.Parallel()
	const partitions = 7
	cluster := kafkatest.Plain(t)
	topic := kafkatest.Topic(t, cluster, partitions)
	var keys strings.Builder
	var events []event.Event
	for i := range 10_000 {
		key := strconv.Itoa(i)
		switch i % 4 {
		case 1:
			key = strings.Repeat("k", i%37) + key
		case 2:
			key = "Ω" + key + "-\U0001F980"
		case 3:
			key = fmt.Sprintf("%08x-%d", i*2654435761, i)
		}
		keys.WriteString(key + "\n")
		events = append(events, event.Event{Meta: event.New(topic, key, nil).Meta, Value: []byte(key)})
	}
	publish(t, cluster, schemas.Memory(), events...)

	java := javaInterop(t, strings.NewReader(keys.String()), "partitions", strconv.Itoa(partitions))
	want := strings.Fields(java)
	if len(want) != len(events) {
		t.Fatalf("got %d partitions from Java, want %d", len(want), len(events))
	}
	ours := map[string]string{}
	for _, r := range consumeAll(t, cluster, topic, len(events)) {
		ours[string(r.Key)] = strconv.Itoa(int(r.Partition))
	}
	for i, line := range strings.Split(strings.TrimSuffix(keys.String(), "\n"), "\n") {
		if ours[line] != want[i] {
			t.Fatalf("key %q: we picked partition %s, Java picks %s", line, ours[line], want[i])
		}
	}
}

// What we publish is what Kafka's own consumer and kcat read: key, value, headers, partition, null for null.
func TestRealJavaAndKcatReadWhatWePublish(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Plain(t)
	topic := kafkatest.Topic(t, cluster, 3)
	reg := schemas.Memory()
	if _, err := reg.Register(t.Context(), topic+"-value", schemas.MustFor[trip]()); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	typed := event.New(topic, "t-1", trip{"t-1", "Ulm", 12})
	typed.Time, typed.Tenant = at, "acme"
	typed.Headers = event.Headers{{Key: "x", Value: []byte("1")}, {Key: "x", Value: nil}}
	after := event.After(typed.Meta, topic, "t-1", trip{"t-1", "Bonn", 13})
	bare := event.Unkeyed(topic, nil)
	bare.Value = []byte{0, 1, 2, 0xff}
	gone := event.Tombstone(topic, "t-1")
	sent := []event.Event{typed, after, bare, gone}
	publish(t, cluster, reg, sent...)

	ours := map[string]string{}
	for _, r := range consumeAll(t, cluster, topic, len(sent)) {
		line := strings.Builder{}
		fmt.Fprintf(&line, "%d %d %s %s", r.Partition, r.Offset, hexOf(r.Key), hexOf(r.Value))
		for _, h := range r.Headers {
			fmt.Fprintf(&line, " %s=%s", h.Key, hexOf(h.Value))
		}
		ours[line.String()] = string(wire.Headers(r.Headers).Get(event.HeaderID))
	}
	java := strings.Split(strings.TrimSpace(javaInterop(t, nil, "consume", strings.Join(cluster.Seeds, ","), topic, strconv.Itoa(len(sent)))), "\n")
	if len(java) != len(sent) {
		t.Fatalf("Java read %d records, want %d", len(java), len(sent))
	}
	seen := map[string]bool{}
	for _, line := range java {
		id, ok := ours[line]
		if !ok {
			t.Errorf("Java reads what we do not: %s", line)
		}
		seen[id] = true
	}
	for _, e := range sent {
		if !seen[e.ID] {
			t.Errorf("Java did not read event %s", e.ID)
		}
	}
	for _, want := range []string{"ce_specversion=312e30", "ce_type=" + hexOf([]byte("interop.Trip")), "ce_tenant=" + hexOf([]byte("acme")), " x=31 x=-", "content-type=" + hexOf([]byte("application/avro")), event.HeaderCause + "=" + hexOf([]byte(typed.ID))} {
		if !strings.Contains(strings.Join(java, "\n"), want) {
			t.Errorf("Java sees no header %s in\n%s", want, strings.Join(java, "\n"))
		}
	}

	kcat(t, cluster, topic, sent)
}

func kcat(t *testing.T, cluster kafka.Cluster, topic string, sent []event.Event) {
	t.Helper()
	bin, err := exec.LookPath("kcat")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("kcat is not installed: apt-get install kcat")
		}
		t.Log("kcat is not installed (apt-get install kcat): Java alone was the other side")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, "-b", strings.Join(cluster.Seeds, ","), "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%p %K %k %S %h\n").CombinedOutput()
	if err != nil {
		t.Fatalf("kcat: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(sent) {
		t.Fatalf("kcat read %d records, want %d:\n%s", len(lines), len(sent), out)
	}
	for _, e := range sent {
		if !strings.Contains(string(out), "ce_id="+e.ID) {
			t.Errorf("kcat sees no event %s in\n%s", e.ID, out)
		}
	}
	if !bytes.Contains(out, []byte(" -1 ")) { // the size of a null
		t.Errorf("kcat sees no null key and no null value in\n%s", out)
	}
}

func javaInterop(t *testing.T, stdin *strings.Reader, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "java", append([]string{"-cp", kafkatest.Java(t), "testdata/Interop.java"}, args...)...)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("java Interop.java %s: %v\n%s", args[0], err, &stderr)
	}
	return string(out)
}

// publish publishes events and returns when every in-sync replica has them.
func publish(t *testing.T, c kafka.Cluster, enc producer.Encoder, events ...event.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := producer.New(c, enc, producer.Config{Source: "interop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(ctx, events...); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// consumeAll reads n records of a topic from its start with a bare client.
func consumeAll(t *testing.T, c kafka.Cluster, topic string, n int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl := kafkatest.Client(t, c, kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	var out []*kgo.Record
	for len(out) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %d of %d records of %s: %v", len(out), n, topic, err)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

func hexOf(b []byte) string {
	if b == nil {
		return "-"
	}
	return hex.EncodeToString(b)
}
