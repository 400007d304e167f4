package position_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/position"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func at(year, day, hour, minute int) position.Point {
	return position.Point{Kind: position.Time, At: time.Date(year, time.November, day, hour, minute, 0, 0, time.UTC)}
}

func offset(n int64) position.Point { return position.Point{Kind: position.Offset, N: n} }
func start(n int64) position.Point  { return position.Point{Kind: position.Start, N: n} }
func end(n int64) position.Point    { return position.Point{Kind: position.End, N: n} }

var (
	none      position.Point
	hourAgo   = at(2026, 24, 11, 0)
	noon      = at(2026, 24, 12, 0)
	day       = at(2026, 22, 0, 0)
	dayAndOne = at(2026, 22, 1, 0)
	nine      = at(2026, 22, 9, 0)
)

func TestParseRange(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want position.Range
	}{
		{"start", position.Range{}},
		{"oldest", position.Range{}},
		{"end", position.Range{From: end(0)}},
		{"newest", position.Range{From: end(0)}},
		{"start+5", position.Range{From: start(5)}},
		{"+5", position.Range{From: start(5)}},
		{"end-5", position.Range{From: end(5)}},
		{"-5", position.Range{From: end(5)}},
		{"-5:", position.Range{From: end(5)}},
		{"7", position.Range{From: offset(7)}},
		{"7:", position.Range{From: offset(7)}},
		{"7:9", position.Range{From: offset(7), Until: offset(9)}},
		{":9", position.Range{Until: offset(9)}},
		{"7:end", position.Range{From: offset(7), Until: end(0)}},
		{":end", position.Range{Until: end(0)}},
		{"start:end", position.Range{Until: end(0)}},
		{":end-3", position.Range{Until: end(3)}},
		{"+2:start+4", position.Range{From: start(2), Until: start(4)}},
		{"-10:end-5", position.Range{From: end(10), Until: end(5)}},
		{"9223372036854775806:9223372036854775807", position.Range{From: offset(1<<63 - 2), Until: offset(1<<63 - 1)}},
		{"@now", position.Range{From: noon}},
		{"@-1h", position.Range{From: hourAgo}},
		{"@-1h:", position.Range{From: hourAgo}},
		{"@-1h:now", position.Range{From: hourAgo, Until: noon}},
		{"@-1h:end", position.Range{From: hourAgo, Until: end(0)}},
		{"@:-1h", position.Range{Until: hourAgo}},
		{"@:end", position.Range{Until: end(0)}},
		{"@2026-11-22", position.Range{From: day}},
		{"@2026-11-22:1h", position.Range{From: day, Until: dayAndOne}},
		{"@2026-11-22:+1h", position.Range{From: day, Until: dayAndOne}},
		{"@2026-11-22:2026-11-22T09:00", position.Range{From: day, Until: nine}},
		{"@2026-11-22T01:00:2026-11-22T09:00:00", position.Range{From: dayAndOne, Until: nine}},
		{"@2026-11-22T01:00Z:2026-11-22T10:00:00+01:00", position.Range{From: dayAndOne, Until: nine}},
		{"@-48h:-24h", position.Range{From: at(2026, 22, 12, 0), Until: at(2026, 23, 12, 0)}},
		{"@-2d:-1d", position.Range{From: at(2026, 22, 12, 0), Until: at(2026, 23, 12, 0)}},
		{"@2026-11-22:-1h", position.Range{From: day, Until: hourAgo}}, // before now, not before T1
		{"@1763802000", position.Range{From: at(2025, 22, 9, 0)}},
		{"@1763802000000:1763802060000000000", position.Range{From: at(2025, 22, 9, 0), Until: at(2025, 22, 9, 1)}},
		{"@1763802000:1h1m", position.Range{From: at(2025, 22, 9, 0), Until: at(2025, 22, 10, 1)}},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			got, err := position.ParseRange(tt.text, now)
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
			again, err := position.ParseRange(got.String(), now)
			if err != nil || again != got {
				t.Errorf("printed as %q it reads %+v, %v, want the same", got, again, err)
			}
		})
	}
}

func TestParseRangeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, says string }{
		{"", "allowed are"},
		{":", "allowed are"},
		{"@", "after the @"},
		{"@:", "after the @"},
		{"yesterday", "allowed are"},
		{"1:2:3", "allowed are"},
		{"--5", "allowed are"},
		{"start-5", "only +N may follow"},
		{"end+5", "only -N may follow"},
		{"start+", "digits only"},
		{"5:+3", "two readings"},
		{"5:-3", "two readings"},
		{"99999999999999999999", "larger than any offset"},
		{"@12", "after the @"},
		{"@1h", "after the @"},
		{"@:1h", "after the @"},
		{"@1969-12-31", "outside of 1970"},
		{"@9999-12-31T23:59:59-01:00", "outside of 1970"},
		{"@-300y", "after the @"},
		{"@-999999d", "292 years"},
		{"@-290d:now:", "after the @"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			got, err := position.ParseRange(tt.text, now)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %+v, %v, want an error that says %q", got, err, tt.says)
			}
		})
	}
}

func TestRangeThatHoldsNothingIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{":start", "start:start", "5:5", "6:5", ":0", "start+4:start+4", "end:end", "end-3:end-5", "@now:now", "@now:-1h", "@-1h:0s"} {
		if r, err := position.ParseRange(text, now); !errors.Is(err, position.ErrEmpty) {
			t.Errorf("%s: got %+v, %v, want ErrEmpty", text, r, err)
		}
	}
	if err := (position.Range{From: position.Point{Kind: position.Offset, N: -1}}).Validate(); err == nil {
		t.Error("offset -1 is a code on the wire and was accepted")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want position.Point
	}{
		{"start", none},
		{"end", end(0)},
		{"end-10", end(10)},
		{"start+10", start(10)},
		{"now", noon},
		{"-15m", at(2026, 24, 11, 45)},
		{"-1d12h", at(2026, 23, 0, 0)},
		{"-1.5h", at(2026, 24, 10, 30)},
		{"2026-11-22T09:00Z", nine},
		{"2026-11-22T09:00", nine},
		{"2026-11-22 09:00", nine},
		{"2026-11-22 09:00:00", nine},
		{"2026-11-22T10:00:00.000+01:00", nine},
		{"2026-11-22", day},
		{"today", at(2026, 24, 0, 0)},
		{"today 11:00", hourAgo},
		{"yesterday", at(2026, 23, 0, 0)},
		{"yesterday 09:00", at(2026, 23, 9, 0)},
		{"yesterday 09:00:00", at(2026, 23, 9, 0)},
		{"offset:123", offset(123)},
		{"p0=123", position.Point{Kind: position.Each, Offsets: "p0=123"}},
		{"p10=1,p2=456", position.Point{Kind: position.Each, Offsets: "p2=456,p10=1"}},
		{"1763802000", at(2025, 22, 9, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			got, err := position.Parse(tt.text, now)
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
			again, err := position.Parse(got.String(), now)
			if err != nil || again != got {
				t.Errorf("printed as %q it reads %+v, %v, want the same", got, again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, says string }{
		{"", "allowed are"},
		{"tomorrow", "allowed are"},
		{"yesterday 25:00", "allowed are"},
		{"123", "offset:123"},
		{"offset:-1", "never negative"},
		{"offset:", "digits only"},
		{"p0=1,p0=2", "named twice"},
		{"p0", "allowed are"},
		{"px=1", "not like p0=123"},
		{"p0=", "not like p0=123"},
		{"p99999999999=1", "too large"},
		{"startle", "only +N"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			got, err := position.Parse(tt.text, now)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %+v, %v, want an error that says %q", got, err, tt.says)
			}
		})
	}
}

func TestTimesWithoutZoneAreInTheClocksZone(t *testing.T) {
	t.Parallel()
	cet := time.FixedZone("CET", 3600)
	for _, text := range []string{"2026-11-22T10:00", "2026-11-22 10:00", "2026-11-22T09:00Z"} {
		if got, err := position.Parse(text, now.In(cet)); err != nil || got != nine {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, nine)
		}
	}
	if got, err := position.Parse("yesterday", now.In(cet)); err != nil || got != at(2026, 22, 23, 0) {
		t.Errorf("yesterday in CET: got %v, %v", got, err)
	}
}

func TestPointInPartition(t *testing.T) {
	t.Parallel()
	p, err := position.Parse("p0=5,p3=7", now)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := p.In(3); !ok || got != offset(7) {
		t.Errorf("partition 3: got %v, %v, want offset 7", got, ok)
	}
	if got, ok := p.In(1); ok {
		t.Errorf("partition 1 is not named and got %v", got)
	}
	if got, ok := noon.In(9); !ok || got != noon {
		t.Errorf("a time is the same in all partitions: got %v, %v", got, ok)
	}
}

