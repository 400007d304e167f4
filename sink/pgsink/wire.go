package pgsink

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/schemas"
)

// epoch is 2000-01-01, where PostgreSQL's times begin, in microseconds since 1970; epochDays in days.
const (
	epoch     = 946_684_800_000_000
	epochDays = 10_957
	infinity  = math.MaxInt64
)

// args are the arguments of one statement in PostgreSQL's binary format, built by hand: an array of 5,000 values is
// one argument, and boxing each value for pgx costs more than the rest of the way.
type args struct {
	buf    []byte
	starts []int
	oids   []uint32
	values [][]byte
}

// argsPool holds the memory of arguments: about a megabyte for a batch.
var argsPool = sync.Pool{New: func() any { return new(args) }}

// maxPooled is the largest memory that is kept.
const maxPooled = 16 << 20

func newArgs() *args {
	a, _ := argsPool.Get().(*args)
	a.buf, a.starts, a.oids, a.values = a.buf[:0], a.starts[:0], a.oids[:0], a.values[:0]
	return a
}

func (a *args) free() {
	if cap(a.buf) <= maxPooled {
		argsPool.Put(a)
	}
}

// next begins an argument of the type.
func (a *args) next(oid uint32) {
	a.starts, a.oids = append(a.starts, len(a.buf)), append(a.oids, oid)
}

func (a *args) text(s string) *args {
	a.next(pgtype.TextOID)
	a.buf = append(a.buf, s...)
	return a
}

func (a *args) int8(n int64) *args {
	a.next(pgtype.Int8OID)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(n))
	return a
}

// time is a timestamptz; the zero time is -infinity.
func (a *args) time(t time.Time) *args {
	a.next(pgtype.TimestamptzOID)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(instant(t)))
	return a
}

func (a *args) uuid(id [16]byte) *args {
	a.next(pgtype.UUIDOID)
	a.buf = append(a.buf, id[:]...)
	return a
}

// array begins an array of n elements of the type; each follows as its length and its bytes.
func (a *args) array(oid, elem uint32, n int, nulls bool) {
	a.next(oid)
	if n == 0 {
		a.buf = appendInt32(appendInt32(appendInt32(a.buf, 0), 0), int32(elem))
		return
	}
	hasNull := int32(0)
	if nulls {
		hasNull = 1
	}
	a.buf = appendInt32(appendInt32(appendInt32(a.buf, 1), hasNull), int32(elem))
	a.buf = appendInt32(appendInt32(a.buf, int32(n)), 1)
}

func (a *args) texts(ss []string) *args {
	a.array(pgtype.TextArrayOID, pgtype.TextOID, len(ss), false)
	for _, s := range ss {
		a.buf = appendInt32(a.buf, int32(len(s)))
		a.buf = append(a.buf, s...)
	}
	return a
}

// column is column i of the rows as an array.
func (a *args) column(rows *schemas.Rows, i int) {
	t := typeOf(rows.Columns()[i])
	nulls := rows.Nulls(i)
	a.array(t.array, t.oid, rows.Len(), nulls != nil)
	b := a.buf
	switch t.kind { // the commonest without a call per value
	case schemas.KindInt:
		for row, v := range rows.Ints(i) {
			if nulls != nil && nulls[row] {
				b = appendInt32(b, -1)
				continue
			}
			b = binary.BigEndian.AppendUint64(appendInt32(b, 8), uint64(v))
		}
	case schemas.KindString:
		for row := range rows.Len() {
			if nulls != nil && nulls[row] {
				b = appendInt32(b, -1)
				continue
			}
			v := rows.Bytes(i, row)
			b = append(appendInt32(b, int32(len(v))), v...)
		}
	default:
		for row := range rows.Len() {
			b = appendValue(b, rows, i, row, t, nulls)
		}
	}
	a.buf = b
}

// appendValue appends one value with its length before it, -1 for null: as arrays and COPY have it.
func appendValue(b []byte, rows *schemas.Rows, i, row int, t pgType, nulls []bool) []byte {
	if nulls != nil && nulls[row] {
		return appendInt32(b, -1)
	}
	switch t.kind {
	case schemas.KindBool:
		return append(appendInt32(b, 1), byte(rows.Ints(i)[row]))
	case schemas.KindInt:
		return binary.BigEndian.AppendUint64(appendInt32(b, 8), uint64(rows.Ints(i)[row]))
	case schemas.KindTime:
		return binary.BigEndian.AppendUint64(appendInt32(b, 8), uint64(rows.Ints(i)[row]))
	case schemas.KindFloat:
		return binary.BigEndian.AppendUint64(appendInt32(b, 8), math.Float64bits(rows.Floats(i)[row]))
	case schemas.KindTimestamp:
		return binary.BigEndian.AppendUint64(appendInt32(b, 8), uint64(fromUnix(rows.Ints(i)[row])))
	case schemas.KindDate:
		days := rows.Ints(i)[row] - epochDays
		return appendInt32(appendInt32(b, 4), int32(min(max(days, math.MinInt32+1), math.MaxInt32-1)))
	case schemas.KindDecimal:
		at := len(b)
		b = appendNumeric(appendInt32(b, 0), rows.Bytes(i, row), rows.Columns()[i].Scale)
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
		return b
	case schemas.KindJSON:
		v := rows.Bytes(i, row)
		b = append(appendInt32(b, int32(len(v)+1)), 1) // the version of jsonb's format
		return append(b, v...)
	default:
		v := rows.Bytes(i, row)
		return append(appendInt32(b, int32(len(v))), v...)
	}
}

