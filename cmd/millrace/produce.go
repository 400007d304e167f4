package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
)

const (
	lineMost   = 128 << 20 // bytes of one line: a value stands in it twice, as bytes and as data
	errorsMost = 10        // shown one by one, the rest is counted
	// closeWait is how long the events on the way may take after the last line, or after Ctrl-C.
	closeWait = 30 * time.Second
)

type produceFlags struct {
	from, key, keyField, format, subject, typ, source string
	headers                                           []string
}

func (a *app) produceCommand() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use: "produce TOPIC", Aliases: []string{"publish"}, Short: "Publish JSON lines as typed events",
		Long: `Publish JSON lines as typed events, from stdin or a file.

Each line is one event's data, encoded by the latest schema of the topic's subject (TOPIC-value, or --subject); keys
that no field has are errors, with the line's number. Lines that tail -o jsonl wrote are published as they were: the
same key, value and headers, repeats and nulls included; --header adds to them. Lines that fail are reported, the others are published, and the exit code is 4.`,
		Example: `  millrace produce shop.orders --from orders.jsonl --key-field order_id
  millrace tail shop.orders --offset :100 -o jsonl | millrace produce shop.copy
  echo '{"note":"hello"}' | millrace produce notes --format json --key k1 --header lang=en`,
		Args:              names("one topic", 1, 1),
		ValidArgsFunction: a.completeTopics,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.produce(cmd.Context(), args[0], f) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.from, "from", "f", "-", "the `file` of lines; - is stdin")
	fs.StringVar(&f.key, "key", "", "the `key` of every event")
	fs.StringVar(&f.keyField, "key-field", "", "take the key from this `field` of the line; a.b is b within a")
	fs.StringArrayVar(&f.headers, "header", nil, "add a header, `name=value`; may be repeated")
	fs.StringVar(&f.format, "format", "avro", "how data is written: `avro`, json, or raw for lines as they are")
	fs.StringVar(&f.subject, "subject", "", "the `subject` of the schema. Defaults to TOPIC-value")
	fs.StringVar(&f.typ, "type", "", "the `name` of the event's type, for json and raw")
	fs.StringVar(&f.source, "source", "millrace-cli", "the `name` of who publishes")
	return cmd
}

// lineEncoder makes an event of a line.
type lineEncoder struct {
	topic   string
	flags   produceFlags
	headers event.Headers
	schema  schemas.Schema // for avro
}

func (a *app) produce(ctx context.Context, topic string, f produceFlags) error {
	if f.key != "" && f.keyField != "" {
		return usage(errors.New("--key and --key-field say the same: use one way"))
	}
	enc := &lineEncoder{topic: topic, flags: f}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return usage(fmt.Errorf("--header %q: write name=value", h))
		}
		enc.headers = append(enc.headers, event.Header{Key: name, Value: []byte(value)})
	}
	if f.format != "avro" && f.format != "json" && f.format != "raw" {
		return usage(fmt.Errorf("--format %s: allowed are avro, json, raw", f.format))
	}
	if f.format == "raw" && f.keyField != "" {
		return usage(errors.New("--key-field reads a field of JSON: it does not go with --format raw"))
	}
	in, size, err := a.input(f.from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	if err := mayPublish(ctx, c, topic); err != nil {
		return err
	}
	reg, named, err := a.registry()
	if err != nil {
		return err
	}
	if f.format == "avro" {
		lines := bufio.NewReader(in)
		if first, err := lines.Peek(len(envelopeStart)); err != nil || string(first) != envelopeStart { // envelopes need no schema
			if enc.schema, err = writerSchema(ctx, reg, named, topic, f); err != nil {
				return err
			}
		}
		in = struct {
			io.Reader
			io.Closer
		}{lines, in}
	}
	p, err := producer.New(c, reg, producer.Config{Source: f.source, Log: c.Log})
	if err != nil {
		return err
	}
	return a.publishLines(ctx, p, enc, in, size)
}

// mayPublish finds out before the first line what would make every line fail.
func mayPublish(ctx context.Context, c kafka.Cluster, topic string) error {
	if c.ReadOnly {
		return fmt.Errorf("publish to %s: %w", topic, kafka.ErrReadOnly)
	}
	client, err := c.Client()
	if err != nil {
		return fmt.Errorf("look for topic %s: %w", topic, err)
	}
	defer client.Close()
	details, err := kadm.NewClient(client).ListTopicsWithInternal(ctx, topic)
	if err == nil {
		err = details[topic].Err
	}
	switch _, there := details[topic]; {
	case errors.Is(err, kerr.UnknownTopicOrPartition), err == nil && !there:
		return hint(fmt.Errorf("there is no topic %s", topic), "declare it in a file and make it:  millrace topics apply", "or see which there are:  millrace topics ls")
	case err != nil:
		return fmt.Errorf("look for topic %s: %w", topic, c.Explain(err, "Describe", "topic "+topic))
	}
	return nil
}

