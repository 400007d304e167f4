package main

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/reader"
)

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), time.Minute)
}

func TestWhy(t *testing.T) {
	t.Parallel()
	w := newShop(t)
	if err := deadletter.Create(t.Context(), w.cluster, "shipping", "t"); err != nil {
		t.Fatal(err)
	}
	place := reader.Place{Topic: "t", Offset: 2}
	found, err := reader.Peek(t.Context(), w.cluster, place)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := producer.New(w.cluster, nil, producer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pub.Close(context.Background()) })
	failed := time.Now().Add(-5 * time.Minute)
	err = deadletter.New(pub, "shipping", deadletter.Config{}).Write(t.Context(), found[place],
		deadletter.Failure{Class: deadletter.Handler, Err: errors.New("no such\x1b[31m customer"), Attempts: 3, First: failed, Last: failed})
	if err != nil {
		t.Fatal(err)
	}
	r := w.want(t, codeDone, "groups", "why", "shipping")
	has(t, "stdout", r.out, "shipping: empty, 0 members, 6 messages behind on 1 of 2 partitions", "t/0, committed 4, 6 behind",
		`  next   2026-11-22 09:05:00.000  t/0@4  k4  {"n":1}`, "  age    ", "  error  at offset 2, 5m", "ago, handler after 3 attempts: no such␛[31m customer",
		"→ nobody is there", "→ see what was given up:  millrace tail t.shipping.dlq -n 5",
		"→ pass over it, once no member is there:  millrace groups offsets plan shipping --topic t --at p0=5")
	// what it says to type can be typed
	w.want(t, codeDone, "tail", "t.shipping.dlq", "-n", "5")
	w.want(t, codeDone, "tail", "t", "--partition", "0", "--offset", "4:5", "-o", "json")
	w.want(t, codePending, "groups", "offsets", "plan", "shipping", "--topic", "t", "--at", "p0=5")

	r = w.want(t, codeDone, "groups", "why", "shipping", "-o", "json")
	var doc struct {
		Partitions []struct {
			Next   struct{ Offset int64 }
			Letter struct{ Error string } `json:"dead_letter"`
			Hints  []string
		}
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || len(doc.Partitions) != 1 || doc.Partitions[0].Next.Offset != 4 || doc.Partitions[0].Letter.Error == "" || len(doc.Partitions[0].Hints) == 0 {
		t.Errorf("got %s, %v", r.out, err)
	}
	w.commits(t, "shipping", "", 10, 0)
	has(t, "stdout", w.want(t, codeDone, "groups", "why", "shipping").out, "caught up")
	has(t, "stderr", w.want(t, codeFailed, "groups", "why", "nobody").err, "no such group", "millrace groups ls")
}

func TestWhyWithAMember(t *testing.T) {
	t.Parallel()
	w := newShop(t)
	expire(t, w)
	member(t, w)
	r := w.want(t, codeDone, "groups", "why", "shipping")
	has(t, "stdout", r.out, "at millrace on 127.0.0.1", "t/0@6", "→ 2 offsets were deleted before the group came to them", "→ see whether it moves:  millrace groups lag shipping --watch")
}

func TestShellWord(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"shop.orders": "shop.orders", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(rm)": "'$(rm)'", "a\nb": "'a␊b'"} {
		if got := shellWord(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
