package deadletter_test

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/wire"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
)

// publisher keeps what is published, and fails as often as it is told to.
type publisher struct {
	sent []event.Event
	fail []error
}

func (p *publisher) Publish(_ context.Context, events ...event.Event) error {
	p.sent = append(p.sent, events...)
	if len(p.fail) > 0 {
		err := p.fail[0]
		p.fail = p.fail[1:]
		return err
	}
	return nil
}

func failed() event.Event {
	return event.Event{
		Meta: event.Meta{
			ID: "id-1", Type: "shop.Order", Source: "shop", ContentType: "application/avro", Time: time.Unix(1, 0).UTC(),
			Topic: "shop.orders", Partition: 3, Offset: 42, Epoch: 7, Published: time.UnixMilli(1_700_000_000_123), Key: []byte{0xff, 0},
			Headers: event.Headers{{Key: event.HeaderTime, Value: []byte("1970-01-01T02:00:01+02:00")}, {Key: event.HeaderID, Value: []byte("id-1")}, {Key: "x", Value: []byte("1")}, {Key: "x", Value: nil}, {Key: event.HeaderTraceParent, Value: []byte("00-trace")}, {Key: event.HeaderRedrive, Value: []byte("2")}},
		},
		Data:  &struct{}{},
		Value: []byte{0, 0, 0, 1, 2, 'b', 'o', 'd', 'y'},
	}
}

var why = deadletter.Failure{
	Class: deadletter.Panic, Err: errors.New("no address"), Stack: []byte("goroutine 1"), Handler: "shop.Order", Attempts: 3,
	First: time.Date(2026, 11, 24, 9, 0, 0, 5, time.UTC), Last: time.Date(2026, 11, 24, 9, 1, 0, 0, time.UTC), LogAppend: true,
}

func TestADeadLetterIsTheEventAndWhyItIsOne(t *testing.T) {
	t.Parallel()
	p := &publisher{}
	in := failed()
	if err := deadletter.New(p, "shipping", deadletter.Config{Version: "v1.2.3"}).Write(t.Context(), in, why); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, failed()) {
		t.Error("the caller's event was changed")
	}
	out := p.sent[0]
	if out.Topic != "shop.orders.shipping.dlq" || out.ID != in.ID || !out.Verbatim {
		t.Errorf("got %+v", out.Meta)
	}
	if !bytes.Equal(out.Key, in.Key) || !bytes.Equal(out.Value, in.Value) || out.Data != nil {
		t.Errorf("key or value was touched, or data would be encoded again: %+v", out)
	}
	if !reflect.DeepEqual(out.Headers[:len(in.Headers)], in.Headers) {
		t.Errorf("got headers %v, want %v first", out.Headers, in.Headers)
	}
	l, ok := deadletter.Parse(out)
	if !ok || l.Err.Error() != "no address" {
		t.Fatalf("got %+v, %v", l, ok)
	}
	l.Err = why.Err
	want := deadletter.Letter{
		Failure: why, Group: "shipping", SchemaID: 0x102, Version: "v1.2.3", Redrives: 2,
		Origin: deadletter.Origin{Topic: "shop.orders", Partition: 3, Offset: 42, Epoch: 7, Published: time.UnixMilli(1_700_000_000_123)},
	}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("got  %+v\nwant %+v", l, want)
	}
}

func TestADeadLetterOfADeadLetterSaysItsLastOrigin(t *testing.T) {
	t.Parallel()
	p := &publisher{}
	if err := deadletter.New(p, "g", deadletter.Config{}).Write(t.Context(), failed(), why); err != nil {
		t.Fatal(err)
	}
	again := p.sent[0] // as it is read from the dead letters
	again.Partition, again.Offset = 0, 1
	if err := deadletter.New(p, "h", deadletter.Config{}).Write(t.Context(), again, deadletter.Failure{Class: "made up"}); err != nil {
		t.Fatal(err)
	}
	l, ok := deadletter.Parse(p.sent[1])
	if !ok || l.Origin.Topic != "shop.orders.g.dlq" || l.Origin.Offset != 1 || l.Group != "h" || l.Class != deadletter.Handler || l.Err != nil || l.Stack != nil {
		t.Errorf("got %+v", l)
	}
	n := 0
	for _, x := range p.sent[1].Headers {
		if x.Key == event.HeaderOriginTopic {
			n++
		}
	}
	if n != 1 {
		t.Errorf("got %d origins, want 1", n)
	}
}

func TestLongTextIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	p := &publisher{}
	f := deadletter.Failure{Class: deadletter.Poison, Err: errors.New(strings.Repeat("ü", 2000) + "\xff"), Stack: bytes.Repeat([]byte("s"), 9000)}
	if err := deadletter.New(p, "g", deadletter.Config{}).Write(t.Context(), failed(), f); err != nil {
		t.Fatal(err)
	}
	message, stack := p.sent[0].Headers.Get(event.HeaderError), p.sent[0].Headers.Get(event.HeaderStack)
	if len(message) > 1<<10 || len(message) < 1000 || !utf8.Valid(message) || !strings.HasSuffix(string(message), "…") {
		t.Errorf("got a message of %d bytes: %q", len(message), message)
	}
	if len(stack) > 4<<10 || len(stack) < 4000 {
		t.Errorf("got a stack of %d bytes", len(stack))
	}
}

func TestWhatIsTooLargeIsWrittenWithLess(t *testing.T) {
	t.Parallel()
	p := &publisher{fail: []error{producer.ErrTooLarge}}
	f := why
	f.Err = errors.New(strings.Repeat("x", 500))
	if err := deadletter.New(p, "g", deadletter.Config{}).Write(t.Context(), failed(), f); err != nil {
		t.Fatal(err)
	}
	if h := p.sent[1].Headers; len(h.Get(event.HeaderError)) > 128 || h.Get(event.HeaderStack) != nil || !bytes.Equal(p.sent[1].Value, failed().Value) {
		t.Errorf("got %v", h)
	}
}