// envelopeStart is how every line that tail -o jsonl writes begins.
const envelopeStart = `{"millrace":`

func (a *app) input(from string) (io.ReadCloser, int64, error) {
	if from == "-" {
		if isTerminal(a.in) {
			a.say("reading lines from the terminal: Ctrl-D ends them")
		}
		return io.NopCloser(a.in), 0, nil
	}
	f, err := os.Open(a.path(from))
	if err != nil {
		return nil, 0, usage(fmt.Errorf("read events: %w", err))
	}
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		_ = f.Close()
		return nil, 0, usage(fmt.Errorf("%s is no file of lines", from))
	}
	return f, info.Size(), nil
}

func writerSchema(ctx context.Context, reg *schemas.Registry, named bool, topic string, f produceFlags) (schemas.Schema, error) {
	subject := f.subject
	if subject == "" {
		subject = schemas.ByTopic.Subject(topic, "")
	}
	s, err := reg.Latest(ctx, subject)
	switch {
	case errors.Is(err, schemas.ErrNotFound):
		return s, hint(fmt.Errorf("the registry has no schema for the subject %s: %w", subject, err),
			"register one:  millrace schemas register DIR", "or name the subject:  --subject (see  millrace schemas ls)", "or write plain JSON:  --format json")
	case errors.Is(err, schemas.ErrUnavailable) && !named:
		return s, hint(err, "name the schema registry:  --registry URL (or MILLRACE_REGISTRY)", "or write plain JSON, without a schema:  --format json")
	case err != nil:
		return s, fmt.Errorf("look up the schema of %s: %w", subject, err)
	}
	return s, nil
}

// tally counts outcomes. Promises of the producer call it from other goroutines.
type tally struct {
	mu        sync.Mutex
	published int64
	failed    int64
	errs      []string // the first ones, each with its line
	causes    []error  // the same
	hopeless  bool     // every further line would fail as well
}

func (t *tally) add(n int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.published++
		return
	}
	if _, denied := errors.AsType[*kafka.PermissionError](err); denied {
		t.hopeless = true
	}
	if t.failed++; len(t.errs) < errorsMost {
		t.errs = append(t.errs, fmt.Sprintf("line %d: %s", n, err))
		t.causes = append(t.causes, err)
	}
}

func (a *app) publishLines(ctx context.Context, p *producer.Producer, enc *lineEncoder, in io.Reader, size int64) error {
	var t tally
	began := a.now()
	show := a.progress()
	var read, n int64
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), lineMost)
	for ctx.Err() == nil && lines.Scan() {
		n++
		read += int64(len(lines.Bytes())) + 1
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		number := n
		e, err := enc.event(lines.Bytes())
		if err != nil {
			t.add(number, err)
			continue
		}
		p.PublishAsync(ctx, e, func(_ event.Event, err error) { t.add(number, err) })
		if !a.showProduced(show, &t, read, size, began) {
			break
		}
	}
	scanErr := lines.Err()
	if errors.Is(scanErr, bufio.ErrTooLong) {
		scanErr = fmt.Errorf("line %d is longer than %d MiB", n+1, lineMost>>20)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	closeErr := p.Close(closing)
	show.clear()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.errs {
		a.say("%s", printable(e))
	}
	if more := t.failed - int64(len(t.errs)); more > 0 {
		a.say("… and %s more", plural(more, "error"))
	}
	a.say("published %s to %s in %s%s", plural(t.published, "event"), enc.topic, a.now().Sub(began).Round(time.Millisecond), map[bool]string{true: ", " + number(t.failed) + " failed"}[t.failed > 0])
	return produceResult(ctx, &t, enc.flags.format, errors.Join(scanErr, closeErr))
}

// showProduced shows how far it is, and reports whether there is any sense in going on.
func (a *app) showProduced(show *progress, t *tally, read, size int64, began time.Time) bool {
	t.mu.Lock()
	published, hopeless := t.published, t.hopeless
	t.mu.Unlock()
	rate := float64(published) / max(0.001, a.now().Sub(began).Seconds())
	if size > 0 {
		show.show("published %s events, %d %%, %s/s", number(published), 100*read/size, number(int64(rate)))
	} else {
		show.show("published %s events, %s/s", number(published), number(int64(rate)))
	}
	return !hopeless
}

