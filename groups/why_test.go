package groups_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/reader"
)

func TestWhy(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	commit(t, adm, "g", map[int32]int64{0: 4, 1: 1, 2: 0}, "")
	if err := deadletter.Create(t.Context(), c, "g", "t"); err != nil {
		t.Fatal(err)
	}
	found, err := reader.Peek(t.Context(), c, reader.Place{Topic: "t", Offset: 2})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := producer.New(c, nil, producer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pub.Close(t.Context()) })
	w := deadletter.New(pub, "g", deadletter.Config{})
	for _, e := range found {
		for n, text := range []string{"no such customer", "the till is closed"} {
			if err := w.Write(t.Context(), e, deadletter.Failure{Class: deadletter.Handler, Err: errors.New(text), Attempts: n + 1, First: epoch, Last: epoch.Add(time.Duration(n) * time.Second)}); err != nil {
				t.Fatal(err)
			}
		}
	}

	g, stuck, err := groups.Why(t.Context(), c, "g", 0)
	if err != nil {
		t.Fatal(err)
	}
	if g.ID != "g" || len(stuck) != 2 {
		t.Fatalf("got %+v", stuck)
	}
	first, second := stuck[0], stuck[1]
	if first.Partition.Partition != 0 || first.Behind != 6 || first.Next == nil || first.Next.Offset != 4 || !first.Next.Published.Equal(epoch.Add(4*time.Second)) {
		t.Errorf("got %+v", first)
	}
	if l := first.Letter; l == nil || l.Origin.Offset != 2 || l.Attempts != 2 || !strings.Contains(l.Err.Error(), "the till is closed") {
		t.Errorf("got %+v", l)
	}
	if second.Partition.Partition != 1 || second.Behind != 4 || second.Next == nil || second.Letter != nil {
		t.Errorf("got %+v", second)
	}
	if _, few, err := groups.Why(t.Context(), c, "g", 1); err != nil || len(few) != 1 || few[0].Behind != 6 {
		t.Errorf("with a limit: got %+v, %v", few, err)
	}
}

// A record of a transaction that is still open is behind the group and cannot be read yet.
func TestWhyBehindAnOpenTransaction(t *testing.T) {
	t.Parallel()
	c, adm := newLog(t)
	commit(t, adm, "g", map[int32]int64{2: 0}, "")
	client, err := c.Client(kgo.TransactionalID("tx"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Partition: 2}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	_, stuck, err := groups.Why(t.Context(), c, "g", 0)
	if err != nil || len(stuck) != 1 || stuck[0].Next != nil || stuck[0].Behind != 1 {
		t.Errorf("got %+v, %v", stuck, err)
	}
	if _, _, err := groups.Why(t.Context(), c, "nobody", 0); !errors.Is(err, groups.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
