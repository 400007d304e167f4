package groups_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
)

func TestAPauseHoldsUntilItsEnd(t *testing.T) {
	t.Parallel()
	paused := groups.Control{State: groups.Paused, At: epoch, Until: epoch.Add(10 * time.Minute)}
	for _, tt := range []struct {
		name string
		told groups.Control
		at   time.Duration
		want bool
	}{
		{"nothing was told", groups.Control{}, 0, false},
		{"at once", paused, 0, true},
		{"by a clock that is behind", paused, -time.Minute, true},
		{"a moment before its end", paused, 10*time.Minute - 1, true},
		{"at its end", paused, 10 * time.Minute, false},
		{"long after", paused, 1000 * time.Hour, false},
		{"by a clock of another day", paused, -50 * time.Hour, false},
		{"told to go on", groups.Control{State: groups.Running, At: epoch}, 0, false},
		{"a longest pause", groups.Control{State: groups.Paused, Until: epoch.Add(groups.PauseMost)}, -time.Minute, true},
	} {
		if got := tt.told.Holds(epoch.Add(tt.at)); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

const pausedJSON = `{"millrace":1,"id":"x","group":"g","state":"paused","by":"a@b","at":"2026-11-24T12:00:00Z","until":"2026-11-24T12:10:00Z"}`

func TestParseControl(t *testing.T) {
	t.Parallel()
	told, err := groups.ParseControl([]byte("g"), []byte(pausedJSON))
	if want := (groups.Control{Millrace: 1, ID: "x", Group: "g", State: groups.Paused, By: "a@b", At: epoch, Until: epoch.Add(10 * time.Minute)}); err != nil || told != want {
		t.Errorf("got %+v, %v", told, err)
	}
	for name, value := range map[string]string{
		"another version":    strings.Replace(pausedJSON, `"millrace":1`, `"millrace":2`, 1),
		"another group":      strings.Replace(pausedJSON, `"group":"g"`, `"group":"h"`, 1),
		"an unknown state":   strings.Replace(pausedJSON, "paused", "asleep", 1),
		"no end":             strings.Replace(pausedJSON, `,"until":"2026-11-24T12:10:00Z"`, "", 1),
		"an end years away":  strings.Replace(pausedJSON, "2026-11-24T12:10", "2036-11-24T12:10", 1),
		"no JSON":            "paused",
		"nothing":            "",
		"larger than it may": pausedJSON + strings.Repeat(" ", 64<<10),
	} {
		if told, err := groups.ParseControl([]byte("g"), []byte(value)); err == nil {
			t.Errorf("%s: got %+v", name, told)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add([]byte("g"), []byte(pausedJSON))
	f.Add([]byte("g"), []byte(`{"millrace":1,"id":"x","group":"g","state":"running","by":"","at":"2026-11-24T12:00:00Z"}`))
	f.Add([]byte(""), []byte(`{}`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		told, err := groups.ParseControl(key, value)
		if err != nil {
			return
		}
		if told.Group != string(key) || told.Group == "" {
			t.Errorf("got %+v", told)
		}
		if end := told.At.Add(groups.PauseMost); told.Holds(end) {
			t.Errorf("it holds after a day: %+v", told)
		}
	})
}

// tell writes a record to the topic that services listen to.
func tell(t *testing.T, c kafka.Cluster, told groups.Control) {
	t.Helper()
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	value, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: groups.ControlTopic, Key: []byte(told.Group), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	seed(t, adm)
	if told, err := groups.ControlOf(t.Context(), c, "g"); err != nil || told != (groups.Control{}) {
		t.Fatalf("got %+v, %v", told, err)
	}
	if _, err := groups.Pause(t.Context(), c, groups.PauseConfig{Group: "nobody"}); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	readOnly := c
	readOnly.ReadOnly = true
	if _, err := groups.Pause(t.Context(), readOnly, groups.PauseConfig{Group: "g"}); !errors.Is(err, kafka.ErrReadOnly) {
		t.Errorf("got %v", err)
	}
	if topics, err := adm.ListTopics(t.Context()); err != nil || topics.Has(groups.ControlTopic) {
		t.Fatalf("what is refused makes a topic: %v", err)
	}
	now := func() time.Time { return epoch }
	told, err := groups.Pause(t.Context(), c, groups.PauseConfig{Group: "g", By: "a@b", Now: now})
	if err != nil || told.ID == "" || !told.Holds(epoch) || !told.Until.Equal(epoch.Add(groups.PauseFor)) {
		t.Fatalf("got %+v, %v", told, err)
	}
	if now, err := groups.ControlOf(t.Context(), c, "g"); err != nil || now != told {
		t.Errorf("got %+v, %v", now, err)
	}
	if _, err := groups.Pause(t.Context(), c, groups.PauseConfig{Group: "g", Alone: true, Now: now}); !errors.Is(err, groups.ErrPaused) || !strings.Contains(err.Error(), "a@b") {
		t.Errorf("got %v", err)
	}
	other := told
	other.ID = "another"
	if _, err := groups.Resume(t.Context(), c, other, "x", epoch); err != nil {
		t.Error(err)
	}
	if now, err := groups.ControlOf(t.Context(), c, "g"); err != nil || now != told {
		t.Errorf("another's pause was ended: %+v, %v", now, err)
	}
	if was, err := groups.Resume(t.Context(), c, groups.Control{Group: "g"}, "x", epoch); err != nil || was != told {
		t.Errorf("got %+v, %v", was, err)
	}
	if now, err := groups.ControlOf(t.Context(), c, "g"); err != nil || now.State != groups.Running || now.ID != told.ID || now.By != "x" {
		t.Errorf("got %+v, %v", now, err)
	}
}

// A member that does not listen: the pause is taken back, and the member is named.
func TestPauseNamesWhoStays(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	seed(t, adm)
	join(t, c)
	var waited []int
	_, err := groups.Pause(t.Context(), c, groups.PauseConfig{Group: "g", Wait: time.Second, Waiting: func(still []groups.Member) { waited = append(waited, len(still)) }})
	if !errors.Is(err, groups.ErrStayed) || !strings.Contains(err.Error(), "millrace at ") {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(waited, []int{1}) {
		t.Errorf("got %v", waited)
	}
	if now, err := groups.ControlOf(t.Context(), c, "g"); err != nil || now.State != groups.Running {
		t.Errorf("got %+v, %v", now, err)
	}
	ctx, stop := context.WithCancel(t.Context()) // Ctrl-C while it waits
	_, err = groups.Pause(ctx, c, groups.PauseConfig{Group: "g", Waiting: func([]groups.Member) { stop() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if now, err := groups.ControlOf(t.Context(), c, "g"); err != nil || now.State != groups.Running {
		t.Errorf("got %+v, %v", now, err)
	}
}

// What stands in the topic is handed on at once and as its last word, then each change; records that do not read are left out.
func TestFollowControl(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, groups.ControlTopic); err != nil {
		t.Fatal(err)
	}
	pause := groups.Control{Millrace: 1, ID: "1", Group: "g", State: groups.Paused, At: epoch, Until: epoch.Add(time.Minute)}
	resume := groups.Control{Millrace: 1, ID: "1", Group: "g", State: groups.Running, At: epoch}
	tell(t, c, pause)
	tell(t, c, resume)
	damaged := resume
	damaged.Millrace = 9
	tell(t, c, damaged)
	tell(t, c, groups.Control{Millrace: 1, Group: "else", State: groups.Running})
	ctx, stop := context.WithCancel(t.Context())
	heard, ended := make(chan []groups.Control), make(chan struct{})
	go func() {
		defer close(ended)
		groups.FollowControl(ctx, c, zap.NewNop(), func(group string) bool { return group == "g" }, func(news []groups.Control) { heard <- news })
	}()
	next := func() []groups.Control {
		select {
		case news := <-heard:
			return news
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is heard")
			return nil
		}
	}
	if got := next(); !slices.Equal(got, []groups.Control{resume}) {
		t.Errorf("first got %+v", got)
	}
	tell(t, c, pause)
	if got := next(); !slices.Equal(got, []groups.Control{pause}) {
		t.Errorf("then got %+v", got)
	}
	stop()
	<-ended
}

// Where nobody can be told anything, or may hear it, that is known at once: services do not wait for it.
func TestFollowControlWhereThereIsNothingToHear(t *testing.T) {
	t.Parallel()
	c, _ := newLog(t)
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, groups.ControlTopic),
		kfake.Superuser("SCRAM-SHA-512", "admin", "secret"), kfake.User("SCRAM-SHA-512", "worker", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	for name, tt := range map[string]struct {
		c     kafka.Cluster
		lines int
	}{
		"no topic": {c, 0},
		"no right": {kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.SCRAM512("worker", "secret")}, 1},
	} {
		core, lines := observer.New(zap.InfoLevel)
		ctx, stop := context.WithCancel(t.Context())
		heard, ended := make(chan int), make(chan struct{})
		go func() {
			defer close(ended)
			groups.FollowControl(ctx, tt.c, zap.New(core), func(string) bool { return true }, func(news []groups.Control) { heard <- len(news) })
		}()
		select {
		case n := <-heard:
			if n != 0 {
				t.Errorf("%s: got %d", name, n)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s: nothing is known", name)
		}
		stop()
		<-ended
		if n := lines.FilterLevelExact(zap.WarnLevel).Len(); n != 0 {
			t.Errorf("%s: %v", name, lines.All())
		}
		if n := lines.Len(); n > tt.lines {
			t.Errorf("%s: %d lines: %v", name, n, lines.All())
		}
	}
}

func TestAPlanIsMadeAnew(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	seed(t, adm)
	p := newPlan(t, c, "g", groups.Goal{At: at(position.Start, 0)})
	commit(t, adm, "g", map[int32]int64{0: 9, 1: 3}, "") // it has moved on
	goal, err := p.Goal()
	if err != nil {
		t.Fatal(err)
	}
	q := newPlan(t, c, "g", goal)
	if err := q.Follows(p); err != nil {
		t.Error(err)
	}
	for _, m := range q.Moves {
		if m.To == nil || m.To.Offset != 0 {
			t.Errorf("got %+v", m)
		}
	}
	if q.Moves[0].From.Offset != 9 {
		t.Errorf("got %+v", q.Moves[0].From)
	}
	other := q
	other.ClusterID = "other"
	if err := other.Follows(p); !errors.Is(err, groups.ErrCluster) {
		t.Errorf("got %v", err)
	}
	again := p
	again.Moves = slices.Clone(p.Moves)
	again.Moves[0].TopicID = "AAAAAAAAAAAAAAAAAAAAAA"
	if err := again.Follows(p); !errors.Is(err, groups.ErrChanged) {
		t.Errorf("got %v", err)
	}
	p.Exact = true
	if _, err := p.Goal(); err == nil {
		t.Error("an undo is planned as positions")
	}
}
