package topics_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/topics"
)

const full = `# the shop's orders
name: shop.orders
owner: team-orders
description: >
  Orders as customers place
  and change them.
partitions: 12
replicas: 3
retention: 7d
key: the order's id
naming: topic-record
events: [shop.OrderPlaced, shop.OrderCancelled]
config:
  segment.bytes: 1GiB
  min.insync.replicas: 2
  cleanup.policy: [delete, compact]
`

func TestLoadReadsEveryField(t *testing.T) {
	t.Parallel()
	got, err := topics.Load(fstest.MapFS{
		"orders.yaml":         {Data: []byte(full)},
		"team/payments.yml":   {Data: []byte("name: a.payments\nowner: pay\npartitions: 1\nretention: forever\n")},
		"gone.yaml":           {Data: []byte("name: old\nabsent: true\n")},
		"README.md":           {Data: []byte("not a topic")},
		".hidden/nothing.yml": {Data: []byte("]")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []topics.Spec{
		{Name: "a.payments", Owner: "pay", Partitions: 1, Retention: topics.Forever, File: "team/payments.yml", Line: 1},
		{Name: "old", Absent: true, File: "gone.yaml", Line: 1},
		{
			Name: "shop.orders", Owner: "team-orders", Description: "Orders as customers place and change them.",
			Key: "the order's id", Partitions: 12, Replicas: 3, Retention: 7 * 24 * time.Hour,
			Config: map[string]string{"segment.bytes": "1GiB", "min.insync.replicas": "2", "cleanup.policy": "delete,compact"},
			Events: []string{"shop.OrderPlaced", "shop.OrderCancelled"}, Naming: schemas.ByTopicRecord,
			File: "orders.yaml", Line: 2,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestLoadNamesFileLineAndWhatIsAllowed(t *testing.T) {
	t.Parallel()
	const head = "name: t\nowner: o\npartitions: 1\n" // three lines
	tests := []struct {
		name, file string
		line       int
		text       string
	}{
		{"unknown field", head + "retenion: 7d\n", 4, "unknown field \"retenion\"; did you mean retention?"},
		{"unknown field, nothing near", head + "zzzzzzzzzz: 7d\n", 4, "allowed are absent, config, description, events"},
		{"field twice", head + "owner: p\n", 4, "owner is set twice: also on line 2"},
		{"no name", "owner: o\npartitions: 1\n", 1, "name is missing"},
		{"bad name", "owner: o\npartitions: 1\nname: a/b\n", 3, "A-Z a-z 0-9 . _ -"},
		{"name of dots", "owner: o\npartitions: 1\nname: ..\n", 3, "is no topic name"},
		{"long name", "owner: o\npartitions: 1\nname: " + strings.Repeat("x", 250) + "\n", 3, "1 to 249"},
		{"no owner", "name: t\npartitions: 1\n", 1, "owner is missing"},
		{"empty owner", "name: t\nowner: ''\npartitions: 1\n", 2, "owner is empty"},
		{"no partitions", "name: t\nowner: o\n", 1, "partitions is missing"},
		{"partitions of nothing", "name: t\nowner: o\npartitions: 0\n", 3, "1 to 10000"},
		{"partitions past reason", "name: t\nowner: o\npartitions: 10001\n", 3, "1 to 10000"},
		{"partitions past int32", "name: t\nowner: o\npartitions: 4294967297\n", 3, "a whole number"},
		{"partitions in words", "name: t\nowner: o\npartitions: many\n", 3, "a whole number"},
		{"negative partitions", "name: t\nowner: o\npartitions: -1\n", 3, "a whole number"},
		{"null partitions", "name: t\nowner: o\npartitions:\n", 3, "partitions needs one value"},
		{"replicas of nothing", head + "replicas: 0\n", 4, "leave it out"},
		{"retention without a unit that is one", head + "retention: 7 weeks\n", 4, "a number with ms, s, m, h, d, or forever"},
		{"retention of nothing", head + "retention: 0\n", 4, "retention is 0"},
		{"retention past all time", head + "retention: 9999999999999d\n", 4, "too large"},
		{"retention past a duration", head + "retention: 106752d\n", 4, "write forever"},
		{"negative retention", head + "retention: -7d\n", 4, "not a number"},
		{"retention twice", head + "retention: 7d\nconfig:\n  retention.ms: 7d\n", 6, "keep one"},
		{"config as a list", head + "config: [a]\n", 4, "config is names with values"},
		{"unknown config", head + "config:\n  retention.bites: 1\n", 5, "did you mean retention.bytes?"},
		{"unknown config, nothing near", head + "config:\n  such.a.setting: 1\n", 5, "is no topic configuration"},
		{"decimal units", head + "config:\n  segment.bytes: 1GB\n", 5, "GiB"},
		{"bytes out of range", head + "config:\n  segment.bytes: 9999999TiB\n", 5, "too large"},
		{"bytes below the least", head + "config:\n  segment.bytes: 1\n", 5, "below the least"},
		{"not a truth", head + "config:\n  preallocate: yes\n", 5, "true or false is allowed"},
		{"not a ratio", head + "config:\n  min.cleanable.dirty.ratio: .nan\n", 5, "from 0 to 1"},
		{"not a policy", head + "config:\n  cleanup.policy: compact,burn\n", 5, "compact, delete are allowed"},
		{"not a compression", head + "config:\n  compression.type: zip\n", 5, "one of gzip, lz4"},
		{"config without a value", head + "config:\n  segment.bytes:\n", 5, "segment.bytes needs one value"},
		{"config of a map", head + "config:\n  segment.bytes: {a: b}\n", 5, "segment.bytes needs one value"},
		{"bad event", head + "events: [shop.Order-Placed]\n", 4, "is no Avro full name"},
		{"event twice", head + "events: [a.B, a.B]\n", 4, "listed twice"},
		{"events as text", head + "events: a.B\n", 4, "events is a list"},
		{"several events by topic", head + "events: [a.B, a.C]\n", 1, "naming must be record or topic-record"},
		{"several events by topic, said so", head + "events: [a.B, a.C]\nnaming: topic\n", 5, "t-value"},
		{"unknown naming", head + "naming: subject\n", 4, "topic, record or topic-record is allowed"},
		{"absent in words", head + "absent: perhaps\n", 4, "true or false is allowed"},
		{"an anchor", "name: &n t\nowner: o\npartitions: 1\n", 1, "an anchor (&n)"},
		{"an alias", "name: &n t\nowner: *n\npartitions: 1\n", 2, "an alias (*n)"},
		{"a merge", head + "<<: {key: k}\n", 4, "a merge key"},
		{"a tag", head + "key: !!binary aGk=\n", 4, "a tag"},
		{"a second document", head + "---\nname: u\n", 4, "a file describes one topic"},
		{"an empty file", "", 0, "the file is empty"},
		{"a list", "- name: t\n", 1, "a topic is fields with values"},
		{"not YAML", "name: t\n\towner: o\n", 2, "no YAML"},
		{"a key that is a list", "[a]: b\n", 1, "a field's name is one word"},
		{"a large file", "# " + strings.Repeat("x", 64<<10), 0, "larger than 64 KiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := topics.Load(fstest.MapFS{"a.yaml": {Data: []byte(tt.file)}})
			if err == nil {
				t.Fatal("loaded")
			}
			at := fmt.Sprintf("a.yaml:%d: ", tt.line)
			if tt.line == 0 {
				at = "a.yaml: "
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if strings.HasPrefix(line, at) && strings.Contains(line, tt.text) {
					return
				}
			}
			t.Errorf("got %v\nwant %s…%s", err, at, tt.text)
		})
	}
}

func TestLoadReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := topics.Load(fstest.MapFS{
		"a.yaml": {Data: []byte("name: t/\nowner: o\npartitions: 0\n")},
		"b.yaml": {Data: []byte("nam: t\nonwer: o\n")},
	})
	for _, want := range []string{"a.yaml:1: ", "a.yaml:3: ", "b.yaml:1: ", "b.yaml:2: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a fault at %s", err, want)
		}
	}
}

func TestLoadRefusesTwoFilesWithOneTopic(t *testing.T) {
	t.Parallel()
	file := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("name: " + name + "\nowner: o\npartitions: 1\n")}
	}
	tests := []struct{ name, a, b, want string }{
		{"the same name", "shop.orders", "shop.orders", "b.yaml:1: topic shop.orders is described twice: also in a.yaml:1"},
		{"one name to Kafka", "shop.orders", "shop_orders", "b.yaml:1: topic shop_orders differs from shop.orders (a.yaml:1) in . and _ alone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := topics.Load(fstest.MapFS{"a.yaml": file(tt.a), "b.yaml": file(tt.b)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// hostile files are cheap to refuse: none may take long, much memory, or the process down.
var hostile = map[string]string{
	"alias bomb":          "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
	"alias of itself":     "name: &n [*n]\n",
	"deep flow lists":     "name: " + strings.Repeat("[", 60_000),
	"deep flow maps":      "name: " + strings.Repeat("{a: ", 15_000),
	"deep block lists":    "name: " + strings.Repeat("- ", 30_000),
	"deep config":         "config: " + strings.Repeat("{segment.bytes: ", 4_000) + "1" + strings.Repeat("}", 4_000),
	"many fields":         strings.Repeat("x: 1\n", 13_000),
	"many events":         "name: t\nowner: o\npartitions: 1\nnaming: record\nevents: [" + strings.Repeat("a,", 30_000) + "a]",
	"long scalar":         "name: " + strings.Repeat("a", 65_000),
	"long unknown config": "name: t\nowner: o\npartitions: 1\nconfig:\n  " + strings.Repeat("a", 60_000) + ": 1\n",
	"not UTF-8":           "name: \xff\xfe\n",
	"zero bytes":          "name: \x00\n",
	"UTF-16":              "\xff\xfen\x00a\x00m\x00e\x00",
	"only a directive":    "%YAML 1.1\n",
	"many documents":      strings.Repeat("---\n", 16_000),
	"comment only":        "# nothing\n",
}

func TestLoadRefusesHostileFilesQuickly(t *testing.T) {
	t.Parallel()
	for name, src := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := topics.Load(fstest.MapFS{"a.yaml": {Data: []byte(src)}})
			if err == nil {
				t.Error("loaded")
			} else if len(err.Error()) > 64<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(full))
	for _, src := range hostile {
		if len(src) < 1<<10 {
			f.Add([]byte(src))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		specs, err := topics.Load(fstest.MapFS{"a.yaml": {Data: src}})
		switch {
		case err == nil && len(specs) != 1:
			t.Fatalf("%d topics from one file", len(specs))
		case err != nil:
			var flaw *topics.FileError
			if !errors.As(err, &flaw) || flaw.Text == "" {
				t.Fatalf("error without a place: %v", err)
			}
		default:
			if refused := topics.Plan(specs, nil); len(refused) > 1 || len(refused) == 1 && refused[0].Refused != "" {
				t.Fatalf("Load accepts what Plan refuses: %v", refused)
			}
		}
	})
}
