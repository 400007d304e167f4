package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/parquetsink"
	"github.com/millrace/millrace/sink/pgsink"
	"github.com/millrace/millrace/sink/sqlitesink"
)

// pgTimeout bounds the first connection to PostgreSQL: a dead one is reported within five seconds.
const pgTimeout = 5 * time.Second

// target is where a sink writes, as commands and the sink itself need it.
type target struct {
	sink.Target
	sink.Admin
	close func()
}

// open opens the file's target. With exists, one that is not there is an error instead of being created.
func (s *sinkFile) open(ctx context.Context, getenv func(string) string, exists bool) (*target, error) {
	switch {
	case s.into.parquet != "":
		return s.openParquet(exists)
	case s.into.sqlite != "":
		return s.openSQLite(exists)
	}
	dsn, err := s.secretDSN(getenv)
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(dsn.Reveal())
	if err != nil {
		return nil, usage(fmt.Errorf("the DSN of PostgreSQL does not read: %w", err)) // it masks the password
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "millrace sink " + s.config.Name
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL: %w", err)
	}
	ping, cancel := context.WithTimeout(ctx, pgTimeout)
	defer cancel()
	if err := pool.Ping(ping); err != nil {
		pool.Close()
		return nil, hint(fmt.Errorf("reach PostgreSQL at %s:%d: %w", cfg.ConnConfig.Host, cfg.ConnConfig.Port, err),
			"see that it runs, and that the DSN says where:  psql \"$DSN\" -c 'select 1'")
	}
	m := pgsink.New(pool, pgsink.Config{Schema: s.into.schema, Timeout: s.into.timeout})
	for _, t := range s.tables {
		m.Table(t)
	}
	return &target{m, m.Admin(), pool.Close}, nil
}

func (s *sinkFile) openSQLite(exists bool) (*target, error) {
	path := s.local(s.into.sqlite)
	if err := there(path, exists); err != nil {
		return nil, err
	}
	db, err := sqlitesink.Open(path)
	if err != nil {
		return nil, err
	}
	m := sqlitesink.New(db, sqlitesink.Config{})
	for _, t := range s.tables {
		m.Table(t)
	}
	return &target{m, m.Admin(), func() { _ = db.Close() }}, nil
}

// openParquet opens a folder. A table there is a topic's own: its columns are those of the file's only table, if it has one.
func (s *sinkFile) openParquet(exists bool) (*target, error) {
	dir := s.local(s.into.parquet)
	if err := there(dir, exists); err != nil {
		return nil, err
	}
	cfg := parquetsink.Config{Dir: dir}
	if len(s.tables) == 1 {
		cfg.Event, cfg.Columns = s.tables[0].Event, s.tables[0].Columns
	}
	out := parquetsink.New(cfg)
	return &target{out, out, func() {}}, nil
}

// there makes sure that a file or folder exists, or that its folder does.
func there(path string, exists bool) error {
	if !exists {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return fmt.Errorf("make the folder of the sink: %w", err)
		}
		return nil
	}
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return hint(fmt.Errorf("there is no %s: the sink has not run yet", path), "run it:  millrace sink -f sink.yaml")
	}
	return err
}

// startAt is the file's start, as it is meant now.
func (s *sinkFile) startAt(now time.Time) (position.Point, error) {
	p, err := position.Parse(s.start, now)
	if err != nil {
		return p, usage(fmt.Errorf("%s: start: %w", s.path, err))
	}
	return p, nil
}