func TestMixedRangePrints(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]position.Range{
		"p0=5 until end":                             {From: position.Point{Kind: position.Each, Offsets: "p0=5"}, Until: end(0)},
		"offset:5 until 2026-11-24T12:00:00Z":        {From: offset(5), Until: noon},
		"2026-11-24T12:00:00Z until end-5":           {From: noon, Until: end(5)},
		"@2026-11-24T11:00:00Z:2026-11-24T12:00:00Z": {From: hourAgo, Until: noon},
		"2026-11-24T12:00:00Z until offset:1":        {From: noon, Until: offset(1)},
		"p0=5":                                       {From: position.Point{Kind: position.Each, Offsets: "p0=5"}},
		"start+5 until 2026-11-24T12:00:00Z":         {From: start(5), Until: noon},
		"2026-11-24T11:00:00Z until p0=1":            {From: hourAgo, Until: position.Point{Kind: position.Each, Offsets: "p0=1"}},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What is printed reads as the same: every range of the grammar, whatever its ends, by what they mean and not by how
// they were typed.
func TestPrintedReadsAsTheSame(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	number := func() int64 { return []int64{0, 1, rng.Int64N(100), rng.Int64(), math.MaxInt64}[rng.IntN(5)] }
	instant := func() position.Point {
		ns := rng.Int64N(now.UnixNano() * 2)
		ns -= ns % []int64{1, 1e3, 1e6, 1e9, 60e9, 86400e9}[rng.IntN(6)]
		return position.Point{Kind: position.Time, At: time.Unix(0, ns).UTC()}
	}
	each := func() position.Point {
		p, err := position.Parse(fmt.Sprintf("p%d=%d,p%d=%d", rng.IntN(5), number(), 5+rng.IntN(1000), number()), now)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	points := []func() position.Point{
		func() position.Point { return start(number()) }, func() position.Point { return end(number()) },
		func() position.Point { return offset(number()) },
	}
	for range 20_000 {
		for _, p := range []position.Point{points[rng.IntN(3)](), instant(), each()} {
			if again, err := position.Parse(p.String(), now); err != nil || again != p {
				t.Fatalf("%+v prints as %q and reads as %+v, %v", p, p, again, err)
			}
		}
		for _, r := range []position.Range{
			{From: points[rng.IntN(3)]()},
			{From: points[rng.IntN(3)](), Until: points[rng.IntN(3)]()},
			{From: instant()},
			{From: instant(), Until: instant()},
			{From: instant(), Until: end(0)},
			{Until: instant()},
		} {
			again, err := position.ParseRange(r.String(), now)
			switch valid := r.Validate(); {
			case valid != nil:
				if err == nil {
					t.Fatalf("%+v is refused with %v; printed, %q, it is not", r, valid, r)
				}
			case err != nil || again != r:
				t.Fatalf("%+v prints as %q and reads as %+v, %v", r, r, again, err)
			}
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"start", "+5", "-5", "7:9", ":end-3", "@-1h:now", "@2026-11-22:1h", "@2026-11-22T01:00Z:2026-11-22T10:00:00+01:00", "@1763802000000", "5:+3", "@:", "@-1.5d:end", "@0000-01-01T00:00:00+23:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := position.ParseRange(s, now)
		if err != nil {
			return
		}
		if again, err := position.ParseRange(r.String(), now); err != nil || again != r {
			t.Errorf("%q reads %+v, prints as %q and reads again as %+v, %v", s, r, r, again, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"start+1", "end-9", "now", "-15m", "yesterday 09:00", "offset:1", "p0=1,p1=2", "2026-11-22T09:00Z", "p1=0,p01=0", "-1ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := position.Parse(s, now)
		if err != nil {
			return
		}
		if again, err := position.Parse(p.String(), now); err != nil || again != p {
			t.Errorf("%q reads %+v, prints as %q and reads again as %+v, %v", s, p, p, again, err)
		}
	})
}

func ExampleParseRange() {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	r, err := position.ParseRange("@-1h:now", now)
	fmt.Println(r, err)
	_, err = position.ParseRange("9:5", now)
	fmt.Println(err)
	// Output:
	// @2026-11-24T11:00:00Z:2026-11-24T12:00:00Z <nil>
	// read range 9:5: the range is empty: its end is not after its start
}

func TestDurationsHaveDaysAndNoSign(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "50ms": 50 * time.Millisecond} {
		if got, err := position.ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1h", "5", "1w", "300y", "400000000d"} {
		if d, err := position.ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %v", text, d)
		}
	}
}
