package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// template is a parsed [Scheme.Signed].
type template struct {
	text  string
	parts []part
}

// part is literal text, or the name of a placeholder.
type part struct{ literal, name string }

// placeholders are the names that a template knows.
func placeholders() []string {
	return []string{"body", "bodysha256", "bodycrc32", "ts", "id", "method", "url", "urldecoded", "params", "secret"}
}

// parseTemplate reads text with {placeholders}, where {{ and }} are braces.
func parseTemplate(text string, names []string) (*template, error) {
	t := &template{text: text}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t.parts = append(t.parts, part{literal: literal.String()})
			literal.Reset()
		}
	}
	for rest := text; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			literal.WriteByte(rest[0])
			rest = rest[2:]
		case rest[0] == '}':
			return nil, errors.New("a } without its {: write }} for a brace")
		case rest[0] == '{':
			name, after, ok := strings.Cut(rest[1:], "}")
			if !ok {
				return nil, errors.New("a { without its }: write {{ for a brace")
			}
			if !slices.Contains(names, name) {
				return nil, fmt.Errorf("there is no placeholder {%s}: there are {%s}", name, strings.Join(names, "} {"))
			}
			flush()
			t.parts = append(t.parts, part{name: name})
			rest = after
		default:
			literal.WriteByte(rest[0])
			rest = rest[1:]
		}
	}
	flush()
	return t, nil
}

// has reports whether the template uses any of names.
func (t *template) has(names ...string) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.name != "" && slices.Contains(names, p.name) })
}

// input is what the placeholders of one request stand for.
type input struct {
	body                []byte
	ts, id, method, url string
	params              string
}

// write hashes the signed bytes. Short parts are gathered; the body is hashed where it lies.
func (t *template) write(m *mac, in *input, secret []byte) {
	for _, p := range t.parts {
		if p.name == "body" {
			if len(m.buf) > 0 {
				_, _ = m.Write(m.buf) // a hash never fails
				m.buf = m.buf[:0]
			}
			_, _ = m.Write(in.body)
			continue
		}
		m.buf = p.append(m.buf, in, secret)
	}
	if len(m.buf) > 0 {
		_, _ = m.Write(m.buf)
		m.buf = m.buf[:0]
	}
}

// bytes returns the signed bytes.
func (t *template) bytes(in *input, secret []byte) []byte {
	b := make([]byte, 0, len(in.body)+len(in.url)+len(in.params)+128)
	for _, p := range t.parts {
		b = p.append(b, in, secret)
	}
	return b
}

func (p part) append(b []byte, in *input, secret []byte) []byte {
	switch p.name {
	case "":
		return append(b, p.literal...)
	case "body":
		return append(b, in.body...)
	case "bodysha256":
		sum := sha256.Sum256(in.body)
		return hex.AppendEncode(b, sum[:])
	case "bodycrc32":
		return strconv.AppendUint(b, uint64(crc32.ChecksumIEEE(in.body)), 10)
	case "ts":
		return append(b, in.ts...)
	case "id":
		return append(b, in.id...)
	case "method":
		return append(b, in.method...)
	case "url":
		return append(b, in.url...)
	case "urldecoded":
		return append(b, hubspotURL(in.url)...)
	case "params":
		return append(b, in.params...)
	case "secret":
		return append(b, secret...)
	}
	return b
}

// hubspotURL decodes the twelve percent-escapes that HubSpot's table for version 3 lists, and no others.
func hubspotURL(u string) string {
	if !strings.Contains(u, "%") {
		return u
	}
	pairs := make([]string, 0, 48)
	for _, c := range ":/?@!$'()*,;" {
		escape := fmt.Sprintf("%%%02X", c)
		pairs = append(pairs, escape, string(c), strings.ToLower(escape), string(c))
	}
	return strings.NewReplacer(pairs...).Replace(u)
}

// formParams is what Twilio signs of a form: name and value of each field, sorted by name; of several values of one
// name each different one, sorted. Sorting name and value as one text would put ReasonX before Reason.
func formParams(body []byte) (string, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return "", errors.New("the body is no form")
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		slices.Sort(values[name])
		for _, v := range slices.Compact(values[name]) {
			b.WriteString(name)
			b.WriteString(v)
		}
	}
	return b.String(), nil
}

// portVariants are the spellings of a URL that Twilio may have signed: as given, with the default port, without a port.
func portVariants(raw string) []string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return []string{raw}
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host, tail := rest[:end], rest[end:]
	port := map[string]string{"https": ":443", "http": ":80"}[scheme]
	variants := []string{raw}
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		variants = append(variants, scheme+"://"+host[:colon]+tail)
	} else if port != "" {
		variants = append(variants, scheme+"://"+host+port+tail)
	}
	return variants
}
