package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/millrace/millrace/schemas"
)

// secretList reads where secrets are: never what they are.
func (p *parser) secretList(k, v *yaml.Node) []secretSpec {
	var out []secretSpec
	items := []*yaml.Node{v}
	if v.Kind == yaml.SequenceNode {
		items = p.items(v, "")
	}
	if len(items) > maxKeys {
		p.flaw(v, "%s has %d entries: at most %d", k.Value, len(items), maxKeys)
		return nil
	}
	for _, n := range items {
		s := secretSpec{node: n}
		from := n
		if n.Kind == yaml.MappingNode {
			from = nil
			p.mapping(n, "", func(key, val *yaml.Node) {
				switch key.Value {
				case "from":
					from = val
				case "until":
					t, err := time.Parse(time.RFC3339, p.text(key, val))
					if err != nil {
						p.flaw(val, "until is no time: write 2026-12-01T00:00:00Z")
					}
					s.until = t
				default:
					p.flaw(key, "unknown field %q: allowed are from and until", clip(key.Value))
				}
			})
			if from == nil {
				p.flaw(n, "from is missing: env:NAME or file:PATH")
				continue
			}
		}
		s.from, s.text = from.Value, p.secret(k, from)
		out = append(out, s)
	}
	return out
}

// secret reads one. Its text is in no error.
func (p *parser) secret(k, n *yaml.Node) string {
	ref := p.text(k, n)
	kind, name, _ := strings.Cut(ref, ":")
	var text string
	switch {
	case ref == "":
		return ""
	case kind == "env" && name != "":
		text = p.folder.Getenv(name)
		fmt.Fprintf(p.seen, "%d %s", len(text), text)
		if text == "" && !p.folder.Lenient {
			p.flaw(n, "the variable %s is empty", name)
		}
	case kind == "file" && name != "":
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.folder.Dir, name)
		}
		b, err := p.read(func() (io.ReadCloser, error) { return os.Open(name) }, maxSecret)
		switch {
		case err != nil && p.folder.Lenient:
			return ""
		case err != nil:
			p.flaw(n, "read the secret: %v", err)
			return ""
		}
		if text = strings.TrimRight(string(b), "\r\n"); text == "" && !p.folder.Lenient {
			p.flaw(n, "the file %s is empty", name)
		}
	default:
		p.flaw(n, "%s: write env:NAME or file:PATH; a secret does not stand in this file", k.Value)
	}
	return text
}

func (p *parser) publicURL(k, v *yaml.Node) string {
	text := p.text(k, v)
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		p.flaw(v, "public_url is %q: write what the sender was given, such as https://hooks.example.com/in/stripe", clip(text))
	}
	return text
}

var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

func (p *parser) topic(k, v *yaml.Node) string {
	t := p.text(k, v)
	if !topicName.MatchString(t) && t != "" {
		p.flaw(v, "topic is %q: up to 249 of A-Z a-z 0-9 . _ - are allowed", clip(t))
	}
	return t
}

func (p *parser) pick(k, v *yaml.Node) Pick {
	var header, path string
	p.mapping(v, k.Value+" is {json: data.object.id} or {header: X-Shop}", func(key, val *yaml.Node) {
		switch key.Value {
		case "header":
			header = p.text(key, val)
		case "json":
			path = p.text(key, val)
		default:
			p.flaw(key, "unknown field %q: allowed are json and header", clip(key.Value))
		}
	})
	if header != "" && path != "" {
		p.flaw(v, "%s is both a header and a path: one of them", k.Value)
	}
	out, err := newPick(header, path)
	if err != nil {
		p.flaw(v, "%s: %v", k.Value, err)
	}
	return out
}

// mapped reads a typed event.
func (p *parser) mapped(ctx context.Context, n *yaml.Node) *Mapped {
	m := mappedSpec{fields: map[string]string{}}
	before := len(p.errs)
	p.mapping(n, "event is fields with values: type, topic, fields", func(k, v *yaml.Node) {
		switch k.Value {
		case "type":
			m.kind = p.text(k, v)
		case "topic":
			m.topic = p.topic(k, v)
		case "subject":
			m.subject = p.text(k, v)
		case "when":
			m.when = p.text(k, v)
		case "key":
			m.key = p.text(k, v)
		case "fields":
			p.mapping(v, "fields is the record's fields with an expression each, such as order_id: value.data.id", func(k, v *yaml.Node) {
				m.fields[k.Value] = p.text(k, v)
			})
		default:
			p.flaw(k, "unknown field %q: allowed are type, topic, subject, when, key, fields", clip(k.Value))
		}
	})
	if len(p.errs) == before && (m.kind == "" || m.topic == "" || len(m.fields) == 0) {
		p.flaw(n, "an event needs type, topic and fields")
	}
	if len(p.errs) > before {
		return nil
	}
	out, err := m.compile(ctx, p.reg)
	if err != nil {
		p.flaw(n, "event %s: %v", m.kind, err)
		if errors.Is(err, schemas.ErrUnavailable) {
			p.errs[len(p.errs)-1] = fmt.Errorf("%w: %w", p.errs[len(p.errs)-1], schemas.ErrUnavailable)
		}
	}
	return out
}

