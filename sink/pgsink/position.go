package pgsink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/sink"
)

// Half of each page stays free, so that a new version of a row fits beside the old one and no index changes.
const offsetsDDL = ` (
  sink text, topic text, topic_id uuid NOT NULL, part integer,
  next_offset bigint NOT NULL, epoch bigint NOT NULL, watermark timestamptz,
  owner text NOT NULL DEFAULT '', updated timestamptz NOT NULL DEFAULT now(), dedupe interval,
  PRIMARY KEY (sink, topic, part)
) WITH (fillfactor = 50)`

// sorted is ids in the order in which all claims and moves lock their rows.
func sorted(ids []cursor.ID) []cursor.ID {
	return slices.SortedFunc(slices.Values(ids), func(a, b cursor.ID) int {
		return cmp.Or(strings.Compare(a.Reader, b.Reader), strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

// Claim implements [sink.DB]: one statement for all ids.
func (d *db) Claim(ctx context.Context, owner string, ids []cursor.ID, start map[cursor.ID]int64) (map[cursor.ID]sink.Claimed, error) {
	out := make(map[cursor.ID]sink.Claimed, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	ids = sorted(ids)
	byPlace := make(map[cursor.ID]cursor.ID, len(ids))
	for _, id := range ids {
		byPlace[place(id)] = id
		out[id] = sink.Claimed{Claimed: cursor.Claimed{Err: fmt.Errorf("claim %s: %w: read it under another name of the sink, or set the position with millrace sink rewind", id, sink.ErrOtherTopic)}}
	}
	sql := `INSERT INTO ` + d.offsets + ` AS o (sink, topic, part, topic_id, next_offset, epoch, owner)
SELECT r.sink, r.topic, r.part, r.topic_id, r.start, 1, $6 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::bigint[]) AS r(sink, topic, part, topic_id, start)
ON CONFLICT (sink, topic, part) DO UPDATE SET epoch = o.epoch + 1, owner = excluded.owner, updated = now(),
  topic_id = CASE WHEN o.topic_id = '00000000-0000-0000-0000-000000000000' THEN excluded.topic_id ELSE o.topic_id END
WHERE '00000000-0000-0000-0000-000000000000' IN (o.topic_id, excluded.topic_id) OR o.topic_id = excluded.topic_id
RETURNING sink, topic, part::bigint, next_offset, epoch, watermark`
	a := claimArgs(owner, ids, start)
	defer a.free()
	err := d.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		r, err := exec(ctx, tx, sql, a)
		if err != nil {
			return err
		}
		for _, row := range r.Rows {
			p, err := readPlace(row)
			if err != nil {
				return err
			}
			id := byPlace[p.ID]
			out[id] = sink.Claimed{
				Claimed:   cursor.Claimed{Cursor: cursor.Cursor{Position: p.Next, Epoch: -1, Floor: p.Next}, Lease: p.Lease},
				Watermark: p.Watermark,
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim positions: %w", err)
	}
	return out, nil
}

// place is an id without the topic's id: what the row's key is.
func place(id cursor.ID) cursor.ID {
	id.TopicID = [16]byte{}
	return id
}

func claimArgs(owner string, ids []cursor.ID, start map[cursor.ID]int64) *args {
	a := newArgs()
	readers, names := make([]string, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		readers[i], names[i] = id.Reader, id.Topic
	}
	a.texts(readers).texts(names)
	a.array(pgtype.Int8ArrayOID, pgtype.Int8OID, len(ids), false)
	for _, id := range ids {
		a.elem8(int64(id.Partition))
	}
	a.array(pgtype.UUIDArrayOID, pgtype.UUIDOID, len(ids), false)
	for _, id := range ids {
		a.buf = append(appendInt32(a.buf, 16), id.TopicID[:]...)
	}
	a.array(pgtype.Int8ArrayOID, pgtype.Int8OID, len(ids), false)
	for _, id := range ids {
		a.elem8(start[id])
	}
	return a.text(owner)
}

// readPlace reads sink, topic, part, next_offset, epoch, watermark.
func readPlace(row [][]byte) (sink.Place, error) {
	if len(row) < 6 {
		return sink.Place{}, errResult
	}
	part, err := asInt8(row[2])
	next, err2 := asInt8(row[3])
	lease, err3 := asInt8(row[4])
	p := sink.Place{
		ID:    cursor.ID{Reader: string(row[0]), Topic: string(row[1]), Partition: int32(part)},
		Lease: cursor.Lease{Epoch: lease}, Next: next,
	}
	var err4 error
	if row[5] != nil {
		var at int64
		at, err4 = asInt8(row[5])
		p.Watermark = moment(at)
	}
	return p, errors.Join(err, err2, err3, err4)
}

// Advance implements [sink.DB].
func (d *db) Advance(ctx context.Context, tx pgx.Tx, from, to sink.Place) error {
	a := newArgs()
	defer a.free()
	a.text(from.ID.Reader).text(from.ID.Topic).int8(int64(from.ID.Partition)).int8(from.Next).int8(from.Lease.Epoch).int8(to.Next).time(to.Watermark)
	r, err := exec(ctx, tx, `UPDATE `+d.offsets+` SET next_offset = $6, watermark = nullif($7, '-infinity'), updated = now()
WHERE sink = $1 AND topic = $2 AND part = $3 AND next_offset = $4 AND epoch = $5`, a)
	if err != nil {
		return fmt.Errorf("move the position of %s: %w", from.ID, err)
	}
	if r.CommandTag.RowsAffected() != 1 {
		return fmt.Errorf("move %s from %d to %d: %w", from.ID, from.Next, to.Next, sink.ErrNotOwner)
	}
	return nil
}

// Settle implements [sink.DB]. The row's lock is what it waits for: a COMMIT that is still under way has it.
func (d *db) Settle(ctx context.Context, from, to sink.Place) (done bool, err error) {
	a := newArgs()
	defer a.free()
	a.text(from.ID.Reader).text(from.ID.Topic).int8(int64(from.ID.Partition))
	err = d.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		r, err := exec(ctx, tx, `SELECT sink, topic, part::bigint, next_offset, epoch, watermark FROM `+d.offsets+`
WHERE sink = $1 AND topic = $2 AND part = $3 FOR UPDATE`, a)
		if err != nil {
			return err
		}
		if len(r.Rows) == 0 {
			return fmt.Errorf("there is no row: %w", sink.ErrNotOwner)
		}
		p, err := readPlace(r.Rows[0])
		switch {
		case err != nil:
			return err
		case p.Lease.Epoch != from.Lease.Epoch || p.Next != from.Next && p.Next != to.Next:
			return fmt.Errorf("it stands at %d: %w", p.Next, sink.ErrNotOwner)
		}
		done = p.Next == to.Next
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("settle the commit of %s from %d to %d: %w", from.ID, from.Next, to.Next, err)
	}
	return done, nil
}

// Positions implements [sink.Admin].
func (d *db) Positions(ctx context.Context, name string) ([]sink.Position, error) {
	var out []sink.Position
	a := newArgs().text(name)
	defer a.free()
	err := d.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		r, err := exec(ctx, tx, `SELECT sink, topic, part::bigint, next_offset, epoch, watermark, topic_id, owner, updated FROM `+d.offsets+`
WHERE sink = $1 ORDER BY topic COLLATE "C", part`, a)
		if err != nil {
			return err
		}
		for _, row := range r.Rows {
			p, err := readPlace(row)
			if err != nil {
				return err
			}
			updated, err := asInt8(row[8])
			if err != nil || len(row[6]) != len(p.ID.TopicID) {
				return errResult
			}
			p.ID.TopicID = [16]byte(row[6])
			out = append(out, sink.Position{ID: p.ID, Next: p.Next, Epoch: p.Lease.Epoch, Watermark: p.Watermark, Owner: string(row[7]), Updated: moment(updated)})
		}
		return nil
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == undefinedTable {
		return nil, nil // no sink has run yet
	}
	if err != nil {
		return nil, fmt.Errorf("read the positions of %s: %w", name, err)
	}
	return out, nil
}

const (
	undefinedTable   = "42P01"
	dependentObjects = "2BP01"
)

// Move implements [sink.Admin].
func (d *db) Move(ctx context.Context, moves []sink.Move) error {
	moves = slices.SortedFunc(slices.Values(moves), func(a, b sink.Move) int {
		return cmp.Or(strings.Compare(a.From.ID.Topic, b.From.ID.Topic), cmp.Compare(a.From.ID.Partition, b.From.ID.Partition))
	})
	err := d.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		for _, m := range moves {
			if err := d.move(ctx, tx, m); err != nil {
				return fmt.Errorf("%s from %d: %w", m.From.ID, m.From.Next, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("move positions: %w", err)
	}
	return nil
}

func (d *db) move(ctx context.Context, tx pgx.Tx, m sink.Move) error {
	a := newArgs()
	defer a.free()
	a.text(m.From.ID.Reader).text(m.From.ID.Topic).int8(int64(m.From.ID.Partition)).int8(m.From.Next).int8(m.From.Epoch)
	const where = ` WHERE sink = $1 AND topic = $2 AND part = $3 AND next_offset = $4 AND epoch = $5`
	sql := `DELETE FROM ` + d.offsets + where
	if m.To != nil {
		a.int8(m.To.Next).time(m.To.Watermark).uuid(m.To.ID.TopicID)
		sql = `UPDATE ` + d.offsets + ` SET next_offset = $6, watermark = nullif($7, '-infinity'), epoch = epoch + 1, updated = now(),
  topic_id = CASE WHEN $8 = '00000000-0000-0000-0000-000000000000' THEN topic_id ELSE $8 END` + where
	}
	r, err := exec(ctx, tx, sql, a)
	if err == nil && r.CommandTag.RowsAffected() != 1 {
		err = sink.ErrNotOwner
	}
	return err
}

// Swap implements [sink.Admin]. Readers see what was there until it commits, and the rebuild from then on. A view goes
// with the table that it was made on, to its new name: make it anew.
func (d *db) Swap(ctx context.Context, s sink.Swap) error {
	err := d.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		moved, err := d.takeOver(ctx, tx, s)
		if err != nil {
			return err
		}
		if moved == 0 {
			return fmt.Errorf("%w: %s has no positions: there is nothing to put in the place of %s", errWrong, s.From, s.Into)
		}
		for _, t := range slices.SortedFunc(slices.Values(s.Tables), func(a, b sink.Renamed) int { return strings.Compare(a.Name, b.Name) }) {
			_, name := d.split(t.Name)
			_, old := d.split(t.Old)
			sql := `DROP TABLE IF EXISTS ` + d.ident(t.Old) +
				`; ALTER TABLE IF EXISTS ` + d.ident(t.Name) + ` RENAME TO ` + quote(old) +
				`; ALTER TABLE ` + d.ident(t.New) + ` RENAME TO ` + quote(name)
			_, err := tx.Exec(ctx, sql)
			if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == dependentObjects {
				return fmt.Errorf("put %s in the place of %s: drop what is made on %s, a view say, and swap again: %w: %s", t.New, t.Name, d.ident(t.Old), err, pg.Detail)
			}
			if err != nil {
				return fmt.Errorf("put %s in the place of %s: %w", t.New, t.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("swap %s for %s: %w", s.From, s.Into, err)
	}
	return nil
}

// takeOver makes the positions and seen ids of s.From those of s.Into, and returns how many positions there are.
func (d *db) takeOver(ctx context.Context, tx pgx.Tx, s sink.Swap) (int64, error) {
	a := newArgs().text(s.Into).text(s.From)
	defer a.free()
	var moved int64
	for _, sql := range []string{
		`SELECT 1 FROM ` + d.offsets + ` WHERE sink IN ($1, $2) ORDER BY sink COLLATE "C", topic COLLATE "C", part FOR UPDATE`, // no owner is in a transaction; in the order of claims
		`UPDATE ` + d.offsets + ` AS n SET epoch = 1 + greatest(n.epoch, (SELECT o.epoch FROM ` + d.offsets + ` AS o WHERE o.sink = $1 AND o.topic = n.topic AND o.part = n.part)) WHERE n.sink = $2`,
		`DELETE FROM ` + d.offsets + ` WHERE sink = $1`,
		`UPDATE ` + d.offsets + ` SET sink = $1 WHERE sink = $2`,
	} {
		r, err := exec(ctx, tx, sql, a)
		if err != nil {
			return 0, err
		}
		moved = r.CommandTag.RowsAffected()
	}
	if there, err := d.exists(ctx, tx, seenTable); err != nil || !there {
		return moved, err
	}
	for _, sql := range []string{
		`DELETE FROM ` + d.seen + ` WHERE sink = $1`,
		`UPDATE ` + d.seen + ` SET sink = $1 WHERE sink = $2`,
	} {
		if _, err := exec(ctx, tx, sql, a); err != nil {
			return 0, err
		}
	}
	return moved, nil
}

// Discard implements [sink.Admin]. The position rows go first: an owner is at its end then, or finds none.
func (d *db) Discard(ctx context.Context, s sink.Swap) error {
	err := d.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		a := newArgs().text(s.From)
		defer a.free()
		for _, own := range []string{offsetsTable, seenTable} {
			there, err := d.exists(ctx, tx, own)
			if err != nil {
				return err
			}
			if !there {
				continue
			}
			if own == offsetsTable {
				_, err = exec(ctx, tx, `SELECT 1 FROM `+d.offsets+` WHERE sink = $1 ORDER BY topic COLLATE "C", part FOR UPDATE`, a)
			}
			if err == nil {
				_, err = exec(ctx, tx, `DELETE FROM `+d.ident(own)+` WHERE sink = $1`, a)
			}
			if err != nil {
				return err
			}
		}
		for _, t := range slices.SortedFunc(slices.Values(s.Tables), func(a, b sink.Renamed) int { return strings.Compare(a.New, b.New) }) {
			if _, err := tx.Exec(ctx, `DROP TABLE IF EXISTS `+d.ident(t.New)); err != nil {
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
