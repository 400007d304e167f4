package pgsink

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/sink"
)

// NewDB is the adapter without its mux.
func NewDB(pool *pgxpool.Pool, cfg Config) sink.DB[pgx.Tx] { return newDB(pool, cfg) }

// TableDDL is the statement that creates a table.
func TableDDL(l sink.Layout) string { return newDB(nil, Config{}).tableDDL(l) }
