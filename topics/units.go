package topics

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is how the value of a topic configuration is written.
type kind int8

const (
	text     kind = iota
	duration      // milliseconds; "7d"
	size          // bytes; "1GiB"
	integer
	ratio // 0 to 1
	boolean
	list // comma-separated words in any order
)

// setting is what is known of one topic configuration.
type setting struct {
	kind kind
	min  int64    // the least number
	top  string   // what -1 is called, if -1 is allowed: "forever", "unlimited"
	one  []string // the words allowed, if only some are
}

// settings are the topic configurations of Apache Kafka 3.9 to 4.3. A name that is not here is most often a slip, and
// the broker's answer to it comes late and without a line number.
var settings = map[string]setting{
	"cleanup.policy":                          {kind: list, one: []string{"compact", "delete"}},
	"compression.gzip.level":                  {kind: integer, min: -1},
	"compression.lz4.level":                   {kind: integer, min: 1},
	"compression.type":                        {one: []string{"gzip", "lz4", "producer", "snappy", "uncompressed", "zstd"}},
	"compression.zstd.level":                  {kind: integer, min: math.MinInt32},
	"delete.retention.ms":                     {kind: duration},
	"file.delete.delay.ms":                    {kind: duration},
	"flush.messages":                          {kind: integer, min: 1},
	"flush.ms":                                {kind: duration},
	"follower.replication.throttled.replicas": {},
	"index.interval.bytes":                    {kind: size},
	"leader.replication.throttled.replicas":   {},
	"local.retention.bytes":                   {kind: size, min: -2, top: "unlimited"},
	"local.retention.ms":                      {kind: duration, min: -2, top: "forever"},
	"max.compaction.lag.ms":                   {kind: duration, min: 1},
	"max.message.bytes":                       {kind: size},
	"message.downconversion.enable":           {kind: boolean},
	"message.timestamp.after.max.ms":          {kind: duration},
	"message.timestamp.before.max.ms":         {kind: duration},
	"message.timestamp.difference.max.ms":     {kind: duration},
	"message.timestamp.type":                  {one: []string{"CreateTime", "LogAppendTime"}},
	"min.cleanable.dirty.ratio":               {kind: ratio},
	"min.compaction.lag.ms":                   {kind: duration},
	"min.insync.replicas":                     {kind: integer, min: 1},
	"preallocate":                             {kind: boolean},
	"remote.log.copy.disable":                 {kind: boolean},
	"remote.log.delete.on.disable":            {kind: boolean},
	"remote.storage.enable":                   {kind: boolean},
	"retention.bytes":                         {kind: size, min: -1, top: "unlimited"},
	"retention.ms":                            {kind: duration, min: -1, top: "forever"},
	"segment.bytes":                           {kind: size, min: 14},
	"segment.index.bytes":                     {kind: size, min: 4},
	"segment.jitter.ms":                       {kind: duration},
	"segment.ms":                              {kind: duration, min: 1},
	"unclean.leader.election.enable":          {kind: boolean},
}

// vendors are the prefixes of configurations that other brokers of the protocol have; they pass as text.
var vendors = []string{"confluent.", "redpanda."}

type unit struct {
	name string
	size int64
}

// The units, largest first.
var (
	times = []unit{{"d", 86_400_000}, {"h", 3_600_000}, {"m", 60_000}, {"s", 1_000}, {"ms", 1}}
	sizes = []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
)

// canonical is value in the form that two equal values share, which is the one Kafka takes: "7d" and "604800000" are
// both "604800000". The error says what is allowed.
func canonical(key, value string) (string, error) {
	s, known := settings[key]
	if !known {
		if slices.ContainsFunc(vendors, func(v string) bool { return strings.HasPrefix(key, v) }) {
			return value, nil
		}
		return "", fmt.Errorf("%q is no topic configuration%s", clip(key), suggest(key, slices.Collect(maps.Keys(settings))))
	}
	value = strings.TrimSpace(value)
	switch s.kind {
	case duration:
		return number(key, value, s, times, "milliseconds, or a number with ms, s, m, h, d")
	case size:
		return number(key, value, s, sizes, "bytes, or a number with B, KiB, MiB, GiB, TiB")
	case integer:
		return number(key, value, s, nil, "a whole number")
	case ratio:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f >= 0 && f <= 1) {
			return "", fmt.Errorf("%s is %q: a number from 0 to 1 is allowed", key, clip(value))
		}
		return strconv.FormatFloat(f, 'f', -1, 64), nil
	case boolean:
		if value != "true" && value != "false" {
			return "", fmt.Errorf("%s is %q: true or false is allowed", key, clip(value))
		}
		return value, nil
	case list:
		return words(key, value, s.one)
	case text:
	}
	if s.one != nil && !slices.Contains(s.one, value) {
		return "", fmt.Errorf("%s is %q: one of %s is allowed", key, clip(value), strings.Join(s.one, ", "))
	}
	return value, nil
}

