package integration_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/filter"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/schemas"
)

// BenchmarkRealScan reads a topic of small Avro records from end to end, each read with the clients and look-ups that
// a command starts with, and reports records a second. MILLRACE_SCAN_RECORDS says how many there are; 1,000,000 if
// it is not set.
//
//	MILLRACE_SCAN_RECORDS=10000000 go test ./test/integration -run '^$' -bench RealScan -benchtime 1x
func BenchmarkRealScan(b *testing.B) {
	n := 1_000_000
	if s := os.Getenv("MILLRACE_SCAN_RECORDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	c, reg := kafkatest.Plain(b), schemas.Memory()
	topic := kafkatest.Topic(b, c, 6)
	fillOrders(b, c, reg, topic, n)
	for _, bb := range []struct {
		name, where string
		merge       bool
	}{
		{"all", ``, false},
		{"key", `key == "no.such"`, false},
		{"field", `value.country == "no.such"`, false},
		{"field and number", `value.cents > 1000000 && value.country == "IT"`, false},
		{"field, merged", `value.country == "no.such"`, true},
	} {
		b.Run(bb.name, func(b *testing.B) {
			cfg := reader.Config{Topics: []string{topic}, Merge: bb.merge}
			if bb.where != "" {
				f, err := filter.New(bb.where, reg)
				if err != nil {
					b.Fatal(err)
				}
				cfg.Match = f.Match
			}
			for b.Loop() {
				r, err := reader.Open(b.Context(), c, cfg)
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range r.Events(b.Context()) {
					if err != nil {
						b.Fatal(err)
					}
				}
				if done := r.Complete(); done.Scanned != int64(n) || done.Undecodable+done.Failed > 0 {
					b.Fatalf("%s of %d", done, n)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// fillOrders writes n orders of some 60 bytes with the headers that a producer writes.
func fillOrders(tb testing.TB, c kafka.Cluster, reg *schemas.Registry, topic string, n int) {
	tb.Helper()
	s, err := reg.Register(tb.Context(), topic+"-value", `{"type":"record","name":"scan.Order","fields":[{"name":"order_id","type":"string"},
		{"name":"customer","type":"string"},{"name":"country","type":"string"},{"name":"cents","type":"long"},
		{"name":"placed_at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"coupon","type":["null","string"]}]}`)
	if err != nil {
		tb.Fatal(err)
	}
	client := kafkatest.Client(tb, c, kgo.ProducerBatchMaxBytes(1<<20), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(200_000))
	countries := []string{"IT", "DE", "FR", "ES", "AT"}
	for i := range n {
		value, err := s.FromJSON([]byte{0, 0, 0, byte(s.ID >> 8), byte(s.ID)},
			fmt.Appendf(nil, `{"order_id":"o-%d","customer":"customer-%d","country":%q,"cents":%d,"placed_at":"2026-11-24T12:00:00Z","coupon":null}`,
				i, i%1000, countries[i%len(countries)], i%50_000))
		if err != nil {
			tb.Fatal(err)
		}
		meta := event.Meta{ID: fmt.Sprintf("01936e0c-0000-7000-8000-%012d", i), Type: "scan.Order", Source: "bench", ContentType: "application/avro"}
		r := &kgo.Record{Topic: topic, Key: fmt.Append(nil, "o-", i), Value: value}
		for _, h := range event.AppendHeaders(nil, meta) {
			r.Headers = append(r.Headers, kgo.RecordHeader(h))
		}
		client.Produce(tb.Context(), r, nil)
	}
	if err := client.Flush(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}