// fromUnix turns microseconds since 1970 into those since 2000. What PostgreSQL takes for infinity, or would wrap
// around, becomes a time that it refuses.
func fromUnix(micros int64) int64 {
	if micros < math.MinInt64+1+epoch {
		return math.MinInt64 + 1
	}
	return micros - epoch
}

// instant is a time as PostgreSQL has it; the zero time is -infinity.
func instant(t time.Time) int64 {
	if t.IsZero() {
		return math.MinInt64
	}
	return fromUnix(t.UnixMicro())
}

// moment is the reverse of instant.
func moment(micros int64) time.Time {
	if micros == math.MinInt64 || micros == infinity {
		return time.Time{}
	}
	return time.UnixMicro(micros + epoch).UTC()
}

var powers = [...]uint64{1, 10, 100, 1000, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16}

// appendNumeric appends a numeric: digits to the base of 10,000, aligned at the point. unscaled is two's complement,
// big-endian.
func appendNumeric(b, unscaled []byte, scale int) []byte {
	var digits [16]uint16
	if len(unscaled) > 8 || scale >= len(powers) {
		return appendBigNumeric(b, unscaled, scale)
	}
	v := int64(0)
	if len(unscaled) > 0 && unscaled[0]&0x80 != 0 {
		v = -1
	}
	for _, c := range unscaled {
		v = v<<8 | int64(c)
	}
	u, sign := uint64(v), uint16(0)
	if v < 0 {
		u, sign = -u, 0x4000
	}
	// The fraction's groups from the right, then the integer's.
	whole, fraction := u/powers[scale], u%powers[scale]*powers[(4-scale%4)%4]
	n, groups := len(digits), (scale+3)/4
	for range groups {
		n--
		digits[n], fraction = uint16(fraction%10_000), fraction/10_000
	}
	weight := -1
	for ; whole > 0; weight++ {
		n--
		digits[n], whole = uint16(whole%10_000), whole/10_000
	}
	return appendDigits(b, digits[n:], weight, sign, scale)
}

func appendBigNumeric(b, unscaled []byte, scale int) []byte {
	v := new(big.Int).SetBytes(unscaled)
	sign := uint16(0)
	if len(unscaled) > 0 && unscaled[0]&0x80 != 0 {
		v.Sub(new(big.Int).Lsh(big.NewInt(1), uint(len(unscaled))*8), v)
		sign = 0x4000
	}
	text := v.Text(10)
	for len(text) <= scale {
		text = "0" + text
	}
	point := len(text) - scale
	for ; point%4 != 0; point++ {
		text = "0" + text
	}
	for (len(text)-point)%4 != 0 {
		text += "0"
	}
	digits := make([]uint16, 0, len(text)/4)
	for ; text != ""; text = text[4:] {
		n, _ := strconv.ParseUint(text[:4], 10, 16) // digits by construction
		digits = append(digits, uint16(n))
	}
	return appendDigits(b, digits, point/4-1, sign, scale)
}

// appendDigits appends a numeric without the zeros around its digits. weight is the power of the first.
func appendDigits(b []byte, digits []uint16, weight int, sign uint16, scale int) []byte {
	for len(digits) > 0 && digits[0] == 0 {
		digits = digits[1:]
		weight--
	}
	for len(digits) > 0 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	if len(digits) == 0 {
		weight, sign = 0, 0
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(digits)))
	b = binary.BigEndian.AppendUint16(b, uint16(weight))
	b = binary.BigEndian.AppendUint16(b, sign)
	b = binary.BigEndian.AppendUint16(b, uint16(scale))
	for _, d := range digits {
		b = binary.BigEndian.AppendUint16(b, d)
	}
	return b
}

// interval is an interval without months and days.
func (a *args) interval(d time.Duration) *args {
	a.next(pgtype.IntervalOID)
	a.buf = append(binary.BigEndian.AppendUint64(a.buf, uint64(d.Microseconds())), 0, 0, 0, 0, 0, 0, 0, 0)
	return a
}

func appendInt32(b []byte, n int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }

// binaryFormat is the format of all arguments, and of all columns of a result.
var binaryFormat = []int16{1}

// exec runs one statement on the transaction's connection in one round trip, unnamed: nothing is left behind that a
// pooler could give to somebody else, and the planner sees how long the arrays are.
func exec(ctx context.Context, tx pgx.Tx, sql string, a *args) (*pgconn.Result, error) {
	r := tx.Conn().PgConn().ExecParams(ctx, sql, a.params(), a.oids, binaryFormat, binaryFormat).Read()
	return r, r.Err
}

func (a *args) params() [][]byte {
	a.values = a.values[:0]
	for i, from := range a.starts {
		to := len(a.buf)
		if i+1 < len(a.starts) {
			to = a.starts[i+1]
		}
		a.values = append(a.values, a.buf[from:to:to])
	}
	return a.values
}

var errResult = errors.New("the database's answer is not of the form that was asked for")

func asInt8(b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, errResult
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// elem8 is an element of an array of bigint.
func (a *args) elem8(n int64) {
	a.buf = binary.BigEndian.AppendUint64(appendInt32(a.buf, 8), uint64(n))
}

// execAll runs statements with the same arguments in one round trip; the first that fails ends it. Each sees what was
// committed when it begins.
func execAll(ctx context.Context, tx pgx.Tx, a *args, sqls ...string) ([]*pgconn.Result, error) {
	batch := &pgconn.Batch{}
	values := a.params()
	for _, sql := range sqls {
		batch.ExecParams(sql, values, a.oids, binaryFormat, binaryFormat)
	}
	results, err := tx.Conn().PgConn().ExecBatch(ctx, batch).ReadAll()
	if err == nil && len(results) != len(sqls) {
		err = errResult
	}
	return results, err
}
