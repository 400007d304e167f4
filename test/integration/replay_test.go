package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
)

const (
	replayKills = 20
	replayKeys  = 5000
)

// replayRecords is how many records the replay under test has: MILLRACE_REPLAY_RECORDS says another number.
func replayRecords(t *testing.T) int {
	t.Helper()
	n := 200_000
	if text := os.Getenv("MILLRACE_REPLAY_RECORDS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A replay that is killed twenty times delivers everything, each key in its order; what it delivered twice is no more than it
// said, and what it said no more than its window allows. The group that lives from the topic does not notice.
func TestRealReplayIsKilledTwentyTimes(t *testing.T) {
	t.Parallel()
	c := kafkatest.Plain(t)
	s := newShell(t, c)
	source, target := kafkatest.Topic(t, c, 6), kafkatest.Topic(t, c, 6)
	n := replayRecords(t)
	client := kafkatest.Client(t, c)
	adm := kadm.NewClient(client)
	fillForReplay(t, client, source, n)
	live := kadm.Offsets{}
	live.Add(kadm.Offset{Topic: source, Partition: 2, At: 7, LeaderEpoch: -1, Metadata: "theirs"})
	group := kafkatest.Name(t)
	if err := adm.CommitAllOffsets(t.Context(), group, live); err != nil {
		t.Fatal(err)
	}

	id := kafkatest.Name(t)
	line := fmt.Sprintf("bin/millrace replay %s --from start --into topic:%s --id %s --rate %d", source, target, id, n/10)
	for range replayKills {
		killReplay(t, s, adm, line, target, int64(n/40+rand.IntN(n/60)))
		line = fmt.Sprintf("bin/millrace replay --resume %s --rate %d", id, n/10)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	last := s.command(ctx, line+" --speed max -o json")
	var out, errs bytes.Buffer
	last.Stdout, last.Stderr = &out, &errs
	if err := last.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	var sum struct {
		Done               bool
		Delivered, Repeats int64
	}
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil || !sum.Done || sum.Delivered != int64(n) {
		t.Errorf("%v, %+v\n%s", err, sum, errs.String())
	}

	got := lookAtReplayed(t, c.Seeds, target)
	if got.distinct != n || got.disorder != "" {
		t.Errorf("%d of %d records arrived; order: %s", got.distinct, n, got.disorder)
	}
	repeated := int64(got.total - n)
	if repeated > sum.Repeats || sum.Repeats > replayKills*50_000 {
		t.Errorf("%d records came twice, at most %d were announced", repeated, sum.Repeats)
	}
	t.Logf("%d records, %d kills: %d came twice, at most %d were announced", n, replayKills, repeated, sum.Repeats)

	after, err := adm.FetchOffsets(t.Context(), group)
	if o, _ := after.Lookup(source, 2); err != nil || o.At != 7 || o.Metadata != "theirs" || len(after) != 1 || len(after[source]) != 1 {
		t.Errorf("the live group moved: %v, %+v", err, after)
	}
	p, err := replay.Find(t.Context(), c, id)
	if err != nil || !p.Done || p.Running {
		t.Errorf("%v, %+v", err, p)
	}
}

// fillForReplay writes n records; the value of each is its number within its key.
func fillForReplay(t *testing.T, client *kgo.Client, topic string, n int) {
	t.Helper()
	began := time.Now().Add(-time.Hour) // what is older than the topic's retention would be deleted
	for i := range n {
		client.Produce(t.Context(), &kgo.Record{
			Topic: topic, Key: fmt.Append(nil, "key-", i%replayKeys), Value: fmt.Append(nil, i/replayKeys), Timestamp: began.Add(time.Duration(i) * time.Millisecond),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// killReplay starts a run, and kills it once it has written so many records more.
func killReplay(t *testing.T, s *shell, adm *kadm.Client, line, target string, more int64) {
	t.Helper()
	written := func() int64 {
		ends, err := adm.ListEndOffsets(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
		return sum
	}
	before := written()
	cmd := s.command(t.Context(), line)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case err := <-ended:
			t.Fatalf("%s ended before it was killed: %v\n%s", line, err, errs.String())
		case <-deadline:
			t.Fatalf("%s writes nothing\n%s", line, errs.String())
		case <-tick.C:
			if written()-before < more {
				continue
			}
			tick.Stop()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-ended //nolint:errcheck // it was killed
			return
		}
	}
}

type replayedRecords struct {
	total, distinct int
	disorder        string
}

// lookAtReplayed counts what arrived by where it came from, and holds each key's numbers against their order, repeats
// left out.
func lookAtReplayed(t *testing.T, seeds []string, topic string) replayedRecords {
	t.Helper()
	c := kafkatest.Plain(t)
	c.Seeds = seeds
	in, err := reader.Open(t.Context(), c, reader.Config{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	var r replayedRecords
	next := map[string]int{}
	for e, err := range in.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		r.total++
		at, err := strconv.Atoi(string(e.Value))
		if err != nil {
			t.Fatal(err)
		}
		key := strings.Clone(string(e.Key))
		switch {
		case at == next[key]:
			next[key]++
			r.distinct++
		case at > next[key] && r.disorder == "":
			r.disorder = fmt.Sprintf("%s: %d came before %d", key, at, next[key])
		}
	}
	return r
}
