package pgsink

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/schemas"
)

// pgType is the type of a column: its name in DDL, as format_type says it, and what it is on the wire.
type pgType struct {
	kind       schemas.ColumnKind
	name       string
	oid, array uint32
}

// maxPrecision is the largest that a numeric can be declared with; one without a declaration has no limit.
const maxPrecision = 1000

func typeOf(c schemas.Column) pgType {
	t := pgType{kind: c.Kind}
	switch c.Kind {
	case schemas.KindBool:
		t.name, t.oid, t.array = "boolean", pgtype.BoolOID, pgtype.BoolArrayOID
	case schemas.KindInt:
		t.name, t.oid, t.array = "bigint", pgtype.Int8OID, pgtype.Int8ArrayOID
	case schemas.KindFloat:
		t.name, t.oid, t.array = "double precision", pgtype.Float8OID, pgtype.Float8ArrayOID
	case schemas.KindBytes:
		t.name, t.oid, t.array = "bytea", pgtype.ByteaOID, pgtype.ByteaArrayOID
	case schemas.KindDecimal:
		t.name, t.oid, t.array = "numeric", pgtype.NumericOID, pgtype.NumericArrayOID
		if max(c.Precision, c.Scale) <= maxPrecision {
			t.name = fmt.Sprintf("numeric(%d,%d)", max(c.Precision, c.Scale), c.Scale)
		}
	case schemas.KindDate:
		t.name, t.oid, t.array = "date", pgtype.DateOID, pgtype.DateArrayOID
	case schemas.KindTime:
		t.name, t.oid, t.array = "time without time zone", pgtype.TimeOID, pgtype.TimeArrayOID
	case schemas.KindTimestamp:
		t.name, t.oid, t.array = "timestamp with time zone", pgtype.TimestamptzOID, pgtype.TimestamptzArrayOID
		if c.Local {
			t.name, t.oid, t.array = "timestamp without time zone", pgtype.TimestampOID, pgtype.TimestampArrayOID
		}
	case schemas.KindUUID:
		t.name, t.oid, t.array = "uuid", pgtype.UUIDOID, pgtype.UUIDArrayOID
	case schemas.KindJSON:
		t.name, t.oid, t.array = "jsonb", pgtype.JSONBOID, pgtype.JSONBArrayOID
	default:
		t.name, t.oid, t.array = "text", pgtype.TextOID, pgtype.TextArrayOID
	}
	return t
}

// takes reports whether a column of the database's type have takes every value of a column want, in COPY as well:
// texts of any length limit, and numerics that are at least as wide.
func takes(have string, want pgType) bool {
	if have == want.name {
		return true
	}
	switch want.kind {
	case schemas.KindString:
		return strings.HasPrefix(have, "character varying")
	case schemas.KindDecimal:
		if have == "numeric" {
			return true
		}
		var hp, hs, wp, ws int
		if _, err := fmt.Sscanf(have, "numeric(%d,%d)", &hp, &hs); err != nil {
			return false
		}
		if _, err := fmt.Sscanf(want.name, "numeric(%d,%d)", &wp, &ws); err != nil {
			return false
		}
		return hs >= ws && hp-hs >= wp-ws
	default:
		return false
	}
}