func (p *parser) limits(s *spec, v *yaml.Node) {
	p.mapping(v, "limits is fields with values, such as body: 256KiB", func(k, v *yaml.Node) {
		switch k.Value {
		case "body":
			s.MaxBody = p.size(k, v)
		case "requests":
			s.MaxRequests = int(p.number(k, v, 1<<20))
		case "rate":
			s.Rate = p.rate(k, v)
		default:
			p.flaw(k, "unknown field %q: allowed are body, requests and rate", clip(k.Value))
		}
	})
}

func (p *parser) size(k, v *yaml.Node) int64 {
	text := p.text(k, v)
	digits, unit := strings.TrimRight(text, "KMiB"), int64(1)
	switch text[len(digits):] {
	case "", "B":
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	default:
		digits = ""
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/unit || n*unit > maxBody {
		p.flaw(v, "%s is %q: up to 16MiB is allowed, as 65536, 64KiB or 1MiB", k.Value, clip(text))
		return 0
	}
	return n * unit
}

// rate is a number of requests in a time, as so many a second.
func (p *parser) rate(k, v *yaml.Node) float64 {
	text := p.text(k, v)
	digits, unit, _ := strings.Cut(text, "/")
	seconds := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 || n > 1_000_000 || seconds == 0 {
		p.flaw(v, "%s is %q: 1 to 1000000 in a second, a minute or an hour is allowed, as 100/s, 60/m or 500/h", k.Value, clip(text))
		return 0
	}
	return float64(n) / seconds
}

func (p *parser) number(k, v *yaml.Node, most int64) int64 {
	text := p.text(k, v)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || n > most {
		p.flaw(v, "%s is %q: 1 to %d is allowed", k.Value, clip(text), most)
		return 1
	}
	return n
}

func (p *parser) duration(k, v *yaml.Node) time.Duration {
	text := p.text(k, v)
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > 30*24*time.Hour {
		p.flaw(v, "%s is %q: 1s to 720h is allowed", k.Value, clip(text))
		return time.Second
	}
	return d
}

func (p *parser) truth(k, v *yaml.Node) bool {
	text := p.text(k, v)
	if text != "true" && text != "false" && text != "" {
		p.flaw(v, "%s is %q: true or false is allowed", k.Value, clip(text))
	}
	return text == "true"
}

func (p *parser) text(k, v *yaml.Node) string {
	if !p.plain(v) {
		return ""
	}
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" || v.Value == "" {
		p.flaw(v, "%s needs one value", clip(k.Value))
		return ""
	}
	return v.Value
}

func (p *parser) items(v *yaml.Node, shape string) []*yaml.Node {
	if !p.plain(v) {
		return nil
	}
	if v.Kind != yaml.SequenceNode {
		p.flaw(v, "%s", shape)
		return nil
	}
	return v.Content
}

func (p *parser) mapping(v *yaml.Node, shape string, each func(k, v *yaml.Node)) {
	if !p.plain(v) {
		return
	}
	if v.Kind != yaml.MappingNode {
		p.flaw(v, "%s", shape)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(v.Content) && len(p.errs) <= maxFlaws; i += 2 {
		k := v.Content[i]
		switch line, twice := lines[k.Value]; {
		case !p.plain(k):
		case k.Kind != yaml.ScalarNode:
			p.flaw(k, "a field's name is one word")
		case twice:
			p.flaw(k, "%s is set twice: also on line %d", clip(k.Value), line)
		default:
			lines[k.Value] = k.Line
			each(k, v.Content[i+1])
		}
	}
}

// plain refuses the parts of YAML that make a file mean more than it shows.
func (p *parser) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		p.flaw(n, "an alias (*%s): write the value out", clip(n.Value))
	case n.Anchor != "":
		p.flaw(n, "an anchor (&%s): write the value where it is used", clip(n.Anchor))
	case n.Tag == "!!merge":
		p.flaw(n, "a merge key (<<): write the fields out")
	case n.Style&yaml.TaggedStyle != 0:
		p.flaw(n, "a tag (%s): write the plain value", clip(n.Tag))
	default:
		return true
	}
	return false
}

// wholesome is plain for a node with all that is in it.
func (p *parser) wholesome(n *yaml.Node) bool {
	if !p.plain(n) {
		return false
	}
	ok := true
	for _, c := range n.Content {
		ok = p.wholesome(c) && ok
	}
	return ok
}

// clip keeps a message short, and a terminal as it was.
func clip(s string) string {
	const most = 60
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
