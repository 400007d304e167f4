package main

import (
	"bytes"
	"testing"
)

func TestATableFitsItsScreen(t *testing.T) {
	t.Parallel()
	const header = "TOPIC LAG OPEN? MEMBER NOTE?"
	quiet := [][]string{{"shop.orders", "4", "0", "shipping", "-"}, {"shop.flags", "", "-", "shipping", ""}}
	loud := [][]string{{"shop.orders", "4", "2", "shipping", "-"}}
	for _, tt := range []struct {
		name  string
		width int
		rows  [][]string
		want  string
	}{
		{"no screen", 0, quiet, "TOPIC         LAG   OPEN   MEMBER     NOTE\nshop.orders   4     0      shipping   -\nshop.flags          -      shipping   \n"},
		{"wide enough", 42, quiet, "TOPIC         LAG   OPEN   MEMBER     NOTE\nshop.orders   4     0      shipping   -\nshop.flags          -      shipping   \n"},
		{"the last that says nothing goes", 41, quiet, "TOPIC         LAG   OPEN   MEMBER\nshop.orders   4     0      shipping\nshop.flags          -      shipping\n"},
		{"both go", 30, quiet, "TOPIC         LAG   MEMBER\nshop.orders   4     shipping\nshop.flags          shipping\n"},
		{"closer together", 26, quiet, "TOPIC        LAG  MEMBER\nshop.orders  4    shipping\nshop.flags        shipping\n"},
		{"it stays as it must", 5, loud, "TOPIC       LAG OPEN MEMBER\nshop.orders 4   2    shipping\n"},
		{"without rows", 20, nil, "TOPIC   LAG   MEMBER\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			if err := writeTable(&b, tt.width, header, tt.rows); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("got\n%swant\n%s", b.String(), tt.want)
			}
		})
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"one two three", 0, "one two three"},
		{"one two three", 13, "one two three"},
		{"one two three", 12, "one two\nthree"},
		{"one two three", 7, "one two\nthree"},
		{"one  two", 8, "one  two"},
		{"one\n  → millrace doctor", 20, "one\n  → millrace doctor"},
		{"one\n  → millrace doctor", 12, "one\n  → millrace doctor"},
		{"averylongword and more", 5, "averylongword and more"},
		{"", 5, ""},
	} {
		if got := fold(tt.text, tt.width); got != tt.want {
			t.Errorf("fold(%q, %d) is %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}
