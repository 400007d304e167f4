package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/millrace/millrace/signature"
)

// bodyMost is the longest webhook that is read, in bytes: far above what a receiver takes.
const bodyMost = 32 << 20

func (a *app) webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Webhooks: sign, verify and send one as its sender would",
		Long: `Webhooks: sign, verify and send one as its sender would. No cluster is needed.

A scheme is a sender's name, or a file of your own (YAML or JSON: it has a dot in its name). The names:
  ` + strings.Join(wrapped(signature.Names(), 76), "\n  ") + `

Keys are never typed: --secret env:NAME or file:PATH, several for a key that rolls, or --secret-from-stdin.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.webhookSignCommand(), a.webhookVerifyCommand(), a.webhookSendCommand())
	return cmd
}

// wrapped joins words to lines of at most width bytes.
func wrapped(words []string, width int) []string {
	lines := []string{""}
	for _, w := range words {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = w
		case len(*last)+1+len(w) <= width:
			*last += " " + w
		default:
			lines = append(lines, w)
		}
	}
	return lines
}

// keyFlags are where keys come from.
type keyFlags struct {
	secrets []string
	stdin   bool
}

func (f *keyFlags) add(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.secrets, "secret", nil, "where a key is: env:`NAME` or file:PATH; may be repeated")
	fs.BoolVar(&f.stdin, "secret-from-stdin", false, "read the key from stdin, one line")
}

// requestFlags describe a request that is to be made.
type requestFlags struct {
	keyFlags

	body, url, method, id, at string
	headers                   []string
}

func (f *requestFlags) add(fs *pflag.FlagSet, urlUsage string) {
	f.keyFlags.add(fs)
	fs.StringVarP(&f.body, "body", "f", "-", "the `file` of the body, signed byte by byte; - is stdin")
	fs.StringVar(&f.url, "url", "", urlUsage)
	fs.StringVar(&f.method, "method", http.MethodPost, "the HTTP `method`")
	fs.StringArrayVar(&f.headers, "header", nil, "add a header, `name=value`; may be repeated")
	fs.StringVar(&f.id, "id", "", "the message's `id`, the same for a repeat. Defaults to a new one")
	fs.StringVar(&f.at, "at", "", "sign at this `time`, RFC 3339. Defaults to now")
}

// webhookScheme is a known scheme, or one in a file.
func (a *app) webhookScheme(name string) (*signature.Scheme, error) {
	if !strings.ContainsAny(name, "./\\") {
		s, ok := signature.Lookup(name)
		if !ok {
			return nil, hint(usage(fmt.Errorf("there is no scheme %q", name)), "see which there are:  millrace webhook --help")
		}
		return s, nil
	}
	src, err := os.ReadFile(a.path(name))
	if err != nil {
		return nil, usage(fmt.Errorf("read the scheme: %w", err))
	}
	if filepath.Ext(name) == ".json" {
		s, err := signature.ParseScheme(src)
		if err != nil {
			return nil, usage(err)
		}
		return s, nil
	}
	s := &signature.Scheme{}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	dec.KnownFields(true)
	if err := dec.Decode(s); err != nil {
		return nil, usage(fmt.Errorf("read the scheme %s: %w", name, err))
	}
	if err := s.Validate(); err != nil {
		return nil, usage(err)
	}
	return s, nil
}

// keys reads the keys of a scheme.
func (a *app) keys(s *signature.Scheme, f keyFlags) ([]signature.Key, error) {
	if len(f.secrets) == 0 && !f.stdin {
		return nil, usage(errors.New("there is no key: --secret env:NAME, --secret file:PATH or --secret-from-stdin"))
	}
	var texts []string
	for _, from := range f.secrets {
		text, err := a.secretText(from)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	if f.stdin {
		src, err := io.ReadAll(io.LimitReader(a.in, 64<<10))
		if err != nil {
			return nil, fmt.Errorf("read the key from stdin: %w", err)
		}
		texts = append(texts, strings.TrimRight(string(src), "\r\n"))
	}
	var keys []signature.Key
	for _, text := range texts {
		k, err := s.ParseKey(text)
		if err != nil {
			return nil, usage(err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// secretText reads env:NAME or file:PATH. Text that is neither may be the secret: it is not repeated.
func (a *app) secretText(from string) (string, error) {
	kind, name, ok := reference(from)
	switch {
	case !ok || name == "":
		return "", usage(errors.New("--secret is env:NAME or file:PATH: a key on the command line is in the shell's history and in the list of processes"))
	case kind == "env":
		text := a.getenv(name)
		if text == "" {
			return "", usage(fmt.Errorf("the variable %s, which holds the key, is not set", name))
		}
		return text, nil
	}
	path := a.path(name)
	if err := private(path); err != nil {
		return "", err
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return "", usage(fmt.Errorf("read the key: %w", err))
	}
	return strings.TrimRight(string(src), "\r\n"), nil
}

// instant is the time of --at, or now.
func (a *app) instant(text string) (time.Time, error) {
	if text == "" {
		return a.now(), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usage(fmt.Errorf("--at %q: write it as 2026-11-24T09:00:00Z", text))
	}
	return at, nil
}

// readAll reads a file, or stdin, up to its limit.
func (a *app) readAll(what, from string) ([]byte, error) {
	in := a.in
	if from != "-" {
		f, err := os.Open(a.path(from))
		if err != nil {
			return nil, usage(fmt.Errorf("read %s: %w", what, err))
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, bodyMost+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if len(text) > bodyMost {
		return nil, usage(fmt.Errorf("%s is longer than %d MiB", what, bodyMost>>20))
	}
	return text, nil
}

// signedRequest makes a request for target as the scheme's sender would.
func (a *app) signedRequest(scheme, target string, f requestFlags) (*signature.Request, *signature.Scheme, error) {
	if f.stdin && f.body == "-" {
		return nil, nil, usage(errors.New("the key and the body cannot both come from stdin: name a file with --body"))
	}
	s, err := a.webhookScheme(scheme)
	if err != nil {
		return nil, nil, err
	}
	keys, err := a.keys(s, f.keyFlags)
	if err != nil {
		return nil, nil, err
	}
	at, err := a.instant(f.at)
	if err != nil {
		return nil, nil, err
	}
	body, err := a.readAll("the body", f.body)
	if err != nil {
		return nil, nil, err
	}
	id := f.id
	if id == "" {
		id = "msg_" + rand.Text()
	}
	header, err := webhookHeader(s, f.headers, body, id)
	if err != nil {
		return nil, nil, err
	}
	req := &signature.Request{Method: strings.ToUpper(f.method), URL: target, Header: header, Body: body}
	if req, err = s.Sign(req, keys, id, at); err != nil {
		return nil, nil, usage(err)
	}
	return req, s, nil
}

// webhookHeader is what the sender puts beside the signature: the body's type, and the id where it is not signed.
func webhookHeader(s *signature.Scheme, flags []string, body []byte, id string) (http.Header, error) {
	h := http.Header{}
	for _, text := range flags {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || strings.ContainsAny(text, "\r\n") {
			return nil, usage(fmt.Errorf("--header %q: write name=value", text))
		}
		h.Add(name, value)
	}
	if h.Get("Content-Type") == "" {
		kind := "application/json"
		if first := bytes.TrimSpace(body); len(first) > 0 && !bytes.ContainsAny(first[:1], `{["`) {
			kind = "application/x-www-form-urlencoded"
		}
		h.Set("Content-Type", kind)
	}
	if len(s.ID) == 0 && len(s.Dedupe.Headers) > 0 && h.Get(s.Dedupe.Headers[0]) == "" {
		h.Set(s.Dedupe.Headers[0], id)
	}
	return h, nil
}
