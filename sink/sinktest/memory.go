package sinktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/sink"
)

// Memory is a database in memory: rows with locks, transactions that read what is committed, savepoints, deadlocks
// that are found. It implements [sink.DB], and breaks where its Hook says so.
//
// Several members of one sink share a Memory, as they share a database.
type Memory struct {
	// Now is the clock of seen ids and position rows. Defaults to time.Now.
	Now func() time.Time
	// Hook is called at each step, before it; an error is what the step returns. Nil is none. Set it before use.
	Hook func(ctx context.Context, at Step, tx *Tx) error
	// Bug is a mistake that an adapter could make, for tests that must find it.
	Bug Bug

	mu      sync.Mutex
	changed *sync.Cond
	rows    map[string]any // committed
	locks   map[string]*Tx
	copies  int // rows of tables that have no key
}

// Step is a place where a [Memory] can be made to fail.
type Step string

// The steps.
const (
	Begin   Step = "begin"
	Advance Step = "advance"
	Seen    Step = "seen"
	Load    Step = "load"
	Store   Step = "store"
	Write   Step = "write"
	// Commit is before the transaction takes effect, Committed after it.
	Commit    Step = "commit"
	Committed Step = "committed"
	Claim     Step = "claim"
	Settle    Step = "settle"
)

// Bug is a planted mistake.
type Bug string

// The bugs.
const (
	// NoBug is none.
	NoBug Bug = ""
	// NoCompare moves a position without looking where it stands.
	NoCompare Bug = "no compare-and-set"
	// CommitEarly keeps the position although what follows it in the transaction fails.
	CommitEarly Bug = "commit before write"
	// LockOnly locks the rows of fold keys that exist and makes none, so that two members see a key for the first time.
	LockOnly Bug = "a fold key first seen by two members at once"
)

// Error is an error of the database.
type Error struct {
	Fault sink.Fault
	Text  string
}

func (e *Error) Error() string { return e.Text }

// The errors that a [Memory] returns by itself. A hook may return them as well.
var (
	ErrAway     = &Error{sink.Away, "the database does not answer"}
	ErrDeadlock = &Error{sink.Again, "deadlock found"}
	ErrData     = &Error{sink.Data, "the value does not fit"}
	ErrWrong    = &Error{sink.Wrong, "the table does not exist"}
	ErrAborted  = &Error{sink.Wrong, "the transaction is aborted: commands are ignored until it ends"}
)

// NewMemory returns an empty database.
func NewMemory() *Memory {
	m := &Memory{Now: time.Now, rows: make(map[string]any), locks: make(map[string]*Tx)}
	m.changed = sync.NewCond(&m.mu)
	return m
}

var _ sink.DB[*Tx] = (*Memory)(nil)

// Tx is a transaction of a [Memory].
type Tx struct {
	m      *Memory
	writes map[string]any // nil: deleted
	log    []undo
	held   []string
	waits  string // the row it waits for
	broken bool   // an error has aborted it
}

type undo struct {
	key string
	old any
	had bool
}

// get is what tx sees of a row; m.mu is held.
func (tx *Tx) get(key string) (any, bool) {
	if v, ok := tx.writes[key]; ok {
		return v, v != nil
	}
	v, ok := tx.m.rows[key]
	return v, ok
}

// set writes a row that is locked; m.mu is held.
func (tx *Tx) set(key string, v any) {
	old, had := tx.writes[key]
	tx.log = append(tx.log, undo{key, old, had})
	tx.writes[key] = v
}

// lock waits for a row; m.mu is held and released meanwhile.
func (tx *Tx) lock(ctx context.Context, key string) error {
	m := tx.m
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.changed.Broadcast()
	})()
	for owner := m.locks[key]; owner != nil && owner != tx; owner = m.locks[key] {
		if ctx.Err() != nil {
			return tx.abort(fmt.Errorf("wait for a row: %w", ctx.Err()))
		}
		if m.cycle(tx, key) {
			return tx.abort(ErrDeadlock)
		}
		tx.waits = key
		m.changed.Wait()
		tx.waits = ""
	}
	if m.locks[key] == nil {
		m.locks[key] = tx
		tx.held = append(tx.held, key)
	}
	return nil
}

// cycle reports whether waiting for key would have tx wait for itself.
func (m *Memory) cycle(tx *Tx, key string) bool {
	for owner := m.locks[key]; owner != nil; owner = m.locks[owner.waits] {
		if owner == tx {
			return true
		}
		if owner.waits == "" {
			return false
		}
	}
	return false
}

// abort is what an error does to a transaction: only its end, or that of a savepoint, brings it out.
func (tx *Tx) abort(err error) error {
	tx.broken = true
	return err
}

