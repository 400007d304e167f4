package pgsink

import (
	"bytes"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/schemas"
)

// twos is v as two's complement, as short as it gets: what rows hold of a decimal.
func twos(v *big.Int) []byte {
	if v.Sign() >= 0 {
		return append([]byte{0}, v.Bytes()...)
	}
	n := len(v.Bytes()) + 1
	return new(big.Int).Add(v, new(big.Int).Lsh(big.NewInt(1), uint(n)*8)).FillBytes(make([]byte, n))
}

// numeric is what pgx reads of our encoding, as a fraction.
func numeric(t *testing.T, b []byte) *big.Rat {
	t.Helper()
	var n pgtype.Numeric
	if err := pgtype.NewMap().Scan(pgtype.NumericOID, pgtype.BinaryFormatCode, b, &n); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if !n.Valid || n.NaN || n.InfinityModifier != pgtype.Finite {
		t.Fatalf("%x is %+v", b, n)
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(n.Exp, -n.Exp))), nil)
	if n.Exp < 0 {
		return new(big.Rat).SetFrac(n.Int, power)
	}
	return new(big.Rat).SetInt(n.Int.Mul(n.Int, power))
}

func checkNumeric(t *testing.T, v *big.Int, scale int) {
	t.Helper()
	want := new(big.Rat).SetFrac(v, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
	raw := twos(v)
	for _, b := range [][]byte{appendNumeric(nil, raw, scale), appendBigNumeric(nil, raw, scale)} {
		if got := numeric(t, b); got.Cmp(want) != 0 {
			t.Errorf("%s with scale %d: %s", v, scale, got.FloatString(scale))
		}
	}
	if a, b := appendNumeric(nil, raw, scale), appendBigNumeric(nil, raw, scale); !bytes.Equal(a, b) {
		t.Errorf("%s with scale %d: %x quickly and %x at length", v, scale, a, b)
	}
}

func TestNumericIsWhatPgxReads(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"0", "1", "9999", "10000", "10001", "1990", "123456789", "9223372036854775807", "9223372036854775808", "18446744073709551616", strings.Repeat("9", 100), "1" + strings.Repeat("0", 60)} {
		v, _ := new(big.Int).SetString(text, 10)
		for scale := range 40 {
			checkNumeric(t, v, scale)
			checkNumeric(t, new(big.Int).Neg(v), scale)
		}
	}
	checkNumeric(t, big.NewInt(math.MinInt64), 4)
}

func FuzzNumeric(f *testing.F) {
	f.Add([]byte{7, 198}, 2)
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 0}, 16)
	f.Fuzz(func(t *testing.T, raw []byte, scale int) {
		if scale < 0 || scale > 300 || len(raw) > 200 {
			t.Skip()
		}
		v := new(big.Int).SetBytes(raw)
		if len(raw) > 0 && raw[0]&0x80 != 0 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(len(raw))*8))
		}
		checkNumeric(t, v, scale)
	})
}

var wireColumns = []schemas.Column{
	{Name: "s", Path: []string{"s"}, Kind: schemas.KindString, Nullable: true},
	{Name: "i", Path: []string{"i"}, Kind: schemas.KindInt, Nullable: true},
	{Name: "f", Path: []string{"f"}, Kind: schemas.KindFloat},
	{Name: "b", Path: []string{"b"}, Kind: schemas.KindBool, Nullable: true},
	{Name: "raw", Path: []string{"raw"}, Kind: schemas.KindBytes},
	{Name: "at", Path: []string{"at"}, Kind: schemas.KindTimestamp, Nullable: true},
	{Name: "wall", Path: []string{"wall"}, Kind: schemas.KindTimestamp, Local: true, Nullable: true},
	{Name: "day", Path: []string{"day"}, Kind: schemas.KindDate, Nullable: true},
	{Name: "clock", Path: []string{"clock"}, Kind: schemas.KindTime, Nullable: true},
	{Name: "id", Path: []string{"id"}, Kind: schemas.KindUUID, Nullable: true},
	{Name: "doc", Path: []string{"doc"}, Kind: schemas.KindJSON, Nullable: true},
}

// wireRows are rows of wireColumns, each of the values or null.
func wireRows(t *testing.T, objects ...string) *schemas.Rows {
	t.Helper()
	rows, err := schemas.Memory().NewRows(wireColumns...)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := rows.Append(t.Context(), &event.Event{Meta: event.Meta{Topic: "t", ContentType: "application/json"}, Value: []byte(o)}); err != nil {
			t.Fatalf("%s: %v", o, err)
		}
	}
	return rows
}

// scanColumn is what pgx reads of column i as an array.
func scanColumn[T any](t *testing.T, rows *schemas.Rows, i int) []T {
	t.Helper()
	a := newArgs()
	defer a.free()
	a.column(rows, i)
	var got []T
	if err := pgtype.NewMap().Scan(a.oids[0], pgtype.BinaryFormatCode, a.params()[0], &got); err != nil {
		t.Fatalf("column %s: %v", rows.Columns()[i].Name, err)
	}
	return got
}

