package pgsink

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/sink"
)

// New returns a mux that writes to the database of pool, which stays the caller's: two connections for each partition
// that is written at once are plenty, two in all keep two cores busy.
func New(pool *pgxpool.Pool, cfg Config) *sink.Mux[pgx.Tx] {
	return sink.NewMux[pgx.Tx](newDB(pool, cfg))
}
