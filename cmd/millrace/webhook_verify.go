package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/signature"
)

// errUnverified is the exit code of a request that does not verify: why was printed as data.
var errUnverified = coded{errSaid, codeFailed}

func (a *app) webhookSignCommand() *cobra.Command {
	var f requestFlags
	cmd := &cobra.Command{
		Use: "sign SCHEME", Short: "Print a request as its sender would sign it",
		Long: `Print a request as its sender would sign it: an HTTP message, which millrace webhook verify reads, or with -o json a
document. With several keys each signs where the scheme takes several signatures, else the first alone.`,
		Example: `  millrace webhook sign stripe --secret env:STRIPE_SECRET --body event.json
  millrace webhook sign twilio --secret file:key.txt --body event.json --url https://hooks.example.com/in/twilio -o json
  millrace webhook sign acme.yaml --secret env:STRIPE_SECRET --body event.json --header X-Event=paid`,
		Args: names("one scheme", 1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.formats("table", "raw", "json"); err != nil {
				return err
			}
			if f.url == "" {
				f.url = "https://localhost/"
			}
			req, _, err := a.signedRequest(args[0], f.url, f)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return writeJSON(a.out, newMessageDoc(req), "  ")
			}
			return writeMessage(a.out, req)
		},
	}
	f.add(cmd.Flags(), "the public `URL` that the sender was given. Defaults to https://localhost/")
	return cmd
}

type verifyFlags struct {
	keyFlags

	request, url, at, certificate string
}

func (a *app) webhookVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use: "verify SCHEME", Short: "Say whether a request verifies, and if not, why",
		Long: `Say whether a request verifies, and if not, why: what the sender, or something on the way, probably did. What is
proved verifies once it is undone; the rest is a guess.

The request is an HTTP message: its first line, its headers, an empty line, and the body's bytes as they came. The exit
code is 0 for a request that verifies and 1 for one that does not.`,
		Example: `  millrace webhook sign stripe --secret env:STRIPE_SECRET --body event.json | millrace webhook verify stripe --secret env:STRIPE_SECRET
  millrace webhook verify stripe --secret env:STRIPE_SECRET --request captured.http --at 2026-11-24T09:00:00Z`,
		Args: names("one scheme", 1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return a.webhookVerify(args[0], f) },
	}
	fs := cmd.Flags()
	f.add(fs)
	fs.StringVarP(&f.request, "request", "r", "-", "the `file` of the request; - is stdin")
	fs.StringVar(&f.url, "url", "", "the public `URL` that the sender was given. Defaults to https and the request's Host and path")
	fs.StringVar(&f.at, "at", "", "verify as at this `time`, RFC 3339. Defaults to now")
	fs.StringVar(&f.certificate, "certificate", "", "the `file` of the sender's certificate and those between it and a root, in PEM, for paypal and sns")
	return cmd
}

// verdictDoc is a verdict as a document.
type verdictDoc struct {
	Millrace int                 `json:"millrace"`
	Scheme   string              `json:"scheme"`
	Verified bool                `json:"verified"`
	Key      int                 `json:"key,omitempty"` // which of the keys, from 1
	Label    string              `json:"label,omitempty"`
	Time     *time.Time          `json:"time,omitempty"`
	ID       string              `json:"id,omitempty"`
	Reason   signature.Reason    `json:"reason,omitempty"`
	Findings []signature.Finding `json:"findings,omitempty"`
}

func (a *app) webhookVerify(scheme string, f verifyFlags) error {
	if err := a.formats("table", "json"); err != nil {
		return err
	}
	if f.stdin && f.request == "-" {
		return usage(errors.New("the key and the request cannot both come from stdin: name a file with --request"))
	}
	s, err := a.webhookScheme(scheme)
	if err != nil {
		return err
	}
	keys, err := a.keys(s, f.keyFlags)
	if err != nil {
		return err
	}
	now, err := a.instant(f.at)
	if err != nil {
		return err
	}
	text, err := a.readAll("the request", f.request)
	if err != nil {
		return err
	}
	req, err := readMessage(text, f.url)
	if err != nil {
		return usage(fmt.Errorf("read the request: %w", err))
	}
	if !bytes.HasSuffix(text, req.Body) {
		a.say("the body is cut at its Content-Length of %d bytes: more follows", len(req.Body))
	}
	if f.certificate != "" {
		pem, err := a.readAll("the certificate", f.certificate)
		if err != nil {
			return err
		}
		if req.Chain, err = signature.ParseChain(pem, nil); err != nil {
			return usage(err)
		}
	}
	doc := verdictDoc{Millrace: 1, Scheme: s.Name}
	v, err := s.Verify(req, keys, now)
	if err == nil {
		doc.Verified, doc.Key, doc.Label, doc.ID = true, v.Key+1, v.Label, s.Identify(req).ID
		if !v.Time.IsZero() {
			at := v.Time.UTC()
			doc.Time = &at
		}
	} else if e, ok := errors.AsType[*signature.Error](err); ok {
		doc.Reason, doc.Findings = e.Reason, s.Explain(req, keys, now)
	}
	return a.printVerdict(doc, len(keys), now)
}

func (a *app) printVerdict(doc verdictDoc, keys int, now time.Time) error {
	if a.output == "json" {
		if err := writeJSON(a.out, doc, "  "); err != nil {
			return err
		}
	} else {
		fmt.Fprint(a.out, verdictText(doc, keys, now))
	}
	if !doc.Verified {
		return errUnverified
	}
	return nil
}

func verdictText(doc verdictDoc, keys int, now time.Time) string {
	var b strings.Builder
	if doc.Verified {
		fmt.Fprintf(&b, "verified as %s by key %d of %d", doc.Scheme, doc.Key, keys)
		if doc.Time != nil {
			fmt.Fprintf(&b, ", signed at %s (%s ago)", doc.Time.Format(time.RFC3339), age(now.Sub(*doc.Time)))
		}
		if doc.ID != "" {
			fmt.Fprintf(&b, ", id %s", printable(doc.ID))
		}
		b.WriteByte('\n')
		return b.String()
	}
	fmt.Fprintf(&b, "not verified as %s: %s\n", doc.Scheme, doc.Reason)
	for _, f := range doc.Findings {
		how := "guess "
		if f.Proved {
			how = "proved"
		}
		fmt.Fprintf(&b, "  %s  %s: %s\n", how, f.Code, printable(f.Text))
	}
	return b.String()
}
