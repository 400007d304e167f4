package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/signature"
)

type tryFlags struct {
	sourcesFlags

	url, body string
	timeout   time.Duration
}

func (a *app) sourcesTestCommand() *cobra.Command {
	var f tryFlags
	cmd := &cobra.Command{
		Use: "test NAME", Short: "Send a signed sample to the gateway, and show what came of it in Kafka",
		Long: `Send a sample to the gateway as the source's sender would, signed with the source's newest secret, and show what came of
it: the answer, the record with the bytes as they were sent, and the typed events that were made of it.

The sample is a real event of the source: name a --body that your consumers know to skip. Without one it is a JSON object
with a new id, of the type millrace.test. Exits 0 when the record is in its topic, and 1 otherwise.`,
		Example: `  millrace sources test acme --url http://localhost:8085
  millrace sources test acme --url http://localhost:8085 --body event.json`,
		Args: names("one source", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.sourcesTest(cmd.Context(), args[0], f) },
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&f.url, "url", "http://127.0.0.1:8085", "where the gateway listens")
	cmd.Flags().StringVarP(&f.body, "body", "f", "", "the `file` of the body; - is stdin")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "how long the answer, and then the record, are waited for")
	return cmd
}

// tryDoc is what came of a sample.
type tryDoc struct {
	Millrace  int            `json:"millrace"`
	Source    string         `json:"source"`
	URL       string         `json:"url"`
	Status    int            `json:"status"`
	Seconds   float64        `json:"seconds"`
	Answer    string         `json:"answer"`
	RequestID string         `json:"request_id"` // in the gateway's log
	Record    *publishedDoc  `json:"record,omitempty"`
	Events    []publishedDoc `json:"events"`
}

type publishedDoc struct {
	Type  string `json:"type"`
	Place string `json:"place"` // topic/partition@offset
	Key   string `json:"key"`
	ID    string `json:"id"`
}

func (a *app) sourcesTest(ctx context.Context, name string, f tryFlags) error {
	if err := a.formats("table", "json"); err != nil {
		return err
	}
	sources, _, err := a.loadSources(ctx, f.sourcesFlags, false)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(sources, func(s *gateway.Source) bool { return s.Name == name })
	if i < 0 {
		return hint(usage(fmt.Errorf("there is no source %s in %s", name, f.dir)), "see which there are:  millrace sources ls")
	}
	s := sources[i]
	c, err := a.cluster(ctx)
	if err != nil {
		return err
	}
	id := "millrace-test-" + rand.Text()
	body := fmt.Appendf(nil, `{"id":%q,"type":"millrace.test","created":%q}`, id, a.now().UTC().Format(time.RFC3339))
	if f.body != "" {
		if body, err = a.readAll("the body", f.body); err != nil {
			return err
		}
	}
	req, target, err := a.sample(s, f, body, id)
	if err != nil {
		return err
	}
	began := time.Now().Add(-time.Second) // clocks of brokers and ours
	sent, err := deliver(ctx, target, req, f.timeout)
	if err != nil {
		return err
	}
	doc := tryDoc{Millrace: 1, Source: name, URL: target, Status: sent.Status, Seconds: sent.Seconds, Answer: strings.TrimSpace(sent.Body), RequestID: sent.RequestID, Events: []publishedDoc{}}
	if sent.Status/100 == 2 {
		if err := lookUp(ctx, c, s, body, began, f.timeout, &doc); err != nil {
			return err
		}
	}
	if a.output == "json" {
		err = writeJSON(a.out, doc, "  ")
	} else {
		a.printTry(doc, s)
	}
	if err == nil && doc.Record == nil {
		return errUnverified
	}
	return err
}

// sample is the request that the source's sender would make.
func (a *app) sample(s *gateway.Source, f tryFlags, body []byte, id string) (req *signature.Request, target string, err error) {
	target = strings.TrimSuffix(f.url, "/") + s.Path()
	if !strings.HasPrefix(target, "http://") && !strings.HasPrefix(target, "https://") {
		return nil, "", usage(fmt.Errorf("--url %q: write it as http://localhost:8085", f.url))
	}
	public := s.PublicURL
	if public == "" {
		public = target
	}
	scheme := s.Scheme
	if scheme == nil {
		scheme = &signature.Scheme{}
	}
	header, err := webhookHeader(scheme, nil, body, id)
	if err != nil {
		return nil, "", err
	}
	req = &signature.Request{Method: http.MethodPost, URL: public, Header: header, Body: body}
	if s.Scheme == nil {
		return req, target, nil
	}
	if req, err = s.Scheme.Sign(req, s.Keys[:1], id, a.now()); err != nil {
		return nil, "", hint(usage(err), "have the sender itself send a test")
	}
	if _, query, ok := strings.Cut(req.URL, "?"); ok && req.URL != public { // the scheme put the body's hash there
		target += "?" + query
	}
	return req, target, nil
}

// lookUp finds the record of the sample, which was acknowledged, and the events that were made of it.
func lookUp(ctx context.Context, c kafka.Cluster, s *gateway.Source, body []byte, since time.Time, wait time.Duration, doc *tryDoc) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	read := []string{s.Topic}
	for _, e := range s.Events {
		read = append(read, e.Topic)
	}
	slices.Sort(read)
	r, err := reader.Open(ctx, c, reader.Config{Topics: slices.Compact(read), Range: position.Range{From: position.Point{Kind: position.Time, At: since.UTC()}}, Log: c.Log})
	if err != nil {
		return err
	}
	type effect struct {
		cause string
		doc   publishedDoc
	}
	var effects []effect
	for e, err := range r.Events(ctx) {
		if err != nil {
			return err
		}
		p := publishedDoc{e.Type, fmt.Sprintf("%s/%d@%d", e.Topic, e.Partition, e.Offset), string(e.Key), e.ID}
		if e.Topic == s.Topic && e.Type == gateway.ReceivedName && bytes.Contains(e.Value, body) {
			doc.Record = &p
		} else if cause := e.Headers.Get(event.HeaderCause); cause != nil {
			effects = append(effects, effect{string(cause), p})
		}
	}
	if doc.Record == nil {
		return errors.Join(ctx.Err(), hint(fmt.Errorf("the gateway took the sample, and its record is not in %s: a repeat, perhaps, or another cluster", s.Topic), "see what the gateway counted:  millrace sources ls --gateway host:port"))
	}
	for _, e := range effects {
		if e.cause == doc.Record.ID {
			doc.Events = append(doc.Events, e.doc)
		}
	}
	return nil
}

func (a *app) printTry(d tryDoc, s *gateway.Source) {
	fmt.Fprintf(a.out, "%d %s  %.0f ms  %s  request %s\n", d.Status, http.StatusText(d.Status), d.Seconds*1000, printable(d.Answer), printable(d.RequestID))
	if d.Record == nil {
		return
	}
	for _, p := range append([]publishedDoc{*d.Record}, d.Events...) {
		fmt.Fprintf(a.out, "  %s  %s  key %s  id %s\n", printable(p.Place), printable(p.Type), orDash(printable(p.Key)), printable(p.ID))
	}
	if len(s.Events) > 0 && len(d.Events) == 0 {
		fmt.Fprintf(a.out, "  no typed event: the sample is none that the mapping is about, or it is in %s.gateway.dlq\n", s.Topic)
	}
}
