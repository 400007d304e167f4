package pgsink

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Ids lie in a partition per day (of UTC, by the database's clock), which is dropped whole: no row is deleted. A unique
// index of a partitioned table has the day in it, so two transactions with one id on either side of midnight would not
// meet. Therefore, early in a day, when a transaction of the day before may be under way, ids are noted under that day
// too, and first.
const seenDDL = ` (sink text, event_id text, day date, seen timestamptz NOT NULL, PRIMARY KEY (sink, event_id, day)) PARTITION BY RANGE (day)`

const (
	today = `(now() AT TIME ZONE 'UTC')::date`
	early = `((now() AT TIME ZONE 'UTC') - date_trunc('day', now() AT TIME ZONE 'UTC') < $4)`
)

// grace is how long a day is early: longer than any transaction.
func (c Config) grace() time.Duration { return max(10*time.Minute, 2*c.Timeout) }

// Seen implements [sink.DB], in one round trip.
func (d *db) Seen(ctx context.Context, tx pgx.Tx, name string, ids []string, keep time.Duration) ([]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	d.ids.keep(name, keep)
	a := newArgs().text(name).texts(ids).interval(keep).interval(d.cfg.grace())
	defer a.free()
	note := `INSERT INTO ` + d.seen + ` AS s (sink, event_id, day, seen) SELECT $1, id, %s, now() FROM unnest($2) AS id WHERE %s
ON CONFLICT (sink, event_id, day) DO UPDATE SET seen = excluded.seen WHERE s.seen <= now() - $3 RETURNING event_id`
	results, err := execAll(ctx, tx, a,
		fmt.Sprintf(note, today+` - 1`, early),
		fmt.Sprintf(note, today, `true`),
		`SELECT `+early,
		`SELECT event_id FROM `+d.seen+` WHERE sink = $1 AND event_id = ANY($2) AND seen > now() - $3
  AND day >= ((now() - $3) AT TIME ZONE 'UTC')::date AND day < `+today+` - `+early+`::integer`)
	if err != nil {
		return nil, fmt.Errorf("note the ids of %s: %w", name, err)
	}
	seen := make([]bool, len(ids))
	for i := range seen {
		seen[i] = true
	}
	if err := mark(seen, false, ids, results[1]); err != nil {
		return nil, err
	}
	if len(results[2].Rows) == 1 && slices.Equal(results[2].Rows[0][0], []byte{1}) {
		yesterday := slices.Repeat([]bool{true}, len(ids))
		if err := mark(yesterday, false, ids, results[0]); err != nil {
			return nil, err
		}
		for i, was := range yesterday {
			seen[i] = seen[i] || was
		}
	}
	return seen, mark(seen, true, ids, results[3])
}

// mark sets to is for each id in the result. Inserts return ids in the order in which they were given.
func mark(seen []bool, is bool, ids []string, r *pgconn.Result) error {
	at := 0
	for _, row := range r.Rows {
		for at < len(ids) && ids[at] < string(row[0]) {
			at++
		}
		if at == len(ids) || ids[at] != string(row[0]) {
			var found bool
			if at, found = slices.BinarySearch(ids, string(row[0])); !found {
				return errResult
			}
		}
		seen[at] = is
	}
	return nil
}

// upkeep is what the table of seen ids needs once a day.
type upkeep struct {
	mu    sync.Mutex
	day   int64                    // the last one it was done, in days since 1970
	keeps map[string]time.Duration // by sink; empty where nobody asked for ids
	fresh bool                     // a sink's time is not in its position rows yet
}

// keep notes how long the ids of a sink are asked for.
func (u *upkeep) keep(name string, keep time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keeps[name] == keep {
		return
	}
	if u.keeps == nil {
		u.keeps = map[string]time.Duration{}
	}
	u.keeps[name], u.fresh = keep, true
}

// due reports, to one caller, whether there is something to do. Our clock only says when to look at the database's.
func (u *upkeep) due() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	day := time.Now().Unix() / 86_400
	if len(u.keeps) == 0 || u.day == day && !u.fresh {
		return false
	}
	u.day, u.fresh = day, false
	return true
}

func (u *upkeep) all() map[string]time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.keeps)
}

// ahead is how many days have a partition before they begin.
const ahead = 3

// maintain makes the partitions of the days to come and drops those that no sink needs.
func (d *db) maintain(ctx context.Context) error {
	var old []string
	err := d.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := d.alone(ctx, tx); err != nil {
			return err
		}
		for name, keep := range d.ids.all() {
			a := newArgs().text(name).interval(keep)
			_, err := exec(ctx, tx, `UPDATE `+d.offsets+` SET dedupe = $2 WHERE sink = $1 AND dedupe IS DISTINCT FROM $2`, a)
			a.free()
			if err != nil {
				return err
			}
		}
		if err := d.partitions(ctx, tx); err != nil {
			return err
		}
		var err error
		old, err = d.outdated(ctx, tx)
		return err
	})
	for _, name := range old {
		err = d.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			// It needs a lock on all of the ids, and whoever comes next waits behind it.
			_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = 1000; DROP TABLE IF EXISTS "+d.ident(name))
			return err
		})
		if err != nil {
			return nil //nolint:nilerr // somebody is at it: tomorrow
		}
	}
	if err != nil {
		return fmt.Errorf("keep the partitions of %s: %w", d.seen, err)
	}
	return nil
}

// partitions makes those of yesterday, which may still be written to, and of the next days. An empty table that is
// attached afterwards keeps nobody waiting, unlike CREATE TABLE … PARTITION OF.
func (d *db) partitions(ctx context.Context, tx pgx.Tx) error {
	var now time.Time
	if err := tx.QueryRow(ctx, `SELECT now()`, pgx.QueryExecModeExec).Scan(&now); err != nil {
		return err
	}
	day := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)
	for range ahead + 2 {
		next := day.AddDate(0, 0, 1)
		name := partitionOf(day)
		there, err := d.exists(ctx, tx, name)
		if err != nil {
			return err
		}
		if !there {
			sql := fmt.Sprintf(`CREATE TABLE %s (LIKE %s); ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`,
				d.ident(name), d.seen, d.seen, d.ident(name), day.Format(time.DateOnly), next.Format(time.DateOnly))
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		day = next
	}
	return nil
}

const dayForm = "20060102"

func partitionOf(day time.Time) string { return seenTable + "_" + day.Format(dayForm) }

// outdated are the partitions whose ids all sinks have forgotten.
func (d *db) outdated(ctx context.Context, tx pgx.Tx) ([]string, error) {
	var limit *time.Time
	err := tx.QueryRow(ctx, `SELECT ((now() - max(dedupe)) AT TIME ZONE 'UTC')::date - 1 FROM `+d.offsets, pgx.QueryExecModeExec).Scan(&limit)
	if err != nil || limit == nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1)`, pgx.QueryExecModeExec, d.seen)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return slices.DeleteFunc(names, func(name string) bool {
		day, err := time.Parse(dayForm, strings.TrimPrefix(name, seenTable+"_"))
		return err != nil || !day.Before(*limit)
	}), err
}