func TestArraysAreWhatPgxReads(t *testing.T) {
	t.Parallel()
	rows := wireRows(t,
		`{"s":"ß","i":-5,"f":1.5,"b":true,"raw":"AAH/","at":"1969-12-31T23:59:59.999999Z","wall":"2026-11-24T12:00:00","day":"1999-12-31","clock":"23:59:59.000001","id":"00112233-4455-6677-8899-aabbccddeeff","doc":{"a":[1,null]}}`,
		`{"s":null,"i":null,"f":-0.0,"b":null,"raw":"","at":null,"wall":null,"day":null,"clock":null,"id":null,"doc":null}`,
		`{"s":"","i":9223372036854775807,"f":1e300,"b":false,"raw":"AA==","at":"2000-01-01T00:00:00Z","wall":"2000-01-01T00:00:00","day":"2000-01-01","clock":"00:00:00","id":"00000000-0000-0000-0000-000000000000","doc":[]}`)
	if got := scanColumn[pgtype.Text](t, rows, 0); !slices.Equal(got, []pgtype.Text{{String: "ß", Valid: true}, {}, {Valid: true}}) {
		t.Errorf("texts: %v", got)
	}
	if got := scanColumn[pgtype.Int8](t, rows, 1); !slices.Equal(got, []pgtype.Int8{{Int64: -5, Valid: true}, {}, {Int64: math.MaxInt64, Valid: true}}) {
		t.Errorf("integers: %v", got)
	}
	if got := scanColumn[float64](t, rows, 2); !slices.Equal(got, []float64{1.5, 0, 1e300}) {
		t.Errorf("floats: %v", got)
	}
	if got := scanColumn[pgtype.Bool](t, rows, 3); !slices.Equal(got, []pgtype.Bool{{Bool: true, Valid: true}, {}, {Valid: true}}) {
		t.Errorf("booleans: %v", got)
	}
	if got := scanColumn[[]byte](t, rows, 4); !slices.EqualFunc(got, [][]byte{{0, 1, 255}, {}, {0}}, bytes.Equal) {
		t.Errorf("bytes: %v", got)
	}
	if got := scanColumn[pgtype.Timestamptz](t, rows, 5); !got[0].Time.Equal(time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC)) || got[1].Valid || !got[2].Time.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("timestamps: %v", got)
	}
	if got := scanColumn[pgtype.Timestamp](t, rows, 6); !got[0].Time.Equal(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)) || got[1].Valid {
		t.Errorf("local timestamps: %v", got)
	}
	if got := scanColumn[pgtype.Date](t, rows, 7); !got[0].Time.Equal(time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)) || got[1].Valid {
		t.Errorf("dates: %v", got)
	}
	if got := scanColumn[pgtype.Time](t, rows, 8); got[0].Microseconds != 86_399_000_001 || got[1].Valid {
		t.Errorf("times of day: %v", got)
	}
	if got := scanColumn[pgtype.UUID](t, rows, 9); got[0].String() != "00112233-4455-6677-8899-aabbccddeeff" || got[1].Valid {
		t.Errorf("uuids: %v", got)
	}
	if got := scanColumn[pgtype.Text](t, rows, 10); got[0].String != `{"a":[1,null]}` || got[1].Valid || got[2].String != "[]" {
		t.Errorf("documents: %v", got)
	}
}

func FuzzTextArray(f *testing.F) {
	f.Add("a", "", "ß\x00", int64(0))
	f.Fuzz(func(t *testing.T, one, two, three string, n int64) {
		want := []string{one, two, three}
		a := newArgs().texts(want).int8(n)
		defer a.free()
		var got []string
		if err := pgtype.NewMap().Scan(pgtype.TextArrayOID, pgtype.BinaryFormatCode, a.params()[0], &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", want, got, err)
		}
		if back, err := asInt8(a.params()[1]); err != nil || back != n {
			t.Errorf("%d: %d, %v", n, back, err)
		}
	})
}

func TestEmptyArray(t *testing.T) {
	t.Parallel()
	if got := scanColumn[string](t, wireRows(t), 0); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// Times that PostgreSQL has no place for are refused by it; none is turned into infinity or another century.
func TestTimesAtTheEdge(t *testing.T) {
	t.Parallel()
	for _, micros := range []int64{math.MinInt64, math.MinInt64 + 1, math.MinInt64 + epoch, -epoch, 0, epoch, math.MaxInt64} {
		got := fromUnix(micros)
		if got == math.MinInt64 || got == infinity || got > micros && micros > math.MinInt64+epoch || (micros < 0) && got > 0 {
			t.Errorf("%d is %d", micros, got)
		}
	}
	for _, at := range []time.Time{{}, time.Date(1815, 12, 10, 0, 0, 0, 1000, time.UTC), time.Date(2026, 11, 24, 1, 2, 3, 4000, time.UTC)} {
		if got := moment(instant(at)); !got.Equal(at) {
			t.Errorf("%s came back as %s", at, got)
		}
	}
}