func TestAnErrorOfThePublisherIsReturned(t *testing.T) {
	t.Parallel()
	p := &publisher{fail: []error{producer.ErrUnknown}}
	err := deadletter.New(p, "g", deadletter.Config{}).Write(t.Context(), failed(), why)
	if !errors.Is(err, producer.ErrUnknown) || !strings.Contains(err.Error(), "shop.orders/3@42") || len(p.sent) != 1 {
		t.Errorf("got %v after %d tries", err, len(p.sent))
	}
}

func TestNamesMustFit(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("t", 225)
	tests := []struct {
		name, topic, group string
		ok                 bool
	}{
		{"short", "t", "g", true},
		{"230", long, "group", true},
		{"231", long, "groups", false},
		{"no group", "t", "", false},
		{"no topic", "", "g", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := deadletter.Check(tt.topic, tt.group); (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
			if name := deadletter.Topic(tt.topic, tt.group); tt.ok && len(name) > 249 {
				t.Errorf("%s has %d characters; a topic has at most 249", name, len(name))
			}
			e := failed()
			e.Topic = tt.topic
			if err := deadletter.New(&publisher{}, tt.group, deadletter.Config{}).Write(t.Context(), e, why); (err == nil) != tt.ok {
				t.Errorf("Write: got %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestAnEventThatIsNoDeadLetterIsNotParsed(t *testing.T) {
	t.Parallel()
	if l, ok := deadletter.Parse(failed()); ok {
		t.Errorf("got %+v", l)
	}
}

// From the log, through the producer, to the log: the bytes are the same, and so is the id of a record that never had
// one.
func TestOnABroker(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "shop.orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	c := kafka.Cluster{Seeds: fake.ListenAddrs()}
	if err := deadletter.Create(ctx, c, "shipping", "none"); err == nil || !strings.Contains(err.Error(), "millrace topics apply") {
		t.Errorf("got %v, want an error about the topic", err)
	}
	for range 2 { // the second finds it
		if err := deadletter.Create(ctx, c, "shipping", "shop.orders"); err != nil {
			t.Fatal(err)
		}
	}
	name := deadletter.Topic("shop.orders", "shipping")
	if got := len(fake.PartitionInfos(name)); got != 4 {
		t.Errorf("got %d partitions, want those of the topic", got)
	}
	configs := fake.TopicInfo(name).Configs
	if r, m := configs["retention.ms"], configs["max.message.bytes"]; r == nil || *r != "7776000000" || m == nil || *m <= "1048588" {
		t.Errorf("got configs %v", configs)
	}

	p, err := producer.New(c, nil, producer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(ctx) })
	var e event.Event
	wire.Read(&e, &kgo.Record{Topic: "shop.orders", Partition: 1, Offset: 5, Key: []byte("k"), Timestamp: time.UnixMilli(1e12), Headers: []kgo.RecordHeader{{Key: "x", Value: []byte("1")}}}, [16]byte{1})
	if err := deadletter.New(p, "shipping", deadletter.Config{}).Write(ctx, e, why); err != nil {
		t.Fatal(err)
	}
	cl, err := c.Client(kgo.ConsumeTopics(name))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	fs := cl.PollFetches(ctx)
	if err := fs.Err(); err != nil {
		t.Fatal(err)
	}
	var got event.Event
	wire.Read(&got, fs.Records()[0], [16]byte{2})
	if got.ID != e.ID || got.Source != "" || string(got.Key) != "k" || got.Value != nil || string(got.Headers.Get("x")) != "1" {
		t.Errorf("got %+v", got)
	}
	if l, ok := deadletter.Parse(got); !ok || l.Origin.Offset != 5 || l.SchemaID != -1 {
		t.Errorf("got %+v, %v", l, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("shop.orders", "3", "42", "7", "1700000000123", "poison", "g", "2026-11-24T09:00:00Z", "3", "258")
	f.Add("", "-1", "99999999999999999999", "x", "", "", "", "2026-13-40", "-5", "4294967296")
	f.Add("t", "2147483648", "0x1", "1e3", "-9223372036854775808", "panic", "\x00", "0000-00-00T00:00:00Z", "\xff", " 1")
	f.Fuzz(func(t *testing.T, topic, partition, offset, epoch, stamp, class, group, first, attempts, schema string) {
		h := event.Headers{
			{Key: event.HeaderOriginTopic, Value: []byte(topic)},
			{Key: event.HeaderOriginPartition, Value: []byte(partition)},
			{Key: event.HeaderOriginOffset, Value: []byte(offset)},
			{Key: event.HeaderOriginEpoch, Value: []byte(epoch)},
			{Key: event.HeaderOriginTimestamp, Value: []byte(stamp)},
			{Key: event.HeaderErrorClass, Value: []byte(class)},
			{Key: event.HeaderGroup, Value: []byte(group)},
			{Key: event.HeaderFirstFailure, Value: []byte(first)},
			{Key: event.HeaderAttempts, Value: []byte(attempts)},
			{Key: event.HeaderSchemaID, Value: []byte(schema)},
		}
		l, ok := deadletter.Parse(event.Event{Meta: event.Meta{Headers: h}})
		if ok != (topic != "" && class != "" && group != "") {
			t.Errorf("got %v for topic %q, class %q, group %q", ok, topic, class, group)
		}
		if l.Origin.Partition < -1 || l.Origin.Offset < -1 || l.Origin.Epoch < -1 || l.Attempts < 0 || l.SchemaID < -1 {
			t.Errorf("a number is out of its range: %+v", l)
		}
	})
}
