package position

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	allowedPoint = `start, end, now, a duration ago (-15m), a time (2026-11-22T09:00Z, "yesterday 09:00"), offset:123, or an offset for each partition (p0=123,p1=456)`
	allowedRange = "start, end, N, start+N, end-N, N:M, :M, N:end, or times after an @ (@-1h, @2026-11-22:1h, @-48h:-24h)"
	allowedTime  = "now, -15m, 2026-11-22, 2026-11-22T09:00, 2026-11-22T09:00:00Z, or an epoch in seconds, milliseconds or nanoseconds"
)

// Parse reads one place, as --from, --until and --at take it: start, end, now, -15m, 2026-11-22T09:00Z, "yesterday 09:00",
// offset:123, p0=123,p1=456; also start+N and end-N, and epochs of 9–10, 13 and 19 digits (seconds, milliseconds,
// nanoseconds). Durations have the units ns us ms s m h d. See the package comment for now.
func Parse(text string, now time.Time) (Point, error) {
	s := strings.TrimSpace(text)
	if p, ok, err := parseAnchor(s); ok {
		if err != nil {
			return Point{}, fmt.Errorf("read position %q: %w", text, err)
		}
		return p, nil
	}
	if digits, ok := strings.CutPrefix(s, "offset:"); ok {
		n, err := parseNumber(digits)
		if err != nil {
			return Point{}, fmt.Errorf("read position %q: %w", text, err)
		}
		return Point{Kind: Offset, N: n}, nil
	}
	if strings.HasPrefix(s, "p") && strings.Contains(s, "=") {
		each, err := parseEach(s)
		if err != nil {
			return Point{}, fmt.Errorf("read position %q: %w", text, err)
		}
		return Point{Kind: Each, Offsets: formatEach(each)}, nil
	}
	t, err := parseTime(s, now)
	switch {
	case errors.Is(err, errNoTime) && isDigits(s):
		return Point{}, fmt.Errorf("read position %q: an offset is written offset:%s; a number of 9, 10, 13 or 19 digits is an epoch", text, s)
	case errors.Is(err, errNoTime):
		return Point{}, fmt.Errorf("read position %q: allowed are %s", text, allowedPoint)
	case err != nil:
		return Point{}, fmt.Errorf("read position %q: %w", text, err)
	}
	return Point{Kind: Time, At: t}, nil
}

// ParseRange reads a range as --offset takes it, in the grammar that kcl and rpk share: start, end, N, start+N or
// +N, end-N or -N, N:M, :M, N:end, :end, :end-N, and times after an @: @T, @T1:T2, @:T, @T:end, where T is what
// [Parse] takes as a time and T2 also a duration after T1 (@2026-11-22:1h). See the package comment for now.
func ParseRange(text string, now time.Time) (Range, error) {
	s := strings.TrimSpace(text)
	var r Range
	var err error
	if times, ok := strings.CutPrefix(s, "@"); ok {
		r, err = parseTimes(times, now)
	} else {
		r, err = parseOffsets(s)
	}
	if err != nil {
		return Range{}, fmt.Errorf("read range %q: %w", text, err)
	}
	if err := r.Validate(); err != nil {
		return Range{}, err
	}
	return r, nil
}

var errNoRange = errors.New("allowed are " + allowedRange)

func parseOffsets(s string) (Range, error) {
	from, until, bounded := strings.Cut(s, ":")
	var r Range
	var err error
	if from != "" {
		if r.From, err = parseSide(from); err != nil {
			return Range{}, err
		}
	} else if !bounded || until == "" {
		return Range{}, errNoRange
	}
	if until == "" {
		return r, nil
	}
	if until[0] == '+' || until[0] == '-' {
		return Range{}, fmt.Errorf("the end %q has two readings: write start+N, end-N or an offset", until)
	}
	if r.Until, err = parseSide(until); err != nil {
		return Range{}, err
	}
	if !r.Bounded() {
		return Range{}, fmt.Errorf("%w: it ends at the start of the log", ErrEmpty)
	}
	return r, nil
}

// parseSide reads one side of a range of offsets.
func parseSide(s string) (Point, error) {
	if p, ok, err := parseAnchor(s); ok {
		return p, err
	}
	kind, digits := Offset, s
	switch {
	case strings.HasPrefix(s, "+"):
		kind, digits = Start, s[1:]
	case strings.HasPrefix(s, "-"):
		kind, digits = End, s[1:]
	}
	if !isDigits(digits) {
		return Point{}, errNoRange
	}
	n, err := parseNumber(digits)
	return Point{Kind: kind, N: n}, err
}

// parseAnchor reads start, start+N, end, end-N and their older names. It reports whether s begins with one.
func parseAnchor(s string) (Point, bool, error) {
	for _, a := range []struct {
		word, sign string
		kind       Kind
	}{{"start", "+", Start}, {"oldest", "+", Start}, {"end", "-", End}, {"newest", "-", End}} {
		rest, ok := strings.CutPrefix(s, a.word)
		switch {
		case !ok:
			continue
		case rest == "":
			return Point{Kind: a.kind}, true, nil
		case strings.HasPrefix(rest, a.sign):
			n, err := parseNumber(rest[1:])
			return Point{Kind: a.kind, N: n}, true, err
		default:
			return Point{}, true, fmt.Errorf("after %s only %sN may follow", a.word, a.sign)
		}
	}
	return Point{}, false, nil
}

