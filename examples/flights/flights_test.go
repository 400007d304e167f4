package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const header = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour\n"

const three = header +
	"2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z\n" +
	"2013,1,1,533,529,4,850,830,20,UA,1714,N24211,EWR,IAH,227,1416,5,29,2013-01-01T10:00:00Z\n" +
	"2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,NA,LGA,RDU,NA,416,16,30,2013-01-01T21:00:00Z\n"

// many is a table of n flights over 7 aircraft, some of them unknown and some cancelled.
func many(n int) string {
	var b strings.Builder
	b.WriteString(header)
	for i := range n {
		tail, dep, delay := fmt.Sprintf("N%d", i%7), "900", fmt.Sprint(i%50-10)
		if i%7 == 0 {
			tail = "NA"
		}
		if i%11 == 0 {
			dep, delay = "NA", "NA"
		}
		fmt.Fprintf(&b, "2013,1,1,%s,900,0,1000,1000,%s,U%d,%d,%s,JFK,BOS,40,187,9,0,2013-01-01T14:00:00Z\n", dep, delay, i%3, i, tail)
	}
	return b.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func none(string) string { return "" }

// The whole way on an embedded broker: what is consumed is what is in the file.
func TestFlightsGoThroughUnchanged(t *testing.T) {
	t.Parallel()
	var out, progress strings.Builder
	err := run(t.Context(), []string{"-csv", write(t, "flights.csv", many(5_000))}, none, &out, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for _, want := range []string{"JFK", "U0", "5000"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "DIFFERENT") || !strings.Contains(progress.String(), "equal") {
		t.Errorf("not equal:\n%s%s", out.String(), progress.String())
	}
}

func TestADifferenceIsCounted(t *testing.T) {
	t.Parallel()
	file, _, err := fromFile([]byte(three))
	if err != nil {
		t.Fatal(err)
	}
	events := report{}
	for f, err := range flights([]byte(three)) {
		if err != nil {
			t.Fatal(err)
		}
		events.add(f)
	}
	if n, err := compare(io.Discard, events, file); n != 0 || err != nil {
		t.Errorf("got %d, %v; want no difference", n, err)
	}
	for f, err := range flights([]byte(three)) { // the first flight twice
		if err != nil {
			t.Fatal(err)
		}
		events.add(f)
		break
	}
	if n, err := compare(io.Discard, events, file); n != 2 || err != nil { // its row and the total
		t.Errorf("got %d, %v; want 2 differences", n, err)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	got, n, err := fromFile([]byte(three))
	if err != nil {
		t.Fatal(err)
	}
	want := report{{"EWR", "UA"}: {Flights: 2, Arrived: 2, Delay: 31}, {"LGA", "EV"}: {Flights: 1, Cancelled: 1}}
	if n != 3 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %d %v, want 3 %v", n, got, want)
	}
	if mean := got[route{"EWR", "UA"}].mean(); mean != "15.50" {
		t.Errorf("mean: got %s, want 15.50", mean)
	}
}

func TestKeyIsTheAircraft(t *testing.T) {
	t.Parallel()
	var keys []string
	for f, err := range flights([]byte(three)) {
		if err != nil {
			t.Fatal(err)
		}
		e := f.Event("demo.flights")
		keys = append(keys, fmt.Sprintf("%q %v", e.Key, e.Key == nil))
		if e.Time.Year() != 2013 {
			t.Errorf("time: got %v, want the scheduled hour", e.Time)
		}
	}
	if got, want := strings.Join(keys, ", "), `"N14228" false, "N24211" false, "" true`; got != want {
		t.Errorf("keys: got %s, want %s", got, want)
	}
}

func TestArchives(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	z := zip.NewWriter(&zipped)
	w, err := z.Create("data/flights.csv")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, three); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var tarred bytes.Buffer
	g := gzip.NewWriter(&tarred)
	a := tar.NewWriter(g)
	if err := a.WriteHeader(&tar.Header{Name: "p/data/flights.csv.zip", Mode: 0o600, Size: int64(zipped.Len())}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(zipped.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"flights.csv": three, "flights.csv.zip": zipped.String(), "p.tar.gz": tarred.String()} {
		got, err := load(write(t, name, content))
		if err != nil || string(got) != three {
			t.Errorf("%s: got %d bytes, %v; want the table", name, len(got), err)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, file, content, want string }{
		{"no header", "f.csv", "", "read the header"},
		{"a column is missing", "f.csv", "carrier,flight\nUA,1\n", "no column tailnum"},
		{"a number that is none", "f.csv", strings.Replace(three, "1545", "many", 1), "line 2: column flight"},
		{"a time that is none", "f.csv", strings.Replace(three, "2013-01-01T10:00:00Z", "ten", 1), "line 2: column time_hour"},
		{"too few fields", "f.csv", three + "2013,1\n", "line 5"},
		{"no zip", "f.zip", three, "not a valid zip"},
		{"no archive", "f.tar.gz", three, "gzip"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), []string{"-csv", write(t, tt.file, tt.content)}, none, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
