package parquetsink

import (
	"math/bits"
	"slices"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace/millrace/schemas"
)

// group is a record with its fields in the order given, where the library's own has them by name.
type group struct {
	parquet.Group

	order []string
}

// Fields implements [parquet.Node].
func (g group) Fields() []parquet.Field {
	fields := g.Group.Fields()
	slices.SortFunc(fields, func(a, b parquet.Field) int {
		return slices.Index(g.order, a.Name()) - slices.Index(g.order, b.Name())
	})
	return fields
}

func schemaOf(name string, columns []schemas.Column) *parquet.Schema {
	g := group{Group: parquet.Group{}}
	if len(columns) == 0 { // no reader takes a file without a column
		g.Group["nothing"] = parquet.Optional(parquet.Leaf(parquet.BooleanType))
	}
	for i := range columns {
		c := &columns[i]
		n := nodeOf(c)
		if c.Nullable {
			n = parquet.Optional(n)
		}
		g.Group[c.Name] = n
		g.order = append(g.order, c.Name)
	}
	return parquet.NewSchema(name, g)
}

// What readers take of a decimal: more digits than maxDigits are kept as text.
const (
	maxInt32Digits = 9
	maxInt64Digits = 18
	maxDigits      = 38
)

func nodeOf(c *schemas.Column) parquet.Node {
	switch c.Kind {
	case schemas.KindBool:
		return parquet.Leaf(parquet.BooleanType)
	case schemas.KindInt:
		return parquet.Leaf(parquet.Int64Type)
	case schemas.KindFloat:
		return parquet.Leaf(parquet.DoubleType)
	case schemas.KindBytes:
		return parquet.Leaf(parquet.ByteArrayType)
	case schemas.KindDecimal:
		switch {
		case digits(c) > maxDigits:
			return parquet.String()
		case digits(c) > maxInt64Digits:
			return parquet.Decimal(c.Scale, digits(c), parquet.FixedLenByteArrayType(decimalSize(digits(c))))
		case digits(c) > maxInt32Digits:
			return parquet.Decimal(c.Scale, digits(c), parquet.Int64Type)
		default:
			return parquet.Decimal(c.Scale, digits(c), parquet.Int32Type)
		}
	case schemas.KindDate:
		return parquet.Date()
	case schemas.KindTime:
		return parquet.TimeAdjusted(parquet.Microsecond, false)
	case schemas.KindTimestamp:
		return parquet.TimestampAdjusted(parquet.Microsecond, !c.Local)
	case schemas.KindUUID:
		return parquet.UUID()
	case schemas.KindJSON:
		return parquet.JSON()
	default:
		return parquet.String()
	}
}

// digits are a decimal's: as many as its scale at least, which Avro does not ask for.
func digits(c *schemas.Column) int { return max(c.Precision, c.Scale) }

// decimalSize is how many bytes hold so many digits in two's complement.
func decimalSize(digits int) int {
	hi, lo := uint64(0), uint64(1)
	for range digits {
		h, l := bits.Mul64(lo, 10)
		hi, lo = hi*10+h, l
	}
	return (128 - bits.LeadingZeros64(hi) + 8) / 8 // and the sign; more than 18 digits need 9 bytes at least
}

// filler returns the value of column i in a row. It points into the rows.
func filler(r *schemas.Rows, i int) func(row int) parquet.Value {
	value := valuer(r, i)
	nulls := r.Nulls(i)
	if nulls == nil {
		return func(row int) parquet.Value { return value(row).Level(0, 0, i) }
	}
	return func(row int) parquet.Value {
		if nulls[row] {
			return parquet.NullValue().Level(0, 0, i)
		}
		return value(row).Level(0, 1, i)
	}
}

func valuer(r *schemas.Rows, i int) func(row int) parquet.Value {
	switch c := &r.Columns()[i]; c.Kind {
	case schemas.KindBool:
		return func(row int) parquet.Value { return parquet.BooleanValue(r.Ints(i)[row] != 0) }
	case schemas.KindDate:
		return func(row int) parquet.Value { return parquet.Int32Value(int32(r.Ints(i)[row])) }
	case schemas.KindInt, schemas.KindTime, schemas.KindTimestamp:
		return func(row int) parquet.Value { return parquet.Int64Value(r.Ints(i)[row]) }
	case schemas.KindFloat:
		return func(row int) parquet.Value { return parquet.DoubleValue(r.Floats(i)[row]) }
	case schemas.KindUUID:
		return func(row int) parquet.Value { return parquet.FixedLenByteArrayValue(r.Bytes(i, row)) }
	case schemas.KindDecimal:
		return decimalValuer(r, i, c)
	default:
		return func(row int) parquet.Value { return parquet.ByteArrayValue(r.Bytes(i, row)) }
	}
}

func decimalValuer(r *schemas.Rows, i int, c *schemas.Column) func(row int) parquet.Value {
	switch {
	case digits(c) > maxDigits:
		texts := r.Texts(i)
		return func(row int) parquet.Value { return parquet.ByteArrayValue([]byte(texts[row])) }
	case digits(c) > maxInt64Digits:
		size := decimalSize(digits(c))
		return func(row int) parquet.Value {
			return parquet.FixedLenByteArrayValue(extend(make([]byte, size), r.Bytes(i, row)))
		}
	case digits(c) > maxInt32Digits:
		return func(row int) parquet.Value { return parquet.Int64Value(unscaled(r.Bytes(i, row))) }
	default:
		return func(row int) parquet.Value { return parquet.Int32Value(int32(unscaled(r.Bytes(i, row)))) }
	}
}

// extend fills dst with a two's complement of at most its length.
func extend(dst, b []byte) []byte {
	at := len(dst) - len(b)
	copy(dst[at:], b)
	if len(b) > 0 && b[0] >= 0x80 {
		for k := range at {
			dst[k] = 0xff
		}
	}
	return dst
}

// unscaled is a two's complement of at most 8 bytes.
func unscaled(b []byte) int64 {
	var x int64
	if len(b) > 0 && b[0] >= 0x80 {
		x = -1
	}
	for _, c := range b {
		x = x<<8 | int64(c)
	}
	return x
}
