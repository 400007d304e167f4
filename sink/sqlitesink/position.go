package sqlitesink

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/sink"
)

const (
	offsetsTable = "millrace_sink_offsets"
	seenTable    = "millrace_sink_seen"
)

// Times of this table are microseconds since 1970: it is read by programs.
const offsetsDDL = `CREATE TABLE IF NOT EXISTS ` + offsetsTable + ` (
  sink TEXT, topic TEXT, part INTEGER, topic_id TEXT NOT NULL,
  next_offset INTEGER NOT NULL, epoch INTEGER NOT NULL, watermark INTEGER,
  owner TEXT NOT NULL DEFAULT '', updated INTEGER NOT NULL,
  PRIMARY KEY (sink, topic, part)
) STRICT, WITHOUT ROWID`

const atPlace = ` WHERE sink = ? AND topic = ? AND part = ?`

// topicID is the column's form of a topic id, of which zeros are any.
func topicID(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// micros is the column's form of a time, null for the zero time.
func micros(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}

func timeOf(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

// Claim implements [sink.DB].
func (d *db) Claim(ctx context.Context, owner string, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]sink.Claimed, error) {
	var out map[cursor.ID]sink.Claimed
	err := d.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		out = make(map[cursor.ID]sink.Claimed, len(ids))
		for _, id := range ids {
			c, err := d.claim(ctx, tx, owner, id, start[id])
			if err != nil {
				return err
			}
			out[id] = c
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim positions: %w", err)
	}
	return out, nil
}

func (d *db) claim(ctx context.Context, tx *sql.Tx, owner string, id cursor.ID, start int64) (sink.Claimed, error) {
	var next, epoch int64
	var watermark sql.NullInt64
	err := tx.QueryRowContext(ctx, `INSERT INTO `+offsetsTable+` AS o (sink, topic, part, topic_id, next_offset, epoch, owner, updated) VALUES (?,?,?,?,?,1,?,?)
ON CONFLICT (sink, topic, part) DO UPDATE SET epoch = o.epoch + 1, owner = excluded.owner, updated = excluded.updated,
  topic_id = CASE WHEN o.topic_id = '' THEN excluded.topic_id ELSE o.topic_id END
WHERE '' IN (o.topic_id, excluded.topic_id) OR o.topic_id = excluded.topic_id
RETURNING next_offset, epoch, watermark`,
		id.Reader, id.Topic, id.Partition, topicID(id.TopicID), start, owner, d.now().UnixMicro()).Scan(&next, &epoch, &watermark)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return sink.Claimed{Claimed: cursor.Claimed{
			Err: fmt.Errorf("claim %s: %w: read it under another name of the sink, or set the position with millrace sink rewind", id, sink.ErrOtherTopic),
		}}, nil
	case err != nil:
		return sink.Claimed{}, fmt.Errorf("claim %s: %w", id, err)
	}
	return sink.Claimed{
		Claimed:   cursor.Claimed{Cursor: cursor.Cursor{Position: next, Epoch: -1, Floor: next}, Lease: cursor.Lease{Epoch: epoch}},
		Watermark: timeOf(watermark),
	}, nil
}

// one is the result of a statement that must change one row.
func one(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	switch n, err := r.RowsAffected(); {
	case err != nil:
		return err
	case n != 1:
		return sink.ErrNotOwner
	}
	return nil
}

// Advance implements [sink.DB].
func (d *db) Advance(ctx context.Context, tx *sql.Tx, from, to sink.Place) error {
	err := one(tx.ExecContext(ctx, `UPDATE `+offsetsTable+` SET next_offset = ?, watermark = ?, updated = ?`+atPlace+` AND next_offset = ? AND epoch = ?`,
		to.Next, micros(to.Watermark), d.now().UnixMicro(), from.ID.Reader, from.ID.Topic, from.ID.Partition, from.Next, from.Lease.Epoch))
	if err != nil {
		return fmt.Errorf("move %s from %d to %d: %w", from.ID, from.Next, to.Next, err)
	}
	return nil
}

// Settle implements [sink.DB]. A transaction under way holds the write lock, which this one waits for.
func (d *db) Settle(ctx context.Context, from, to sink.Place) (done bool, err error) {
	err = d.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var next, epoch int64
		err := tx.QueryRowContext(ctx, `SELECT next_offset, epoch FROM `+offsetsTable+atPlace, from.ID.Reader, from.ID.Topic, from.ID.Partition).Scan(&next, &epoch)
		switch {
		case errors.Is(err, sql.ErrNoRows), err == nil && (epoch != from.Lease.Epoch || next != from.Next && next != to.Next):
			return sink.ErrNotOwner
		case err != nil:
			return err
		}
		done = next == to.Next
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("settle %s from %d to %d: %w", from.ID, from.Next, to.Next, err)
	}
	return done, nil
}