func parseNumber(digits string) (int64, error) {
	if !isDigits(digits) {
		return 0, fmt.Errorf("%q is not a number of records: digits only, never negative", digits)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is larger than any offset", digits)
	}
	return n, nil
}

// parseTimes reads what follows the @. RFC 3339 has colons of its own: the whole text is tried as one time first,
// then every colon from the right.
func parseTimes(s string, now time.Time) (Range, error) {
	t, err := parseTime(s, now)
	if err == nil {
		return Range{From: Point{Kind: Time, At: t}}, nil
	}
	if !errors.Is(err, errNoTime) {
		return Range{}, err
	}
	for i := strings.LastIndexByte(s, ':'); i >= 0; i = strings.LastIndexByte(s[:i], ':') {
		if r, err := parseInterval(s[:i], s[i+1:], now); err == nil {
			return r, nil
		} else if !errors.Is(err, errNoTime) {
			return Range{}, err
		}
	}
	return Range{}, fmt.Errorf("after the @ stand times: %s", allowedTime)
}

func parseInterval(from, until string, now time.Time) (Range, error) {
	var r Range
	if from == "" && until == "" {
		return Range{}, errNoTime
	}
	if from != "" {
		t, err := parseTime(from, now)
		if err != nil {
			return Range{}, err
		}
		r.From = Point{Kind: Time, At: t}
	}
	switch until {
	case "":
		return r, nil
	case "end", "newest":
		r.Until = Point{Kind: End}
		return r, nil
	}
	if d, err := ParseDuration(strings.TrimPrefix(until, "+")); err == nil && from != "" {
		t, err := checkTime(r.From.At.Add(d))
		r.Until = Point{Kind: Time, At: t}
		return r, err
	}
	t, err := parseTime(until, now)
	r.Until = Point{Kind: Time, At: t}
	return r, err
}

var errNoTime = errors.New("not a time")

// layouts without a zone are in now's location.
var layouts = []struct {
	layout string
	zoned  bool
}{
	{time.RFC3339Nano, true},
	{"2006-01-02T15:04Z07:00", true},
	{"2006-01-02T15:04:05.999999999", false},
	{"2006-01-02T15:04", false},
	{time.DateTime, false},
	{"2006-01-02 15:04", false},
	{time.DateOnly, false},
}

// parseTime returns errNoTime for what is no time at all, and another error for a time that cannot be meant.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return checkTime(now)
	}
	if isDigits(s) {
		return parseEpoch(s)
	}
	if ago, ok := strings.CutPrefix(s, "-"); ok {
		d, err := ParseDuration(ago)
		if err != nil {
			return time.Time{}, err
		}
		return checkTime(now.Add(-d))
	}
	if t, ok := parseDay(s, now); ok {
		return checkTime(t)
	}
	for _, l := range layouts {
		t, err := time.ParseInLocation(l.layout, s, now.Location())
		if err == nil {
			return checkTime(t)
		}
	}
	return time.Time{}, errNoTime
}

// parseDay reads today and yesterday, with a time of day or without.
func parseDay(s string, now time.Time) (time.Time, bool) {
	day, clock, timed := strings.Cut(s, " ")
	back := 0
	switch day {
	case "today":
	case "yesterday":
		back = 1
	default:
		return time.Time{}, false
	}
	var of time.Time
	if timed {
		var err error
		if of, err = time.Parse("15:04", clock); err != nil {
			if of, err = time.Parse(time.TimeOnly, clock); err != nil {
				return time.Time{}, false
			}
		}
	}
	return time.Date(now.Year(), now.Month(), now.Day()-back, of.Hour(), of.Minute(), of.Second(), 0, now.Location()), true
}

func parseEpoch(digits string) (time.Time, error) {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return time.Time{}, errNoTime
	}
	switch len(digits) {
	case 19:
		return checkTime(time.Unix(0, n))
	case 13:
		return checkTime(time.UnixMilli(n))
	case 9, 10:
		return checkTime(time.Unix(n, 0))
	default:
		return time.Time{}, errNoTime
	}
}

// checkTime refuses what Kafka cannot look up: before 1970 a timestamp is negative, and -1 and -2 are codes.
func checkTime(t time.Time) (time.Time, error) {
	t = t.Round(0).UTC()
	if t.Before(time.Unix(0, 0)) || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("the year %d is outside of 1970 to 9999", t.Year())
	}
	return t, nil
}

var units = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// ParseDuration reads durations like 90s, 1h30m and 2d, never negative: time.ParseDuration has no days and takes signs.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errNoTime
	}
	var total float64
	for s != "" {
		end := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if end <= 0 {
			return 0, errNoTime
		}
		n, err := strconv.ParseFloat(s[:end], 64)
		if err != nil {
			return 0, errNoTime
		}
		s = s[end:]
		end = strings.IndexAny(s, "0123456789.")
		if end < 0 {
			end = len(s)
		}
		unit, ok := units[s[:end]]
		if !ok {
			return 0, errNoTime
		}
		total += n * float64(unit)
		s = s[end:]
	}
	if total >= math.MaxInt64 {
		return 0, errors.New("the duration is longer than 292 years")
	}
	return time.Duration(total), nil
}
