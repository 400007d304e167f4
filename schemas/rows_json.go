package schemas

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// maxJSON bounds the text of one value: a byte on the wire may be a symbol of any length.
const maxJSON = 64 << 20

// appendJSON appends the value at the front of src as [Schema.AppendJSON] does, and returns what follows it.
func (k *cutter) appendJSON(dst []byte, n *node, src []byte) (_, rest []byte, err error) {
	size := len(dst)
	if dst, rest, err = k.text(dst, n, src); err != nil {
		return nil, nil, err
	}
	if len(dst)-size > maxJSON {
		return nil, nil, errLong
	}
	return dst, rest, nil
}

var errLong = fmt.Errorf("the value has more than %d MiB as JSON", maxJSON>>20)

func (k *cutter) text(dst []byte, n *node, src []byte) (_, rest []byte, err error) {
	switch n.kind {
	case kNull:
		return append(dst, "null"...), src, nil
	case kBoolean:
		if len(src) == 0 {
			return nil, nil, errCutOff
		}
		dst, err = n.appendOne(dst, src[0] != 0)
		return dst, src[1:], err
	case kInt, kLong, kEnum:
		x, rest, err := varint(src)
		if err != nil {
			return nil, nil, err
		}
		if n.kind == kEnum {
			symbol, err := n.number(x)
			if err != nil {
				return nil, nil, err
			}
			dst, err = n.appendOne(dst, symbol)
			return dst, rest, err
		}
		if n.kind == kInt && int64(int32(x)) != x {
			return nil, nil, fmt.Errorf("%d is out of range for int", x)
		}
		return n.appendInteger(dst, x), rest, nil
	case kFloat:
		if len(src) < 4 {
			return nil, nil, errCutOff
		}
		return appendFloat(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(src))), 32), src[4:], nil
	case kDouble:
		if len(src) < 8 {
			return nil, nil, errCutOff
		}
		return appendFloat(dst, math.Float64frombits(binary.LittleEndian.Uint64(src)), 64), src[8:], nil
	case kFixed, kBytes, kString:
		b, rest, err := n.run(src)
		if err != nil {
			return nil, nil, err
		}
		if n.kind == kString {
			return appendText(dst, string(b)), rest, nil
		}
		dst, err = n.appendBytes(dst, b)
		return dst, rest, err
	default:
	}
	if k.depth++; k.depth > maxNesting {
		return nil, nil, errTooDeep
	}
	defer func() { k.depth-- }()
	switch n.kind {
	case kUnion:
		i, src, err := branch(n, src)
		if err != nil {
			return nil, nil, err
		}
		return k.text(dst, n.branches[i], src)
	case kRecord:
		return k.object(dst, n, src)
	case kMap:
		return k.mapping(dst, n, src)
	default:
		return k.array(dst, n, src)
	}
}

func (k *cutter) object(dst []byte, n *node, src []byte) (_, _ []byte, err error) {
	before := len(src)
	dst = append(dst, '{')
	for i := range n.fields {
		f := &n.fields[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, f.name), ':')
		if dst, src, err = k.text(dst, f.node, src); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return append(dst, '}'), src, k.took(before - len(src))
}

func (k *cutter) array(dst []byte, n *node, src []byte) (_, _ []byte, err error) {
	start := len(dst)
	dst = append(dst, '[')
	src, err = k.blocks(src, func(src []byte) (rest []byte, err error) {
		if len(dst)-start > maxJSON {
			return nil, errLong
		}
		if dst[len(dst)-1] != '[' || len(dst)-start > 1 {
			dst = append(dst, ',')
		}
		dst, rest, err = k.text(dst, n.items, src)
		return rest, err
	})
	return append(dst, ']'), src, err
}

// mapping appends a map's entries in the order of their keys. Of two with one key the last counts.
func (k *cutter) mapping(dst []byte, n *node, src []byte) (_, _ []byte, err error) {
	type entry struct{ key, value []byte }
	var entries []entry
	size := 0
	src, err = k.blocks(src, func(src []byte) ([]byte, error) {
		key, src, err := (&node{kind: kString}).run(src)
		if err != nil {
			return nil, err
		}
		value, src, err := k.text(nil, n.items, src)
		if size += len(key) + len(value); size > maxJSON {
			return nil, errLong
		}
		entries = append(entries, entry{key, value})
		return src, err
	})
	if err != nil {
		return nil, nil, err
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	dst = append(dst, '{')
	for i, e := range entries {
		if i+1 < len(entries) && bytes.Equal(e.key, entries[i+1].key) {
			continue
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(append(appendText(dst, string(e.key)), ':'), e.value...)
	}
	return append(dst, '}'), src, nil
}
