// Package ledger is the load and the judge of the runs that break a sink on purpose: movements of money between
// accounts, written to a topic with repeats planted among them, and what every table has to hold once they are written.
//
//	load := ledger.Plan(ledger.Load{Events: 200_000, Partitions: 6, Topic: topic, SchemaID: id, Seed: 1})
//	…                                                 // publish load while processes, brokers and databases die
//	log, err := ledger.Read(ctx, cluster, topic)      // with a bare client
//	want, err := ledger.Expect(log, ledger.Takes{})  // computed from the log alone
//	got, err := ledger.Tables(ctx, ledger.Query(…))
//	for _, wrong := range want.Differ(got) { … }
//
// The judge knows nothing of the packages that it judges: it reads records and decodes them by itself.
package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/sink"
)

// Moved is the event: the Seq-th movement of an account, from 0. Region is another key than that of the record: accounts
// of all partitions meet in it.
type Moved struct {
	Account string `avro:"account"`
	Region  string `avro:"region"`
	Seq     int64  `avro:"seq"`
	Cents   int64  `avro:"cents"`
	Note    string `avro:"note"`
}

// AvroName is the type's full name.
func (Moved) AvroName() string { return typeName }

// AvroSchema is the schema that movements are written with.
func (Moved) AvroSchema() string {
	return `{"type":"record","name":"` + typeName + `","fields":[{"name":"account","type":"string"},{"name":"region","type":"string"},` +
		`{"name":"seq","type":"long"},{"name":"cents","type":"long"},{"name":"note","type":"string"}]}`
}

const typeName = "ledger.Moved"

// What is planted in [Moved.Note].
const (
	refused = "refused" // by the function of the sink
	nul     = "a\x00b"  // no text of PostgreSQL has it
)

// The folds have windows of a minute, and wait ten for late events.
const (
	window   = time.Minute
	lateness = 10 * time.Minute
)

// Sum is the state of the fold: what moved in a region and a window.
type Sum struct{ Moves, Cents int64 }

// Declare has a sink keep the tables accounts (by key; tombstones delete) and moves (one row for each event), and the
// fold regions.
func Declare[Tx any](m *sink.Mux[Tx], topic string) {
	m.Table(sink.Table{Name: "accounts", Event: typeName, Topics: []string{topic}, Key: []string{"account"}})
	// With the note: a row of accounts that does not fit and is overwritten within its batch never meets the database.
	m.Table(sink.Table{Name: "moves", Event: typeName, Append: true, Columns: []sink.Column{{Name: "account"}, {Name: "seq"}, {Name: "note"}}})
	sink.OnFold(m, sink.Fold[Moved]{
		Name: "regions", By: func(e event.Of[Moved]) string { return e.Data.Region },
		Window: window, Lateness: lateness, Late: consumer.DeadLettered,
	}, func(s Sum, e event.Of[Moved]) Sum { return Sum{s.Moves + 1, s.Cents + e.Data.Cents} })
}

// ByHand has a function of the sink write a row of the table by_hand for each event, in their order, by insert. The
// function refuses what is to be refused.
func ByHand[Tx any](m *sink.Mux[Tx], insert func(ctx context.Context, tx Tx, es []event.Of[Moved]) error) {
	sink.On(m, func(ctx context.Context, tx Tx, es []event.Of[Moved]) error {
		var verdicts []error
		for i := range es {
			if es[i].Data.Note != refused {
				continue
			}
			if verdicts == nil {
				verdicts = make([]error, len(es))
			}
			verdicts[i] = consumer.DeadLetter(errors.New("it is refused"))
		}
		if verdicts != nil {
			return consumer.Each(verdicts)
		}
		return insert(ctx, tx, es)
	})
}

// encode is m as a registry frames it, after the schema id.
func (m Moved) encode(schemaID int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(schemaID))
	for _, s := range []string{m.Account, m.Region} {
		b = append(binary.AppendVarint(b, int64(len(s))), s...)
	}
	b = binary.AppendVarint(binary.AppendVarint(b, m.Seq), m.Cents)
	return append(binary.AppendVarint(b, int64(len(m.Note))), m.Note...)
}

// decode is the way back.
func decode(b []byte) (m Moved, err error) {
	if len(b) < 5 || b[0] != 0 {
		return m, errors.New("there is no schema id in front of it")
	}
	b = b[5:]
	for _, to := range []*string{&m.Account, &m.Region, nil, &m.Note} {
		if to == nil {
			for _, n := range []*int64{&m.Seq, &m.Cents} {
				v, size := binary.Varint(b)
				if size <= 0 {
					return m, errors.New("it ends in a number")
				}
				*n, b = v, b[size:]
			}
			continue
		}
		n, size := binary.Varint(b)
		if size <= 0 || n < 0 || n > int64(len(b)-size) {
			return m, errors.New("it ends in a text")
		}
		*to, b = string(b[size:size+int(n)]), b[size+int(n):]
	}
	if len(b) > 0 {
		return m, fmt.Errorf("%d bytes are left", len(b))
	}
	return m, nil
}
