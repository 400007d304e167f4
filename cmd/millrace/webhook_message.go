package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/signature"
)

// writeMessage writes a request as HTTP/1.1 does.
func writeMessage(w io.Writer, req *signature.Request) error {
	host, target := "", req.URL
	if u, err := url.Parse(req.URL); err == nil {
		host, target = u.Host, u.RequestURI()
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, target, host)
	for _, name := range slices.Sorted(maps.Keys(req.Header)) {
		for _, v := range req.Header[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(req.Body))
	b.Write(req.Body)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// readMessage reads a request as HTTP/1.1 writes it, with either line's end. The body is what follows the empty line, up
// to Content-Length where that is there and less. public is the URL that the sender was given; without one it is https
// on the message's own host.
func readMessage(text []byte, public string) (*signature.Request, error) {
	r := bufio.NewReader(bytes.NewReader(text))
	line, err := r.ReadString('\n')
	method, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	target, version, ok := strings.Cut(rest, " ")
	if err != nil || !ok || !strings.HasPrefix(version, "HTTP/") {
		return nil, errors.New("it does not begin with a line like: POST /in/stripe HTTP/1.1")
	}
	header, err := textproto.NewReader(r).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("its headers end without an empty line, or one is no name: value (%w)", err)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(header.Get("Transfer-Encoding"), "chunked") {
		return nil, errors.New("its body is in chunks: save the bytes of the body, without their sizes")
	}
	if n, err := strconv.Atoi(header.Get("Content-Length")); err == nil && n >= 0 && n < len(body) {
		body = body[:n]
	}
	if public == "" {
		public = target
		if strings.HasPrefix(target, "/") {
			public = "https://" + header.Get("Host") + target
		}
	}
	return &signature.Request{Method: method, URL: public, Header: header, Body: body}, nil
}

// messageDoc is a request as a document.
type messageDoc struct {
	Millrace   int                 `json:"millrace"`
	Method     string              `json:"method"`
	URL        string              `json:"url"`
	Headers    map[string][]string `json:"headers"`
	Body       string              `json:"body"`
	BodyBase64 string              `json:"body_base64,omitempty"` // in place of body, where that is no UTF-8
}

func newMessageDoc(req *signature.Request) messageDoc {
	d := messageDoc{Millrace: 1, Method: req.Method, URL: req.URL, Headers: req.Header}
	if utf8.Valid(req.Body) {
		d.Body = string(req.Body)
	} else {
		d.BodyBase64 = base64.StdEncoding.EncodeToString(req.Body)
	}
	return d
}