// Positions implements [sink.Admin]. A file without the table is one that no sink has used.
func (d *db) Positions(ctx context.Context, name string) (_ []sink.Position, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read the positions of %s: %w", name, err)
		}
	}()
	var there int
	if err := d.pool.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name = ?`, offsetsTable).Scan(&there); err != nil || there == 0 {
		return nil, err
	}
	rows, err := d.pool.QueryContext(ctx, `SELECT topic, part, topic_id, next_offset, epoch, watermark, owner, updated FROM `+offsetsTable+` WHERE sink = ? ORDER BY topic, part`, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	var out []sink.Position
	for rows.Next() {
		p := sink.Position{ID: cursor.ID{Reader: name}}
		var id string
		var watermark sql.NullInt64
		var updated int64
		if err := rows.Scan(&p.ID.Topic, &p.ID.Partition, &id, &p.Next, &p.Epoch, &watermark, &p.Owner, &updated); err != nil {
			return nil, err
		}
		b, err := hex.DecodeString(id)
		if err != nil || len(b) != 0 && len(b) != 16 {
			return nil, fmt.Errorf("%q is no topic id", id)
		}
		copy(p.ID.TopicID[:], b)
		p.Watermark, p.Updated = timeOf(watermark), time.UnixMicro(updated).UTC()
		out = append(out, p)
	}
	return out, rows.Err()
}

// Move implements [sink.Admin].
func (d *db) Move(ctx context.Context, moves []sink.Move) error {
	return d.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, m := range moves {
			if err := d.move(ctx, tx, m); err != nil {
				return fmt.Errorf("move %s from %d: %w", m.From.ID, m.From.Next, err)
			}
		}
		return nil
	})
}

func (d *db) move(ctx context.Context, tx *sql.Tx, m sink.Move) error {
	id := m.From.ID
	const asFound = atPlace + ` AND next_offset = ? AND epoch = ?`
	if m.To == nil {
		return one(tx.ExecContext(ctx, `DELETE FROM `+offsetsTable+asFound, id.Reader, id.Topic, id.Partition, m.From.Next, m.From.Epoch))
	}
	return one(tx.ExecContext(ctx, `UPDATE `+offsetsTable+` SET next_offset = ?, watermark = ?, epoch = epoch + 1, updated = ?, topic_id = coalesce(nullif(?, ''), topic_id)`+asFound,
		m.To.Next, micros(m.To.Watermark), d.now().UnixMicro(), topicID(m.To.ID.TopicID), id.Reader, id.Topic, id.Partition, m.From.Next, m.From.Epoch))
}

// Swap implements [sink.Admin].
func (d *db) Swap(ctx context.Context, s sink.Swap) error {
	err := d.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var positions int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+offsetsTable+` WHERE sink = ?`, s.From).Scan(&positions)
		if err != nil {
			return err
		}
		if positions == 0 {
			return fmt.Errorf("%w: %s has no positions: there is nothing to put in the place of %s", errPlan, s.From, s.Into)
		}
		for _, t := range s.Tables {
			if err := rename(ctx, tx, t); err != nil {
				return fmt.Errorf("put %s in the place of %s: %w", t.New, t.Name, err)
			}
		}
		for _, q := range []struct {
			sql  string
			args []any
		}{
			{`UPDATE ` + offsetsTable + ` AS o SET epoch = 1 + max(epoch, coalesce((SELECT epoch FROM ` + offsetsTable + ` AS i WHERE i.sink = ? AND i.topic = o.topic AND i.part = o.part), 0)) WHERE sink = ?`, []any{s.Into, s.From}},
			{`DELETE FROM ` + offsetsTable + ` WHERE sink = ?`, []any{s.Into}},
			{`UPDATE ` + offsetsTable + ` SET sink = ? WHERE sink = ?`, []any{s.Into, s.From}},
			{`DELETE FROM ` + seenTable + ` WHERE sink = ?`, []any{s.Into}},
			{`UPDATE ` + seenTable + ` SET sink = ? WHERE sink = ?`, []any{s.Into, s.From}},
		} {
			if _, err := tx.ExecContext(ctx, q.sql, q.args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("swap %s for %s: %w", s.Into, s.From, err)
	}
	return nil
}

func rename(ctx context.Context, tx *sql.Tx, t sink.Renamed) error {
	if _, err := tx.ExecContext(ctx, `DROP TABLE IF EXISTS `+ident(t.Old)); err != nil {
		return err
	}
	there, err := columnsOf(ctx, tx, t.Name)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		if _, err := tx.ExecContext(ctx, `ALTER TABLE `+ident(t.Name)+` RENAME TO `+quote(bare(t.Old))); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `ALTER TABLE `+ident(t.New)+` RENAME TO `+quote(bare(t.Name)))
	return err
}

// Discard implements [sink.Admin].
func (d *db) Discard(ctx context.Context, s sink.Swap) error {
	err := d.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, offsetsDDL+";"+seenDDL); err != nil {
			return err
		}
		for _, own := range []string{`DELETE FROM ` + offsetsTable + ` WHERE sink = ?`, `DELETE FROM ` + seenTable + ` WHERE sink = ?`} {
			if _, err := tx.ExecContext(ctx, own, s.From); err != nil {
				return err
			}
		}
		for _, t := range s.Tables {
			if _, err := tx.ExecContext(ctx, `DROP TABLE IF EXISTS `+ident(t.New)); err != nil {
				return fmt.Errorf("drop %s: %w", t.New, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("discard %s: %w", s.From, err)
	}
	return nil
}
