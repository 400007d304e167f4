package pgsink

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	offsetsTable = "millrace_sink_offsets"
	seenTable    = "millrace_sink_seen"
	// maxName is how many bytes of a name PostgreSQL keeps; it cuts off the rest without an error.
	maxName = 63
	// oldSuffix is the longest that a swap puts behind a table's name.
	oldSuffix = "__old"
)

// split is a table's schema and name: "analytics.orders", or "orders" in the sink's schema.
func (d *db) split(table string) (schema, name string) {
	if schema, name, ok := strings.Cut(table, "."); ok {
		return schema, name
	}
	return d.cfg.Schema, table
}

// ident is a table's name as SQL, quoted and with its schema.
func (d *db) ident(table string) string {
	schema, name := d.split(table)
	return pgx.Identifier{schema, name}.Sanitize()
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// list is what f makes of each name, with commas.
func list(names []string, f func(quoted string) string) string {
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f(quote(name)))
	}
	return b.String()
}

func itself(quoted string) string { return quoted }
