package filter_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/filter"
	"github.com/millrace/millrace/schemas"
)

func TestMapping(t *testing.T) {
	t.Parallel()
	reg, _ := registry(t)
	e := &event.Event{
		Meta:  event.Meta{ContentType: "application/json", Headers: event.Headers{{Key: "x-kind", Value: []byte("paid")}}},
		Value: []byte(`{"id":"p-1","amount":1990,"rate":1.5,"at":"2026-11-24T12:00:00Z","live":true,"none":null,"lines":[{"sku":"a"},{"sku":"b"}]}`),
	}
	m, err := filter.NewMapping(map[string]string{
		"id": `value.id`, "cents": `value.amount * 2`, "rate": `value.rate`, "at": `timestamp(value.at)`, "live": `value.live`,
		"none": `value.none`, "kind": `headers["x-kind"]`, "skus": `value.lines.map(l, l.sku)`, "first": `value.lines[0]`,
		"raw": `b"x"`, "for": `duration("90s")`, "constant": `"EUR"`,
	}, reg)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Eval(e)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"id": "p-1", "cents": int64(3980), "rate": 1.5, "at": time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), "live": true,
		"none": nil, "kind": "paid", "skus": []any{"a", "b"}, "first": map[string]any{"sku": "a"},
		"raw": []byte("x"), "for": 90 * time.Second, "constant": "EUR",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v\nwant %#v", got, want)
	}
}

func TestMappingFailures(t *testing.T) {
	t.Parallel()
	reg, _ := registry(t)
	if _, err := filter.NewMapping(map[string]string{"id": `valu.id`}, reg); err == nil || !strings.Contains(err.Error(), "field id") {
		t.Errorf("a mistake: got %v", err)
	}
	m, err := filter.NewMapping(map[string]string{"id": `value.id`, "other": `key`}, reg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Eval(&event.Event{Meta: event.Meta{ContentType: "application/json"}, Value: []byte(`{"other":1}`)}); err == nil || !strings.Contains(err.Error(), "field id") {
		t.Errorf("a field that is not there: got %v", err)
	}
	if _, err := m.Eval(&event.Event{Meta: event.Meta{ContentType: "application/json"}, Value: []byte(`{"id":`)}); !errors.Is(err, schemas.ErrPoison) {
		t.Errorf("no JSON: got %v", err)
	}
}
