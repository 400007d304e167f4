package replay_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/replay"
	"github.com/millrace/millrace/schemas"
)

func mirror(t *testing.T, to *fake, topic string, partitions int, carrier *replay.Carrier) *replay.Mirror {
	t.Helper()
	m, err := replay.OpenMirror(t.Context(), to.Cluster, topic, partitions, carrier)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func TestACopyIsTheSame(t *testing.T) {
	t.Parallel()
	from, to := newFake(t, 3, "orders"), newFake(t, 3, "orders")
	events := recorded(600)
	for i := range events {
		events[i].Headers = event.Headers{{Key: "a", Value: nil}, {Key: "a", Value: []byte{}}, {Key: "traceparent", Value: []byte("00")}}
	}
	events[5].Value = nil
	events[6].Key = nil
	from.fill(t, events)
	m := mirror(t, to, "orders", 3, nil)
	s, err := replay.Run(t.Context(), from.Cluster, m, replay.Config{ID: "c", Read: of("orders"), AllowLoop: true})
	if err != nil || s.Delivered != 600 || !m.KeepsPartitions() || !m.KeepsTimes() {
		t.Fatalf("%v, %+v", err, s)
	}
	want, got := from.all(t, "orders"), to.all(t, "orders")
	for i := range want {
		w, g := &want[i], &got[i]
		if g.Partition != w.Partition || g.Offset != w.Offset || !g.Published.Equal(w.Published) || !reflect.DeepEqual(g.Key, w.Key) ||
			!reflect.DeepEqual(g.Value, w.Value) || !reflect.DeepEqual(g.Headers, w.Headers) {
			t.Fatalf("got %+v %q, want %+v %q", g.Meta, g.Value, w.Meta, w.Value)
		}
	}
	places := []reader.Place{{Topic: "orders", Offset: 0}, {Topic: "orders", Partition: 1, Offset: 50}, {Topic: "orders", Partition: 2, Offset: s.Spans[2].Until}}
	mapped, err := replay.MapOffsets(t.Context(), from.Cluster, to.Cluster, "orders", true, places...)
	if err != nil || len(mapped) != 3 {
		t.Fatal(err)
	}
	for i, want := range []int64{0, 49, s.Spans[2].Until - 1} { // one event again, rather than one too few
		if m := mapped[i]; len(m.Target) != 1 || m.Target[0].Partition != int32(i) || m.Target[0].Offset != want {
			t.Errorf("%v is mapped to %v, want offset %d", m.Source, m.Target, want)
		}
	}
}

// With other partitions, each key goes where every producer puts it, in its order, and a place is mapped so that
// nothing behind it is missed.
func TestACopyIntoOtherPartitions(t *testing.T) {
	t.Parallel()
	from, to := newFake(t, 3, "orders"), newFake(t, 5, "wide")
	from.fill(t, recorded(600))
	m := mirror(t, to, "wide", 3, nil)
	if _, err := replay.Run(t.Context(), from.Cluster, m, replay.Config{Read: reader.Config{Topics: []string{"orders"}, Merge: true}}); err != nil || m.KeepsPartitions() {
		t.Fatal(err)
	}
	got := &sink{got: to.all(t, "wide")}
	if len(got.got) != 600 {
		t.Errorf("%d events", len(got.got))
	}
	places := []reader.Place{{Topic: "orders", Offset: 100}, {Topic: "orders", Partition: 1, Offset: 120}, {Topic: "orders", Partition: 2, Offset: 90}}
	mapped, err := replay.MapOffsets(t.Context(), from.Cluster, to.Cluster, "wide", false, places...)
	if err != nil {
		t.Fatal(err)
	}
	at := map[int32]int64{}
	for _, p := range mapped[0].Target {
		at[p.Partition] = p.Offset
	}
	rest := map[string]bool{}
	for _, e := range got.got {
		if e.Offset >= at[e.Partition] {
			rest[string(e.Value)] = true
		}
	}
	for _, e := range from.all(t, "orders") {
		if e.Offset >= places[e.Partition].Offset && !rest[string(e.Value)] {
			t.Errorf("%s/%d@%d is missed", e.Topic, e.Partition, e.Offset)
		}
	}
	if len(at) != 5 || len(rest) == 600 {
		t.Errorf("mapped to %v, %d events are left", at, len(rest))
	}
}

const (
	orderV1 = `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"}]}`
	orderV2 = `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},{"name":"cents","type":"long","default":0}]}`
)

func TestSchemasAreCarried(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	from, to := newFake(t, 1, "orders"), newFake(t, 1, "copy")
	here, there := schemas.Memory(), schemas.Memory()
	if _, err := there.Register(ctx, "other-value", `{"type":"record","name":"Other","fields":[]}`); err != nil { // ids differ
		t.Fatal(err)
	}
	var events []event.Event
	for i, text := range []string{orderV1, orderV2} {
		s, err := here.Register(ctx, "orders-value", text)
		if err != nil {
			t.Fatal(err)
		}
		body, err := s.FromJSON(nil, []byte([]string{`{"id":"a"}`, `{"id":"b","cents":7}`}[i]))
		if err != nil {
			t.Fatal(err)
		}
		frame := []byte{0, 0, 0, 0, byte(s.ID)}
		events = append(events, event.Event{Meta: event.Meta{Topic: "orders", Published: origin}, Value: append(frame, body...)},
			event.Event{Meta: event.Meta{Topic: "orders", Published: origin, Headers: event.Headers{{Key: schemas.HeaderValueSchema, Value: frame}}}, Value: body})
	}
	events = append(events, event.Event{Meta: event.Meta{Topic: "orders", Published: origin}, Value: []byte(`{"plain":"json"}`)}, event.Event{Meta: event.Meta{Topic: "orders", Published: origin}})
	from.fill(t, []event.Event{events[3], events[0], events[1], events[2], events[4], events[5]}) // the later version comes first
	carrier := &replay.Carrier{From: here, To: there, FromTopic: "orders", ToTopic: "copy"}
	s, err := replay.Run(ctx, from.Cluster, mirror(t, to, "copy", 1, carrier), replay.Config{Read: of("orders")})
	if err != nil || s.Delivered != 6 {
		t.Fatalf("%v, %+v", err, s)
	}
	versions, err := there.Versions(ctx, "copy-value")
	if err != nil || len(versions) != 2 {
		t.Fatalf("%v, %v", versions, err)
	}
	var got []string
	for _, e := range to.all(t, "copy") {
		if text, err := there.AppendJSON(ctx, nil, &e); err == nil && e.Value != nil {
			got = append(got, string(text))
		} else {
			got = append(got, string(e.Value))
		}
	}
	if want := `{"id":"b","cents":7} {"id":"a"} {"id":"a"} {"id":"b","cents":7} {"plain":"json"} `; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, " "), want)
	}
	v1, err := there.Version(ctx, "copy-value", 1)
	if err != nil || strings.Contains(v1.Text, "cents") {
		t.Errorf("the versions are in another order: %v, %s", err, v1.Text)
	}

	from.fill(t, []event.Event{{Meta: event.Meta{Topic: "orders", Published: origin}, Value: []byte{0, 0, 0, 3, 9, 1}}})
	bad, err := replay.Run(ctx, from.Cluster, mirror(t, to, "copy", 1, carrier), replay.Config{Read: of("orders")})
	if !errors.Is(err, schemas.ErrNotFound) || bad.Done {
		t.Errorf("a schema that nobody knows: %v", err)
	}
}
