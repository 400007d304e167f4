package main

import (
	"embed"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/event"
)

// files are the topic and the schema, as a service keeps them beside its code.
//
//go:embed topics/*.yaml schemas/*.avsc
var files embed.FS

//go:embed schemas/flight.avsc
var flightSchema string

// Flight is a scheduled departure and what became of it. Nil is what the data do not know.
type Flight struct {
	Carrier   string  `avro:"carrier"`
	Number    int32   `avro:"number"`
	Tailnum   *string `avro:"tailnum"`
	Origin    string  `avro:"origin"`
	Dest      string  `avro:"dest"`
	Scheduled int64   `avro:"scheduled"` // milliseconds since the epoch
	DepTime   *int32  `avro:"dep_time"`
	DepDelay  *int32  `avro:"dep_delay"`
	ArrDelay  *int32  `avro:"arr_delay"`
	AirTime   *int32  `avro:"air_time"`
	Distance  int32   `avro:"distance"`
}

// AvroName implements schemas.Named.
func (Flight) AvroName() string { return "flights.Flight" }

// AvroSchema implements schemas.Described.
func (Flight) AvroSchema() string { return flightSchema }

// Event is the flight as an event: keyed by aircraft, so that each aircraft's flights stay in order, and unkeyed where
// the aircraft is not known. Its time is the scheduled hour, not that of the publication.
func (f Flight) Event(topic string) event.Event {
	e := event.Unkeyed(topic, f)
	if f.Tailnum != nil {
		e = event.New(topic, *f.Tailnum, f)
	}
	e.Time = time.UnixMilli(f.Scheduled).UTC()
	return e
}

// columns are those that are read, in the order of parse's arguments.
var columns = []string{
	"carrier", "flight", "tailnum", "origin", "dest", "time_hour", "dep_time", "dep_delay", "arr_delay", "air_time", "distance",
}

// parse reads a line of the file; at maps the columns to their places in it.
func parse(line []string, at []int) (Flight, error) {
	p := parser{line: line, at: at}
	f := Flight{
		Carrier: p.text(0), Number: p.number(1), Tailnum: p.textOrNil(2), Origin: p.text(3), Dest: p.text(4), Scheduled: p.millis(5),
		DepTime: p.numberOrNil(6), DepDelay: p.numberOrNil(7), ArrDelay: p.numberOrNil(8), AirTime: p.numberOrNil(9), Distance: p.number(10),
	}
	return f, p.err
}

// parser keeps the first error.
type parser struct {
	line []string
	at   []int
	err  error
}

func (p *parser) text(column int) string { return p.line[p.at[column]] }

func (p *parser) missing(column int) bool { return p.text(column) == "" || p.text(column) == "NA" }

func (p *parser) fail(column int, err error) {
	if p.err == nil {
		p.err = fmt.Errorf("column %s: %w", columns[column], err)
	}
}

func (p *parser) number(column int) int32 {
	n, err := strconv.ParseInt(p.text(column), 10, 32)
	if err != nil {
		p.fail(column, err)
	}
	return int32(n)
}

func (p *parser) millis(column int) int64 {
	t, err := time.Parse(time.RFC3339, p.text(column))
	if err != nil {
		p.fail(column, err)
	}
	return t.UnixMilli()
}

func (p *parser) textOrNil(column int) *string {
	if p.missing(column) {
		return nil
	}
	s := p.text(column)
	return &s
}

func (p *parser) numberOrNil(column int) *int32 {
	if p.missing(column) {
		return nil
	}
	n := p.number(column)
	return &n
}