func produceResult(ctx context.Context, t *tally, format string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case t.failed > 0 && t.published > 0:
		return hint(coded{fmt.Errorf("%s of %s failed", number(t.failed), plural(t.failed+t.published, "event")), codePartial}, nextAfter(t.causes, format)...)
	case t.failed > 0: // why stands above; the first cause decides the exit code
		return hint(coded{errors.New("nothing was published"), exitCode(t.causes[0])}, nextAfter(t.causes, format)...)
	}
	return err
}

// nextAfter is what to type after lines failed.
func nextAfter(causes []error, format string) []string {
	for _, c := range causes {
		if l, ok := errors.AsType[lineError](c); ok && l.hint != "" {
			return []string{l.hint}
		}
		if known := knownHints(c); known != nil {
			return known
		}
	}
	hints := []string{"correct the lines named above and publish them again"}
	if format == "avro" {
		hints = append(hints, "see the schema:  millrace schemas get SUBJECT")
	}
	return hints
}

// lineError is what is wrong with a line itself.
type lineError struct {
	text, hint string
}

func (e lineError) Error() string { return e.text }

// event makes an event of a line. The line's memory is not kept.
func (l *lineEncoder) event(text []byte) (event.Event, error) {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte(envelopeStart)) {
		return l.fromEnvelope(text)
	}
	text = bytes.Clone(text)
	if l.flags.format != "raw" && !json.Valid(text) {
		var v any
		err := json.Unmarshal(text, &v)
		return event.Event{}, lineError{text: fmt.Sprintf("no JSON: %s", err), hint: "lines as they are, whatever they hold, are published by  --format raw"}
	}
	key, err := l.keyOf(text)
	if err != nil {
		return event.Event{}, err
	}
	var e event.Event
	switch l.flags.format {
	case "avro":
		e = event.New(l.topic, key, schemas.Generic{Schema: l.schema, Data: json.RawMessage(text), Strict: true})
	case "json":
		e = event.New(l.topic, key, nil)
		e.Value, e.Type, e.ContentType = text, l.flags.typ, schemas.JSON().ContentType()
	default:
		e = event.New(l.topic, key, nil)
		e.Value, e.Type = text, l.flags.typ
	}
	e.Headers = l.headers
	return e, nil
}

// fromEnvelope makes the event that a line of tail -o jsonl holds: the same record. What had an id has it again, so
// whoever dedupes sees one event; what had none gets none.
func (l *lineEncoder) fromEnvelope(text []byte) (event.Event, error) {
	var env envelope
	if err := json.Unmarshal(text, &env); err != nil {
		return event.Event{}, lineError{text: fmt.Sprintf("no event: %s", err)}
	}
	if env.Millrace != 1 {
		return event.Event{}, lineError{text: fmt.Sprintf("the line has format %d, this millrace reads 1", env.Millrace), hint: "use a newer millrace"}
	}
	h := make(event.Headers, len(env.Headers), len(env.Headers)+len(l.headers))
	for i, x := range env.Headers {
		h[i] = event.Header{Key: string(x.Key), Value: x.Value.bytes()}
	}
	return event.Event{
		Meta:  event.Meta{Topic: l.topic, Key: env.Key.bytes(), Headers: append(h, l.headers...)},
		Value: env.Value.bytes(), Verbatim: true,
	}, nil
}

// keyOf is the key of a line: nil is the null key.
func (l *lineEncoder) keyOf(text []byte) ([]byte, error) {
	if l.flags.key != "" {
		return []byte(l.flags.key), nil
	}
	if l.flags.keyField == "" {
		return nil, nil
	}
	at := json.RawMessage(text)
	for name := range strings.SplitSeq(l.flags.keyField, ".") {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(at, &fields); err != nil {
			return nil, lineError{text: fmt.Sprintf("--key-field %s: there is no field %s, because its place holds no object", l.flags.keyField, name)}
		}
		var ok bool
		if at, ok = fields[name]; !ok {
			return nil, lineError{text: fmt.Sprintf("--key-field %s: the line has no field %s", l.flags.keyField, name)}
		}
	}
	var s string
	if err := json.Unmarshal(at, &s); err == nil && !bytes.Equal(at, []byte("null")) {
		return []byte(s), nil
	}
	switch at[0] {
	case '{', '[', 'n':
		return nil, lineError{text: fmt.Sprintf("--key-field %s: %s is no key: text, numbers and booleans are", l.flags.keyField, at)}
	}
	return at, nil // a number or a boolean, as it is written
}
