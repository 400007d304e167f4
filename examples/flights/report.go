package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// route is what the report groups by.
type route struct{ Origin, Carrier string }

// sums are exact, so two reports of the same flights are equal in whatever order they were added.
type sums struct {
	Flights   int64
	Cancelled int64 // never departed
	Arrived   int64 // with a known delay
	Delay     int64 // minutes, of those that arrived
}

// mean is the mean arrival delay in minutes.
func (s sums) mean() string {
	if s.Arrived == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(s.Delay)/float64(s.Arrived))
}

// report adds up flights per origin and carrier.
type report map[route]sums

func (r report) add(f Flight) {
	k := route{f.Origin, f.Carrier}
	s := r[k]
	s.Flights++
	if f.DepTime == nil {
		s.Cancelled++
	}
	if f.ArrDelay != nil {
		s.Arrived++
		s.Delay += int64(*f.ArrDelay)
	}
	r[k] = s
}

// compare prints both reports side by side and returns how many rows differ.
func compare(w io.Writer, events, file report) (different int, err error) {
	all := maps.Clone(events)
	maps.Copy(all, file)
	keys := slices.SortedFunc(maps.Keys(all), func(a, b route) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Carrier, b.Carrier))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\t\tconsumed\t\t\tfrom the file\t\t\t\t")
	fmt.Fprintln(t, "origin\tcarrier\tflights\tcancelled\tmean delay\tflights\tcancelled\tmean delay\t\t")
	total := [2]sums{}
	row := func(origin, carrier string, e, f sums) {
		mark := "="
		if e != f {
			mark = "DIFFERENT"
			different++
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%d\t%d\t%s\t%s\t\n", origin, carrier, e.Flights, e.Cancelled, e.mean(), f.Flights, f.Cancelled, f.mean(), mark)
	}
	for _, k := range keys {
		e, f := events[k], file[k]
		row(k.Origin, k.Carrier, e, f)
		for i, s := range []sums{e, f} {
			total[i].Flights += s.Flights
			total[i].Cancelled += s.Cancelled
			total[i].Arrived += s.Arrived
			total[i].Delay += s.Delay
		}
	}
	row("all", "", total[0], total[1])
	if err := t.Flush(); err != nil {
		return different, fmt.Errorf("print the report: %w", err)
	}
	return different, nil
}
