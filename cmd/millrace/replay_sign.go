package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/signature"
)

// signOriginal is --sign for the signature that a webhook came with.
const signOriginal = "original"

// came is what a replay needs of a webhook that came in, as its envelope holds it.
type came struct {
	Method  string       `avro:"method"`
	Query   string       `avro:"query"`
	ID      string       `avro:"id"`
	Headers []cameHeader `avro:"headers"`
	Body    []byte       `avro:"body"`
}

type cameHeader struct {
	Name  string `avro:"name"`
	Value string `avro:"value"`
}

// resigner makes the requests of a replay with --sign: a webhook that came in is sent with its own bytes and headers, any
// other event with its value, signed as a sender of the scheme would.
type resigner struct {
	app    *app
	reg    *schemas.Registry
	scheme *signature.Scheme // nil keeps the signature that is there
	keys   []signature.Key
}

// resigner is that of the spec.
func (r *replaying) resigner(reg *schemas.Registry) (*resigner, error) {
	s := &resigner{app: r.app, reg: reg}
	if r.spec.Sign == signOriginal {
		if len(r.spec.Secrets) > 0 {
			return nil, usage(errors.New("--sign original sends the signature that is there: leave out --secret"))
		}
		return s, nil
	}
	var err error
	if s.scheme, err = r.webhookScheme(r.spec.Sign); err != nil {
		return nil, err
	}
	s.keys, err = r.keys(s.scheme, keyFlags{secrets: r.spec.Secrets})
	return s, err
}

// request is a replay.HTTP's Request.
func (s *resigner) request(ctx context.Context, address string, e *event.Event) (*http.Request, error) {
	header := http.Header{}
	req := &signature.Request{Method: http.MethodPost, URL: address, Header: header, Body: e.Value}
	id := e.ID
	if e.Type == gateway.ReceivedName {
		var c came
		if err := s.reg.Decode(ctx, e, &c); err != nil {
			return nil, err
		}
		req.Method, req.Body = c.Method, c.Body
		for _, h := range c.Headers {
			header.Add(h.Name, h.Value)
		}
		if c.ID != "" {
			id = c.ID
		}
		if c.Query != "" && !strings.Contains(address, "?") {
			req.URL += "?" + c.Query
		}
	} else if s.scheme == nil {
		return nil, fmt.Errorf("%s/%d@%d is no webhook that came in: it has no signature; name a scheme with --sign", e.Topic, e.Partition, e.Offset)
	} else if e.ContentType != "" {
		header.Set("Content-Type", e.ContentType)
	}
	if s.scheme != nil {
		var err error
		if len(s.scheme.ID) == 0 && len(s.scheme.Dedupe.Headers) > 0 && header.Get(s.scheme.Dedupe.Headers[0]) == "" {
			header.Set(s.scheme.Dedupe.Headers[0], id)
		}
		if req, err = s.scheme.Sign(req, s.keys, id, s.app.now()); err != nil {
			return nil, err
		}
	}
	out, err := http.NewRequestWithContext(ctx, req.Method, req.URL, bytes.NewReader(req.Body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	out.Header = req.Header
	return out, nil
}
