package schemas

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A record of one byte on the wire is a map of some 350 bytes in memory, so what a value costs as generic data is
// measured before it is made. Small values cannot cost much and are not measured.
const (
	unmeteredSize  = 64 << 10  // bytes on the wire
	maxGenericCost = 256 << 20 // bytes in memory
	costOfValue    = 24
	costOfMap      = 300
	costOfEntry    = 50
)

// meter adds up what a value costs. It walks bytes that the guard has admitted, so it need not fear their depth.
type meter struct{ cost int }

var errCutOff = errors.New("the value is cut off")

// measure refuses src where it would cost more than maxGenericCost.
func measure(n *node, src []byte) error {
	if len(src) <= unmeteredSize {
		return nil
	}
	var m meter
	_, err := m.walk(n, src)
	return err
}

func (m *meter) walk(n *node, src []byte) (_ []byte, err error) {
	if m.cost += costOfValue; m.cost > maxGenericCost {
		return nil, fmt.Errorf("the value needs more than %d MiB as generic data: read it into a struct", maxGenericCost>>20)
	}
	switch n.kind {
	case kNull:
		return src, nil
	case kBoolean:
		return skip(src, 1)
	case kInt, kLong, kEnum:
		_, src, err = varint(src)
		return src, err
	case kFloat:
		return skip(src, 4)
	case kDouble:
		return skip(src, 8)
	case kFixed:
		return m.text(int64(n.size), src)
	case kBytes, kString:
		size, src, err := varint(src)
		if err != nil {
			return nil, err
		}
		return m.text(size, src)
	case kRecord:
		m.cost += costOfMap + costOfEntry*len(n.fields)
		for i := range n.fields {
			if src, err = m.walk(n.fields[i].node, src); err != nil {
				return nil, err
			}
		}
		return src, nil
	case kArray, kMap:
		return m.blocks(n, src)
	default:
		i, src, err := varint(src)
		if err != nil || i < 0 || i >= int64(len(n.branches)) {
			return nil, errCutOff
		}
		m.cost += costOfMap // the tag
		return m.walk(n.branches[i], src)
	}
}

func (m *meter) text(size int64, src []byte) ([]byte, error) {
	m.cost += int(min(size, maxGenericCost))
	return skip(src, size)
}

func (m *meter) blocks(n *node, src []byte) ([]byte, error) {
	m.cost += costOfMap
	for {
		count, rest, err := varint(src)
		if err != nil {
			return nil, err
		}
		if count < 0 {
			count = -count
			if _, rest, err = varint(rest); err != nil { // the block's size
				return nil, err
			}
		}
		if src = rest; count == 0 {
			return src, nil
		}
		for range count {
			if n.kind == kMap {
				m.cost += costOfEntry
				var size int64
				if size, src, err = varint(src); err != nil {
					return nil, err
				}
				if src, err = m.text(size, src); err != nil {
					return nil, err
				}
			}
			if src, err = m.walk(n.items, src); err != nil {
				return nil, err
			}
		}
	}
}

func varint(src []byte) (int64, []byte, error) {
	v, n := binary.Varint(src)
	if n <= 0 {
		return 0, nil, errCutOff
	}
	return v, src[n:], nil
}

func skip(src []byte, n int64) ([]byte, error) {
	if n < 0 || n > int64(len(src)) {
		return nil, errCutOff
	}
	return src[n:], nil
}
