package main

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("got %v, want 5", got)
	}
	if got := median([]float64{4, 1, 2, 9}); got != 3 {
		t.Errorf("got %v, want 3", got)
	}
}

// A ratio is taken within a round: what slows a round down slows both arms.
func TestRatiosAreOfOneRound(t *testing.T) {
	t.Parallel()
	r := newResult(options{})
	for _, slow := range []float64{1, 10, 2} {
		r.add(arm{name: "raw"}, 1000/slow, 1)
		r.add(arm{name: "typed", raw: "raw"}, 600/slow, 2)
	}
	if got := r.series("typed").Ratio; got != 0.6 {
		t.Errorf("got ratio %v, want 0.6", got)
	}
}

func TestChosenArmsComeWithWhatTheyAreComparedWith(t *testing.T) {
	t.Parallel()
	var names []string
	for _, a := range chosen((&work{}).arms(), "async") {
		names = append(names, a.name)
	}
	if want := []string{"publish raw", "publish async"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}
