package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/millrace/millrace/event"
)

// printer writes events in the chosen form.
type printer struct {
	*app
	decoder
	w    *bufio.Writer
	zone *time.Location
	save *saver // nil: to stdout alone
	// marks sets matches apart from what stands around them.
	marks bool

	text        []byte // the memory of an envelope, used again
	begun       bool
	undecodable int64
	first       string
}

// How a line says that it is a match, or what stands around one.
const (
	markMatch   = "> "
	markContext = "  "
	markBreak   = "--"
)

// print writes a match, or with around an event beside one.
func (p *printer) print(ctx context.Context, e *event.Event, around bool) error {
	if p.output == "raw" && p.save == nil {
		return p.line("", e.Value)
	}
	d, err := p.decode(ctx, e)
	if err != nil {
		return err
	}
	if d.err != nil {
		if p.undecodable++; p.undecodable == 1 {
			p.first = fmt.Sprintf("%s@%d: %s", place(e.Topic, e.Partition), e.Offset, d.err)
		}
	}
	env := envelopeOf(e, d)
	env.Context = around
	var text []byte
	if p.save != nil && !around || p.output == "json" || p.output == "jsonl" {
		if text, err = env.appendJSON(p.text[:0]); err != nil {
			return fmt.Errorf("print %s@%d: %w", place(e.Topic, e.Partition), e.Offset, err)
		}
		p.text = text
	}
	if p.save != nil && !around {
		if err := p.save.add(text); err != nil {
			return err
		}
	}
	switch p.output {
	case "raw":
		return p.line("", e.Value)
	case "table":
		return p.line(p.mark(around), []byte(line(e, d, e.Published.In(p.zone))))
	case "json":
		_, _ = io.WriteString(p.w, map[bool]string{false: "[\n  ", true: ",\n  "}[p.begun]) // a bufio.Writer keeps its error for the next call
		p.begun = true
		_, err = p.w.Write(text)
		return err
	}
	return p.line("", text)
}

// saveOnly writes a match to the saved set, and nowhere else.
func (p *printer) saveOnly(ctx context.Context, e *event.Event) error {
	d, err := p.decode(ctx, e)
	if err != nil {
		return err
	}
	env := envelopeOf(e, d)
	if p.text, err = env.appendJSON(p.text[:0]); err != nil {
		return fmt.Errorf("save %s@%d: %w", place(e.Topic, e.Partition), e.Offset, err)
	}
	return p.save.add(p.text)
}

func (p *printer) mark(around bool) string {
	switch {
	case !p.marks:
		return ""
	case around:
		return markContext
	}
	return markMatch
}

// apart separates a match and what stands around it from the one before.
func (p *printer) apart() error {
	first := !p.begun
	p.begun = true
	if first || !p.marks || p.output != "table" {
		return nil
	}
	return p.line("", []byte(markBreak))
}

func (p *printer) line(mark string, b []byte) error {
	_, _ = p.w.WriteString(mark)
	_, _ = p.w.Write(b)
	if err := p.w.WriteByte('\n'); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// flush shows what was printed.
func (p *printer) flush() error {
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// end closes what the form opened.
func (p *printer) end() error {
	if p.output == "json" {
		_, _ = io.WriteString(p.w, map[bool]string{false: "[]\n", true: "\n]\n"}[p.begun])
	}
	return p.flush()
}
