package schemas

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"

	"github.com/millrace/millrace/event"
)

// Projection decodes some fields of events' data and skips over the others: what a filter needs of a record costs a
// tenth of the record. It is safe for concurrent use.
type Projection struct {
	reg   *Registry
	paths [][]string
	cuts  cache[*entry, *cut]
}

// Project returns a Projection on the fields that paths name, each from the outside in: {"customer", "country"}. A
// path goes through records and unions; at anything else it ends, and all of that is read: an array, a map, a
// record that it names. No paths read nothing but whether there is data.
func (r *Registry) Project(paths ...[]string) *Projection {
	return &Projection{reg: r, paths: paths}
}

// Decode returns what [Registry.Decode] gives a *any, less the fields that no path names: a map[string]any for a
// record, in which a field that the writer's schema lacks is absent, and nil for a tombstone. Data that is not
// framed Avro is decoded whole; the numbers of JSON are json.Numbers, so that an id of 19 digits stays what it is.
//
// Errors are those of Registry.Decode. Within a field that is skipped lengths alone are held against the bytes: a
// value that is cut off, or followed by others, is found; an enum's number that has no symbol is not.
func (p *Projection) Decode(ctx context.Context, e *event.Event) (v any, err error) {
	if e.Value == nil {
		return nil, nil //nolint:nilnil // the value null
	}
	entry, body, err := p.reg.frameOf(ctx, e)
	if err != nil {
		return nil, blame(e, entry, err)
	}
	if entry == nil || entry.schema.Type != TypeAvro {
		return p.plain(ctx, e, entry, body)
	}
	if v, err = p.decode(entry, body); err != nil {
		return nil, blame(e, entry, err)
	}
	return v, nil
}

// plain decodes what is not framed Avro.
func (p *Projection) plain(ctx context.Context, e *event.Event, entry *entry, body []byte) (v any, err error) {
	isJSON := entry != nil && entry.schema.Type == TypeJSON
	if entry == nil {
		format, err := p.reg.formatOf(e, reflect.TypeFor[any]())
		if err != nil {
			return nil, blame(e, entry, err)
		}
		isJSON = format == JSON()
	}
	if !isJSON {
		err = p.reg.Decode(ctx, e, &v)
		return v, err
	}
	if v, err = readJSON(body); err != nil {
		return nil, blame(e, entry, fmt.Errorf("%w: %w", ErrPoison, err))
	}
	return v, nil
}

func (p *Projection) decode(entry *entry, body []byte) (v any, err error) {
	c, ok := p.cuts.get(entry)
	if !ok {
		g, err := entry.schema.generic()
		if err != nil {
			return nil, err
		}
		c = cutOf(g.tree.root, p.paths)
		p.cuts.put(entry, c)
	}
	if len(body) > unmeteredSize { // generic data may cost a hundred times its bytes
		g, err := entry.schema.generic()
		if err != nil {
			return nil, err
		}
		if err = g.check(body); err == nil {
			err = measure(c.node, body)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPoison, err)
		}
	}
	var k cutter
	v, rest, err := k.read(c, body)
	if err == nil && len(rest) > 0 {
		err = errRest(rest)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPoison, err)
	}
	return v, nil
}

// cut is what is read of a node. A nil cut is skipped.
type cut struct {
	node  *node
	whole bool
	parts []*cut // of the fields of a record or the branches of a union
}

func cutOf(n *node, paths [][]string) *cut {
	c := &cut{node: n, whole: n.kind != kRecord && n.kind != kUnion}
	for _, p := range paths {
		c.whole = c.whole || len(p) == 0
	}
	if c.whole {
		return c
	}
	for _, b := range n.branches {
		c.parts = append(c.parts, cutOf(b, paths))
	}
	for i := range n.fields {
		var within [][]string
		for _, p := range paths {
			if p[0] == n.fields[i].name {
				within = append(within, p[1:])
			}
		}
		if within == nil {
			c.parts = append(c.parts, nil)
		} else {
			c.parts = append(c.parts, cutOf(n.fields[i].node, within))
		}
	}
	return c
}

// cutter walks the bytes of one value. They are anyone's: its depth and what it makes out of nothing are bounded.
type cutter struct {
	depth int
	empty int // records and items of no bytes
}

// maxEmpty bounds what takes no bytes: a block of eight bytes may claim 2^60 nulls, and a record of two records of
// two records, and so on, has as many fields.
const maxEmpty = 1 << 20

var (
	errTooDeep = fmt.Errorf("the value nests deeper than %d levels", maxNesting)
	errEmpty   = fmt.Errorf("the value has more than %d records and items without a byte", maxEmpty)
	errBranch  = errors.New("a union's value names a branch that the union lacks")
)