// step begins a call: it asks the hook, and takes the lock of the database when there is no error.
func (m *Memory) step(ctx context.Context, at Step, tx *Tx) (unlock func(), err error) {
	if err := m.hook(ctx, at, tx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	if tx != nil && tx.broken {
		m.mu.Unlock()
		return nil, ErrAborted
	}
	return m.mu.Unlock, nil
}

func (m *Memory) hook(ctx context.Context, at Step, tx *Tx) error {
	err := ctx.Err()
	if err == nil && m.Hook != nil {
		err = m.Hook(ctx, at, tx)
	}
	if err == nil {
		return nil
	}
	if tx != nil {
		m.mu.Lock()
		tx.broken = true
		m.mu.Unlock()
	}
	return fmt.Errorf("%s: %w", at, err)
}

// InTx implements [sink.DB]. A hook that fails at Committed is a COMMIT without an answer that took effect; one that
// wraps [sink.ErrUnknownCommit] at Commit is one that did not.
func (m *Memory) InTx(ctx context.Context, f func(ctx context.Context, tx *Tx) error) error {
	if err := m.hook(ctx, Begin, nil); err != nil {
		return err
	}
	tx := &Tx{m: m, writes: make(map[string]any)}
	defer m.end(tx)
	err := f(ctx, tx)
	if err == nil {
		err = m.hook(ctx, Commit, tx)
	}
	m.mu.Lock()
	if err == nil && tx.broken {
		err = ErrAborted
	}
	if err != nil && m.Bug != CommitEarly {
		m.mu.Unlock()
		return err
	}
	for key, v := range tx.writes {
		switch {
		case err != nil && !strings.HasPrefix(key, "position/"):
		case v == nil:
			delete(m.rows, key)
		default:
			m.rows[key] = v
		}
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if m.Hook != nil {
		if err := m.Hook(ctx, Committed, tx); err != nil {
			return fmt.Errorf("%w: %w", sink.ErrUnknownCommit, err)
		}
	}
	return nil
}

// end gives the locks of tx back.
func (m *Memory) end(tx *Tx) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range tx.held {
		delete(m.locks, key)
	}
	m.changed.Broadcast()
}

// Try implements [sink.DB].
func (m *Memory) Try(ctx context.Context, tx *Tx, f func(ctx context.Context) error) error {
	unlock, err := m.step(ctx, "savepoint", tx)
	if err != nil {
		return err
	}
	mark := len(tx.log)
	unlock()
	err = f(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && tx.broken {
		err = ErrAborted
	}
	if err == nil {
		return nil
	}
	for i := len(tx.log) - 1; i >= mark; i-- {
		if u := tx.log[i]; u.had {
			tx.writes[u.key] = u.old
		} else {
			delete(tx.writes, u.key)
		}
	}
	tx.log, tx.broken = tx.log[:mark], false
	return err
}

// Fault implements [sink.DB].
func (m *Memory) Fault(err error) sink.Fault {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Fault
	}
	return sink.Foreign
}

// Get reads a row of the user's own, for functions of a sink.
func (tx *Tx) Get(ctx context.Context, key string) (string, error) {
	unlock, err := tx.m.step(ctx, "get", tx)
	if err != nil {
		return "", err
	}
	defer unlock()
	v, _ := tx.get("user/" + key)
	s, _ := v.(string)
	return s, nil
}

// Put locks and writes a row of the user's own.
func (tx *Tx) Put(ctx context.Context, key, value string) error {
	unlock, err := tx.m.step(ctx, "put", tx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := tx.lock(ctx, "user/"+key); err != nil {
		return err
	}
	tx.set("user/"+key, value)
	return nil
}

// Values returns the rows of the users' own that are committed.
func (m *Memory) Values() map[string]string {
	out := make(map[string]string)
	each(m, "user/", func(key string, v any) { out[key] = v.(string) }) //nolint:forcetypeassert // Put writes strings
	return out
}

// States returns the states of a fold that are committed, by key: with windows "key@2006-01-02T15:04:05Z".
func (m *Memory) States(fold string) map[string]string {
	out := make(map[string]string)
	each(m, "fold/"+fold+"/", func(key string, v any) {
		if b, ok := v.([]byte); ok && b != nil {
			out[key] = string(b)
		}
	})
	return out
}

// each calls f for the committed rows whose name begins with prefix, by what follows it.
func each(m *Memory, prefix string, f func(key string, v any)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, v := range maps.All(m.rows) {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			f(name, v)
		}
	}
}

// Refuse is a statement that the database answers with err: the transaction is aborted.
func (tx *Tx) Refuse(err error) error {
	tx.m.mu.Lock()
	defer tx.m.mu.Unlock()
	return tx.abort(err)
}