func words(key, value string, allowed []string) (string, error) {
	ws := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(ws)
	ws = slices.Compact(ws)
	for _, w := range ws {
		if !slices.Contains(allowed, w) {
			return "", fmt.Errorf("%s is %q: %s are allowed, with a comma between", key, clip(value), strings.Join(allowed, ", "))
		}
	}
	if len(ws) == 0 {
		return "", fmt.Errorf("%s is empty: %s are allowed, with a comma between", key, strings.Join(allowed, ", "))
	}
	return strings.Join(ws, ","), nil
}

// number reads a count with an optional unit and gives it without.
func number(key, value string, s setting, units []unit, allowed string) (string, error) {
	if s.top != "" {
		allowed += ", or " + s.top
		if value == s.top {
			return "-1", nil
		}
	}
	n, err := count(value, units)
	if err != nil {
		return "", fmt.Errorf("%s is %q: %w; %s is allowed", key, clip(value), err, allowed)
	}
	if n < s.min {
		return "", fmt.Errorf("%s is %q, below the least, %s: %s is allowed", key, clip(value), render(s, s.min), allowed)
	}
	return strconv.FormatInt(n, 10), nil
}

var (
	errNumber  = errors.New("not a number in its units")
	errRange   = errors.New("too large")
	errDecimal = errors.New("KB, MB, GB and TB mean two things; write KiB, MiB, GiB or TiB for powers of 1024")
)

func count(value string, units []unit) (int64, error) {
	digits, factor := value, int64(1)
	for _, u := range units {
		if d, ok := strings.CutSuffix(value, u.name); ok {
			// "7ms" ends in s too: what is left must be digits for the unit to be the one
			if d = strings.TrimRight(d, " "); d != "" && strings.Trim(d, "0123456789") == "" {
				digits, factor = d, u.size
				break
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, errRange
	case err != nil && units != nil && units[0].name == "TiB" && strings.HasSuffix(strings.ToUpper(value), "B"):
		return 0, errDecimal
	case err != nil:
		return 0, errNumber
	case n > math.MaxInt64/factor || n < math.MinInt64/factor:
		return 0, errRange
	}
	return n * factor, nil
}

// human is a configuration's value for a person: "7d" for a retention.ms of 604800000. It loses nothing: canonical
// gives the value back. What canonical does not understand stays as it is.
func human(key, value string) string {
	c, err := canonical(key, value)
	if err != nil {
		return value
	}
	s := settings[key]
	n, err := strconv.ParseInt(c, 10, 64)
	if err != nil {
		return c
	}
	return render(s, n)
}

func render(s setting, n int64) string {
	var units []unit
	switch s.kind {
	case duration:
		units = times
	case size:
		units = sizes
	case text, integer, ratio, boolean, list:
		return strconv.FormatInt(n, 10)
	}
	if n == -1 && s.top != "" {
		return s.top
	}
	if n > 0 {
		for _, u := range units {
			if n%u.size == 0 {
				return strconv.FormatInt(n/u.size, 10) + u.name
			}
		}
	}
	return strconv.FormatInt(n, 10)
}

// parseRetention reads a spec's retention: a duration, or forever.
func parseRetention(value string) (time.Duration, error) {
	c, err := canonical("retention.ms", value)
	if err != nil {
		return 0, fmt.Errorf("retention%s", strings.TrimPrefix(err.Error(), "retention.ms"))
	}
	ms, err := strconv.ParseInt(c, 10, 64)
	switch {
	case err != nil:
		return 0, err
	case ms == -1:
		return Forever, nil
	case ms == 0:
		return 0, errors.New("retention is 0: leave it out for the broker's default, or write a time such as 7d")
	case ms > math.MaxInt64/int64(time.Millisecond):
		return 0, fmt.Errorf("retention is %q: at most 106751d are allowed; write forever", clip(value))
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// suggest names the known word nearest to a mistyped one, and else all that are allowed if they are few.
func suggest(word string, known []string) string {
	slices.Sort(known)
	best, nearest := 4, ""
	for _, k := range known {
		if d := distance(clip(word), k); d < best {
			best, nearest = d, k
		}
	}
	switch {
	case nearest != "":
		return "; did you mean " + nearest + "?"
	case len(known) <= 20:
		return "; allowed are " + strings.Join(known, ", ")
	}
	return "; Kafka's topic configurations are allowed, such as cleanup.policy, max.message.bytes, min.insync.replicas"
}

// distance is the number of letters to change between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