func (k *cutter) read(c *cut, src []byte) (any, []byte, error) {
	switch {
	case c.whole:
		return k.value(c.node, src)
	case c.node.kind == kUnion:
		i, src, err := branch(c.node, src)
		if err != nil {
			return nil, nil, err
		}
		return k.read(c.parts[i], src)
	}
	out := make(map[string]any, 1)
	for i, part := range c.parts {
		f := &c.node.fields[i]
		var err error
		if part == nil {
			src, err = k.skip(f.node, src)
		} else {
			out[f.name], src, err = k.read(part, src)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return out, src, nil
}

func branch(n *node, src []byte) (int, []byte, error) {
	i, src, err := varint(src)
	if err == nil && (i < 0 || i >= int64(len(n.branches))) {
		err = errBranch
	}
	return int(i), src, err
}

// skip moves over one value.
func (k *cutter) skip(n *node, src []byte) (_ []byte, err error) {
	switch n.kind {
	case kNull:
		return src, nil
	case kBoolean:
		return skip(src, 1)
	case kInt, kLong, kEnum:
		for i, b := range src { // the number itself does not matter
			if b < 0x80 && i < binary.MaxVarintLen64 {
				return src[i+1:], nil
			}
		}
		return nil, errCutOff
	case kFloat:
		return skip(src, 4)
	case kDouble:
		return skip(src, 8)
	case kFixed:
		return skip(src, int64(n.size))
	case kBytes, kString:
		size, src, err := varint(src)
		if err != nil {
			return nil, err
		}
		return skip(src, size)
	default:
	}
	if k.depth++; k.depth > maxNesting {
		return nil, errTooDeep
	}
	defer func() { k.depth-- }()
	switch n.kind {
	case kRecord:
		before := len(src)
		for i := range n.fields {
			if src, err = k.skip(n.fields[i].node, src); err != nil {
				return nil, err
			}
		}
		return src, k.took(before - len(src))
	case kUnion:
		i, src, err := branch(n, src)
		if err != nil {
			return nil, err
		}
		return k.skip(n.branches[i], src)
	default:
		return k.blocks(src, func(src []byte) ([]byte, error) {
			if n.kind == kMap {
				size, rest, err := varint(src)
				if err != nil {
					return nil, err
				}
				if src, err = skip(rest, size); err != nil {
					return nil, err
				}
			}
			return k.skip(n.items, src)
		})
	}
}

// blocks calls item for each item of an array or a map.
func (k *cutter) blocks(src []byte, item func(src []byte) ([]byte, error)) ([]byte, error) {
	for {
		count, rest, err := varint(src)
		if err != nil || count == 0 {
			return rest, err
		}
		if count < 0 {
			if count == math.MinInt64 {
				return nil, errCutOff
			}
			count = -count
			size, after, err := varint(rest)
			if err != nil || size < 0 || size > int64(len(after)) {
				return nil, errCutOff
			}
			rest = after
		}
		src = rest
		for range count {
			before := len(src)
			if src, err = item(src); err != nil {
				return nil, err
			}
			if err = k.took(before - len(src)); err != nil {
				return nil, err
			}
		}
	}
}

func (k *cutter) took(bytes int) error {
	if bytes > 0 {
		return nil
	}
	if k.empty++; k.empty > maxEmpty {
		return errEmpty
	}
	return nil
}

// value reads all of one value, in the shapes of the package comment.
func (k *cutter) value(n *node, src []byte) (any, []byte, error) {
	switch n.kind {
	case kNull:
		return nil, src, nil
	case kBoolean:
		if len(src) == 0 {
			return nil, nil, errCutOff
		}
		return src[0] != 0, src[1:], nil
	case kInt, kLong, kEnum:
		i, src, err := varint(src)
		if err != nil {
			return nil, nil, err
		}
		v, err := n.number(i)
		return v, src, err
	case kFloat:
		if len(src) < 4 {
			return nil, nil, errCutOff
		}
		return math.Float32frombits(binary.LittleEndian.Uint32(src)), src[4:], nil
	case kDouble:
		if len(src) < 8 {
			return nil, nil, errCutOff
		}
		return math.Float64frombits(binary.LittleEndian.Uint64(src)), src[8:], nil
	case kFixed, kBytes, kString:
		b, rest, err := n.run(src)
		if err != nil {
			return nil, nil, err
		}
		if n.kind == kString {
			return string(b), rest, nil
		}
		v, err := n.meaning(b)
		return v, rest, err
	default:
	}
	if k.depth++; k.depth > maxNesting {
		return nil, nil, errTooDeep
	}
	defer func() { k.depth-- }()
	return k.composite(n, src)
}

func (k *cutter) composite(n *node, src []byte) (v any, _ []byte, err error) {
	switch n.kind {
	case kUnion:
		i, src, err := branch(n, src)
		if err != nil {
			return nil, nil, err
		}
		return k.value(n.branches[i], src)
	case kRecord:
		before, out := len(src), make(map[string]any, len(n.fields))
		for i := range n.fields {
			f := &n.fields[i]
			if out[f.name], src, err = k.value(f.node, src); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", f.name, err)
			}
		}
		return out, src, k.took(before - len(src))
	case kMap:
		out := map[string]any{}
		src, err = k.blocks(src, func(src []byte) ([]byte, error) {
			size, src, err := varint(src)
			if err != nil {
				return nil, err
			}
			rest, err := skip(src, size)
			if err != nil {
				return nil, err
			}
			v, after, err := k.value(n.items, rest)
			out[string(src[:size])] = v
			return after, err
		})
		return out, src, err
	default:
		out := []any{}
		src, err = k.blocks(src, func(src []byte) ([]byte, error) {
			v, rest, err := k.value(n.items, src)
			out = append(out, v)
			return rest, err
		})
		return out, src, err
	}
}

// number is the value of an int, a long or an enum.
func (n *node) number(i int64) (any, error) {
	switch n.kind {
	case kEnum:
		if i < 0 || i >= int64(len(n.symbols)) {
			return nil, fmt.Errorf("%s has no symbol %d", n.name, i)
		}
		return n.symbols[i], nil
	case kInt:
		if i < math.MinInt32 || i > math.MaxInt32 {
			return nil, fmt.Errorf("%d is out of range for int", i)
		}
		return n.meaning(int32(i))
	default:
		return n.meaning(i)
	}
}

// run is the bytes of a fixed, a bytes or a string, and what follows them.
func (n *node) run(src []byte) (b, rest []byte, err error) {
	size := int64(n.size)
	if n.kind != kFixed {
		if size, src, err = varint(src); err != nil {
			return nil, nil, err
		}
	}
	if rest, err = skip(src, size); err != nil {
		return nil, nil, err
	}
	return src[:size], rest, nil
}
