package pgsink

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace/millrace/sink"
)

// errWrong is what a person must set right, found by us and not by the database.
var errWrong = errors.New("the database is not as the sink needs it")

// errAway marks what was said on a connection that did not outlive it.
var errAway = errors.New("the connection to the database is lost")

// Fault implements [sink.DB], by the SQLSTATE. An error of the network says nothing by itself: it may be that of a
// function's own call.
func (d *db) Fault(err error) sink.Fault {
	pg, answered := errors.AsType[*pgconn.PgError](err)
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	switch {
	case errors.Is(err, errWrong), errors.Is(err, pgx.ErrTxCommitRollback):
		return sink.Wrong
	case answered:
		return faultOf(pg)
	case connecting, errors.Is(err, errAway), errors.Is(err, pgconn.ErrConnClosed), errors.Is(err, sink.ErrUnknownCommit), pgconn.Timeout(err):
		return sink.Away
	default:
		return sink.Foreign
	}
}

// classes are the faults of SQLSTATEs, by the code or its class of two characters. What is not here is Away.
var classes = map[string]sink.Fault{
	"40001": sink.Again, // serialization failure
	"40P01": sink.Again, // deadlock
	"55P03": sink.Again, // lock not available

	"21": sink.Data, // a key twice in one statement
	"22": sink.Data, // a value out of range, too long, of a wrong form
	"23": sink.Data, // a constraint
	"44": sink.Data, // the check option of a view
	"54": sink.Data, // too much for an index or a row
	"P0": sink.Data, // a trigger's own word

	"25P02": sink.Wrong, // a function went on after an error
	"0A":    sink.Wrong, // not supported
	"26":    sink.Wrong, // a prepared statement is gone: a pooler without support for them
	"28":    sink.Wrong, // login
	"2B":    sink.Wrong, // something depends on it
	"3D":    sink.Wrong, // no such database
	"3F":    sink.Wrong, // no such schema
	"42":    sink.Wrong, // no such table or column, no right
	"55000": sink.Wrong, // not in a state for it
}

func faultOf(pg *pgconn.PgError) sink.Fault {
	switch {
	case ownPartition(pg):
		return sink.Again // maintain makes it
	case pg.Code == "0A000" && strings.Contains(pg.Message, "cached plan"):
		return sink.Again // a function's prepared statement is older than a column: pgx prepares it anew
	case len(pg.Code) < 2:
		return sink.Away
	}
	if f, ok := classes[pg.Code]; ok {
		return f
	}
	return classes[pg.Code[:2]]
}

// statementTimeout reports whether the database has ended a statement that took longer than it may.
func statementTimeout(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "57014" && strings.Contains(pg.Message, "statement timeout")
}

func ownPartitionMissing(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && ownPartition(pg)
}

// ownPartition reports whether there is no partition of ours for the day.
func ownPartition(pg *pgconn.PgError) bool {
	return pg.Code == "23514" && pg.ConstraintName == "" && pg.TableName == seenTable
}

// commitError says what the error of a COMMIT means. An ERROR is the database's refusal, a deferred constraint say. It
// can be FATAL with the commit in effect: a replica was waited for. pgconn.SafeToRetry is no help: a connection that is
// lost while COMMIT waits for its answer ends as "conn closed", which it takes for one on which nothing was sent.
func commitError(err error) error {
	if err == nil {
		return nil
	}
	pg, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return fmt.Errorf("commit: an earlier statement failed, and the function that made it went on: return its error, or put it into a savepoint: %w", err)
	case answered && pg.SeverityUnlocalized != "FATAL" && pg.SeverityUnlocalized != "PANIC":
		return fmt.Errorf("commit: %w", err)
	default:
		return fmt.Errorf("commit: %w: %w", sink.ErrUnknownCommit, err)
	}
}
