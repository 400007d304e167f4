package schemas

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// Compare orders two rows by the columns of key: nulls first, texts, bytes and decimals by their bytes. It is one
// order for all who sort by it, not that of a database.
func (r *Rows) Compare(a, b int, key []int) int {
	for _, i := range key {
		v := &r.vectors[i]
		if r.columns[i].Nullable && v.nulls[a] != v.nulls[b] {
			if v.nulls[a] {
				return -1
			}
			return 1
		}
		c := 0
		switch r.columns[i].wide() {
		case inInts:
			c = cmp.Compare(v.ints[a], v.ints[b])
		case inFloats:
			c = cmp.Compare(v.floats[a], v.floats[b])
		case inBytes:
			c = bytes.Compare(r.Bytes(i, a), r.Bytes(i, b))
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// Reduce sorts the rows by the columns of key and leaves the last that was appended of each key, deleted ones
// included.
func (r *Rows) Reduce(key ...int) {
	if r.n < 2 || len(key) == 0 {
		return
	}
	type item struct {
		prefix uint64 // decides nearly always
		row    int32
	}
	items := make([]item, r.n)
	for row := range items {
		items[row] = item{r.prefix(key[0], row), int32(row)}
	}
	slices.SortFunc(items, func(a, b item) int {
		if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
			return c
		}
		if c := r.Compare(int(a.row), int(b.row), key); c != 0 {
			return c
		}
		return cmp.Compare(a.row, b.row)
	})
	order := make([]int, 0, r.n)
	for i, it := range items {
		if i+1 < len(items) && it.prefix == items[i+1].prefix && r.Compare(int(it.row), int(items[i+1].row), key) == 0 {
			continue
		}
		order = append(order, int(it.row))
	}
	r.Keep(order)
}

// prefix is a number that orders rows as Compare does, as far as it tells them apart.
func (r *Rows) prefix(i, row int) uint64 {
	v := &r.vectors[i]
	if r.columns[i].Nullable && v.nulls[row] {
		return 0
	}
	switch r.columns[i].wide() {
	case inInts:
		return uint64(v.ints[row]) ^ 1<<63
	case inFloats:
		bits := math.Float64bits(v.floats[row])
		if v.floats[row] == 0 || bits>>63 == 1 || math.IsNaN(v.floats[row]) {
			return 0 // left to Compare, which comes next
		}
		return bits
	default:
		var b [8]byte
		copy(b[:], r.Bytes(i, row))
		return binary.BigEndian.Uint64(b[:])
	}
}

// Keep leaves the rows that order names, in its order, and no others. A row may be named once.
func (r *Rows) Keep(order []int) {
	for i := range r.vectors {
		v, s := &r.vectors[i], &r.spare
		switch r.columns[i].wide() {
		case inInts:
			v.ints, s.ints = pick(s.ints, v.ints, order), v.ints
		case inFloats:
			v.floats, s.floats = pick(s.floats, v.floats, order), v.floats
		case inBytes:
			v.spans, s.spans = pick(s.spans, v.spans, order), v.spans
		}
		if r.columns[i].Nullable {
			v.nulls, s.nulls = pick(s.nulls, v.nulls, order), v.nulls
		}
	}
	if r.deleted != nil {
		r.deleted = pick(nil, r.deleted, order)
	}
	r.n = len(order)
}

func pick[T any](dst, src []T, order []int) []T {
	dst = slices.Grow(dst[:0], len(order))
	for _, row := range order {
		dst = append(dst, src[row])
	}
	return dst
}

// Copy appends one row of other rows, which have the same columns. An error wraps ErrFull.
func (r *Rows) Copy(from *Rows, row int) error {
	if len(r.bytes) > maxRowsSize {
		return ErrFull
	}
	for i := range r.vectors {
		v, o := &r.vectors[i], &from.vectors[i]
		switch r.columns[i].wide() {
		case inInts:
			v.ints = append(v.ints, o.ints[row])
		case inFloats:
			v.floats = append(v.floats, o.floats[row])
		case inBytes:
			b := from.Bytes(i, row)
			v.spans = append(v.spans, span{uint32(len(r.bytes)), uint32(len(b))})
			r.bytes = append(r.bytes, b...)
		}
		if r.columns[i].Nullable {
			v.nulls = append(v.nulls, o.nulls[row])
		}
	}
	gone := from.deleted != nil && from.deleted[row]
	if gone && r.deleted == nil {
		r.deleted = make([]bool, r.n)
	}
	if r.deleted != nil {
		r.deleted = append(r.deleted, gone)
	}
	r.n++
	r.text = ""
	return nil
}

// Part moves the deleted rows to other rows with the same columns, which are emptied first. An error wraps ErrFull.
func (r *Rows) Part(deleted *Rows) error {
	deleted.Reset()
	if r.deleted == nil {
		return nil
	}
	var stay []int
	for row, gone := range r.deleted {
		if !gone {
			stay = append(stay, row)
		} else if err := deleted.Copy(r, row); err != nil {
			return err
		}
	}
	r.Keep(stay)
	r.deleted = nil
	return nil
}
