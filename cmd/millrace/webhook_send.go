package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/signature"
)

const (
	answerMost   = 64 << 10         // bytes of an answer that are read
	answerWait   = 10 * time.Second // for senders of whom nobody knows how long they wait
	answerLonger = 5 * time.Minute  // the longest wait of --timeout
)

type sendFlags struct {
	requestFlags

	timeout time.Duration
}

func (a *app) webhookSendCommand() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use: "send SCHEME URL", Short: "Send a request as its sender would",
		Long: `Send a request as its sender would: signed, once, and for as long as that sender waits for the answer. Redirects are
not followed. The answer is printed; the exit code is 0 for a 2xx and 1 for anything else. The same --id and --body sent
again are a repeat of the same event.`,
		Example: `  millrace webhook send stripe http://localhost:8080/in/stripe --secret env:STRIPE_SECRET --body event.json
  millrace webhook send github http://localhost:8080/in/github --secret file:key.txt --body event.json --header X-GitHub-Event=push --id 72d3162e`,
		Args: names("a scheme and a URL", 2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.webhookSend(cmd.Context(), args[0], args[1], f)
		},
	}
	f.add(cmd.Flags(), "sign for this public `URL`, where the scheme signs it. Defaults to URL")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "how long to wait for the answer. Defaults to how long the sender does, or 10s")
	return cmd
}

// sentDoc is an answer as a document.
type sentDoc struct {
	Millrace int     `json:"millrace"`
	URL      string  `json:"url"`
	Status   int     `json:"status"`
	Seconds  float64 `json:"seconds"`
	Retry    string  `json:"retry_after,omitempty"` // as the receiver wrote it
	Body     string  `json:"body"`                  // at most 64 KiB
	// RequestID ties the answer to a line of the receiver's log, where it says so.
	RequestID string `json:"request_id,omitempty"`
}

func (a *app) webhookSend(ctx context.Context, scheme, to string, f sendFlags) error {
	if err := a.formats("table", "json"); err != nil {
		return err
	}
	target, err := url.Parse(to)
	if err != nil || target.Host == "" || !slices.Contains([]string{"http", "https"}, target.Scheme) {
		return usage(fmt.Errorf("%q is no URL like http://localhost:8080/in/stripe", to))
	}
	if f.timeout < 0 || f.timeout > answerLonger {
		return usage(fmt.Errorf("--timeout %s: up to %s", f.timeout, answerLonger))
	}
	public := f.url
	if public == "" {
		public = to
	}
	req, s, err := a.signedRequest(scheme, public, f.requestFlags)
	if err != nil {
		return err
	}
	if _, query, ok := strings.Cut(req.URL, "?"); ok && req.URL != public { // the scheme put the body's hash there
		target.RawQuery = query
	}
	if f.timeout == 0 {
		f.timeout = time.Duration(s.Sender.Deadline)
	}
	if f.timeout == 0 {
		f.timeout = answerWait
	}
	doc, err := deliver(ctx, target.String(), req, f.timeout)
	if err != nil {
		return err
	}
	if a.output == "json" {
		if err := writeJSON(a.out, doc, "  "); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "%d %s  %.0f ms\n", doc.Status, http.StatusText(doc.Status), doc.Seconds*1000)
		for line := range strings.Lines(doc.Body) {
			fmt.Fprintln(a.out, printable(strings.TrimRight(line, "\r\n")))
		}
	}
	if doc.Status/100 != 2 {
		return errUnverified
	}
	return nil
}

// deliver sends the request once.
func deliver(ctx context.Context, to string, req *signature.Request, wait time.Duration) (sentDoc, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, req.Method, to, bytes.NewReader(req.Body))
	if err != nil {
		return sentDoc{}, usage(err)
	}
	out.Header = req.Header
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	began := time.Now()
	resp, err := client.Do(out)
	if errors.Is(err, context.DeadlineExceeded) {
		return sentDoc{}, hint(fmt.Errorf("%s gave no answer in %s", to, wait), "the sender would give up here too; to wait longer: --timeout 1m")
	}
	if err != nil {
		return sentDoc{}, hint(fmt.Errorf("send: %w", err), "does something listen there?  curl -v "+to)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	if err != nil {
		return sentDoc{}, fmt.Errorf("read the answer: %w", err)
	}
	return sentDoc{
		Millrace: 1, URL: to, Status: resp.StatusCode, Seconds: time.Since(began).Seconds(),
		Retry: resp.Header.Get("Retry-After"), Body: string(body), RequestID: resp.Header.Get("X-Request-Id"),
	}, nil
}
