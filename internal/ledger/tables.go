package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Query runs a query and calls row for each row of the answer, with what scans it.
type Query func(ctx context.Context, sql string, row func(scan func(...any) error) error) error

// The tables that differ between databases: how to ask for the second that a window starts at.
const (
	PostgresWindow = "extract(epoch FROM window_start)::bigint"
	SQLiteWindow   = "CAST(strftime('%s', window_start) AS INTEGER)"
)

// ByHandColumns are the columns of the table by_hand behind its first, n, which grows with each row.
var ByHandColumns = []string{"event_id", "part", "at", "account", "seq"}

// Tables reads the tables. Without byHand there is none of that name.
func Tables(ctx context.Context, q Query, startSecond string, byHand bool) (*Got, error) {
	g := &Got{Regions: map[Window]Sum{}}
	if byHand {
		err := q(ctx, `SELECT event_id, part, at, account, seq FROM by_hand ORDER BY n`, func(scan func(...any) error) error {
			var r Row
			err := scan(&r.ID, &r.Partition, &r.Offset, &r.Account, &r.Seq)
			g.ByHand = append(g.ByHand, r)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read by_hand: %w", err)
		}
	}
	err := q(ctx, `SELECT event_id, account, seq FROM moves`, func(scan func(...any) error) error {
		var r Row
		err := scan(&r.ID, &r.Account, &r.Seq)
		g.Moves = append(g.Moves, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read moves: %w", err)
	}
	err = q(ctx, `SELECT account, region, seq, cents, note FROM accounts`, func(scan func(...any) error) error {
		var m Moved
		err := scan(&m.Account, &m.Region, &m.Seq, &m.Cents, &m.Note)
		g.Accounts = append(g.Accounts, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	err = q(ctx, `SELECT key, `+startSecond+`, CAST(state AS text) FROM regions`, func(scan func(...any) error) error {
		var region, state string
		var start int64
		if err := scan(&region, &start, &state); err != nil {
			return err
		}
		var s Sum
		err := json.Unmarshal([]byte(state), &s)
		g.Regions[Window{region, time.Unix(start, 0).UTC()}] = s
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read regions: %w", err)
	}
	return g, nil
}
