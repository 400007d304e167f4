package registry

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// printer writes a schema as Avro's Java library does (Schema.toString): this text is what is stored, and two schemas
// are the same when their texts are.
type printer struct {
	dst    []byte
	known  map[string]bool // the full names that need no definition any more
	normal bool            // in the normal form: what has no order is sorted
}

// canonicalText prints root; known are the names that its references define.
func canonicalText(root *node, known map[string]bool, normal bool) string {
	p := printer{known: maps.Clone(known), normal: normal}
	if p.known == nil {
		p.known = map[string]bool{}
	}
	p.node(root, "")
	return string(p.dst)
}

func (p *printer) raw(s string)  { p.dst = append(p.dst, s...) }
func (p *printer) text(s string) { p.dst = appendString(p.dst, s) }

func (p *printer) member(name, text string) {
	p.raw(`,"` + name + `":`)
	p.text(text)
}

func (p *printer) node(n *node, space string) {
	switch n.kind {
	case kindRecord, kindEnum, kindFixed:
		p.named(n, space)
	case kindUnion:
		p.raw("[")
		for i, b := range n.branches {
			if i > 0 {
				p.raw(",")
			}
			p.node(b, space)
		}
		p.raw("]")
	case kindArray:
		p.raw(`{"type":"array","items":`)
		p.node(n.items, space)
		p.props(n.props)
		p.raw("}")
	case kindMap:
		p.raw(`{"type":"map","values":`)
		p.node(n.items, space)
		p.props(n.props)
		p.raw("}")
	default:
		if len(n.props) == 0 {
			p.text(string(n.kind))
			return
		}
		p.raw(`{"type":`)
		p.text(string(n.kind))
		p.props(n.props)
		p.raw("}")
	}
}

func (p *printer) named(n *node, space string) {
	if p.known[n.name.full()] {
		p.text(n.name.in(space))
		return
	}
	p.known[n.name.full()] = true
	p.raw(`{"type":`)
	if n.isError {
		p.text("error")
	} else {
		p.text(string(n.kind))
	}
	p.member("name", n.name.name)
	if n.name.space != space {
		p.member("namespace", n.name.space)
	}
	if n.hasDoc && (n.doc != "" || !p.normal) {
		p.member("doc", n.doc)
	}
	switch n.kind {
	case kindRecord:
		p.fields(n)
	case kindEnum:
		p.raw(`,"symbols":`)
		p.texts(n.symbols)
		if n.enumDefault != "" {
			p.member("default", n.enumDefault)
		}
	default:
		p.raw(`,"size":` + strconv.Itoa(n.size))
	}
	p.props(n.props)
	if len(n.aliases) > 0 {
		aliases := make([]string, 0, len(n.aliases))
		for _, a := range n.aliases {
			aliases = append(aliases, a.in(n.name.space))
		}
		p.aliases(aliases)
	}
	p.raw("}")
}

func (p *printer) fields(n *node) {
	p.raw(`,"fields":[`)
	for i, f := range n.fields {
		if i > 0 {
			p.raw(",")
		}
		p.raw(`{"name":`)
		p.text(f.name)
		p.raw(`,"type":`)
		p.node(f.schema, n.name.space)
		if f.hasDoc {
			p.member("doc", f.doc)
		}
		if f.hasDefault {
			p.raw(`,"default":`)
			p.dst = appendValue(p.dst, f.value)
		}
		if f.order != "" {
			p.member("order", f.order)
		}
		if len(f.aliases) > 0 {
			p.aliases(f.aliases)
		}
		p.props(f.props)
		p.raw("}")
	}
	p.raw("]")
}

func (p *printer) aliases(names []string) {
	if p.normal {
		names = slices.Sorted(slices.Values(names))
	}
	p.raw(`,"aliases":`)
	p.texts(names)
}

func (p *printer) texts(all []string) {
	p.raw("[")
	for i, s := range all {
		if i > 0 {
			p.raw(",")
		}
		p.text(s)
	}
	p.raw("]")
}

func (p *printer) props(props []member) {
	if p.normal {
		props = sortedProps(props)
	}
	for _, m := range props {
		p.raw(",")
		p.text(m.name)
		p.raw(":")
		p.dst = appendValue(p.dst, m.value)
	}
}

// sortedProps puts the logical type first, then the others by name, and sorts what is within them.
func sortedProps(props []member) []member {
	logical := []string{"logicalType", "precision", "scale"}
	rank := func(m member) int {
		if i := slices.Index(logical, m.name); i >= 0 {
			return i
		}
		return len(logical)
	}
	var sorted []member
	for _, m := range props {
		if n, ok := isInt(m.value); ok && n == 0 && m.name == "scale" {
			continue
		}
		sorted = append(sorted, member{m.name, sortedValue(m.value)})
	}
	slices.SortStableFunc(sorted, func(a, b member) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return sorted
}

func sortedValue(v value) value {
	switch v := v.(type) {
	case []value:
		list := make([]value, 0, len(v))
		for _, e := range v {
			list = append(list, sortedValue(e))
		}
		return list
	case *object:
		o := &object{}
		members := slices.SortedFunc(slices.Values(v.members), func(a, b member) int { return strings.Compare(a.name, b.name) })
		for _, m := range members {
			o.set(m.name, sortedValue(m.value))
		}
		return o
	}
	return v
}
