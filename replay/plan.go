package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/kafka"
)

// Plan says what Run would do: it reads all of the range that is left, and delivers and writes nothing. Matched is how many
// events there are, First and Last are their times, Expected is how long Speed and Rate make it take. With an ID that has
// progress it is about what is left.
func Plan(ctx context.Context, c kafka.Cluster, cfg Config) (Summary, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Summary{}, err
	}
	f, err := planned(ctx, c, cfg)
	if err != nil {
		return Summary{ID: cfg.ID}, err
	}
	r := newRunner(cfg, f, nil, nil)
	if f.head.Done {
		return r.summary(), nil
	}
	var matched int64
	var first, last time.Time
	var due time.Duration
	summary := func() Summary {
		s := r.summary()
		s.Matched, s.First, s.Last, s.Expected = matched, first, last, due
		return s
	}
	reported := time.Now()
	for e, err := range r.source.events(ctx, c) {
		if err != nil {
			return summary(), fmt.Errorf("plan replay: %w", err)
		}
		at := cfg.Clock.of(&e)
		if matched == 0 || at.Before(first) {
			first = at
		}
		if matched == 0 || at.After(last) {
			last = at
		}
		matched++
		if r.pace.paced() {
			due = r.pace.due(at)
		}
		r.track.skip(&e, passed)
		if cfg.Report != nil && matched%1024 == 0 && time.Since(reported) > commitEvery {
			reported = time.Now()
			cfg.Report(summary())
		}
	}
	r.track.finish()
	return summary(), nil
}

// planned is the range without a lock on it.
func planned(ctx context.Context, c kafka.Cluster, cfg Config) (*frozen, error) {
	if cfg.ID != "" && !cfg.Untracked {
		s, err := openStore(c)
		if err != nil {
			return nil, err
		}
		defer s.close()
		f, err := s.load(ctx, cfg.ID)
		if err == nil && f != nil {
			err = f.check(cfg)
		}
		if f != nil || err != nil {
			return f, err
		}
	}
	f, _, err := begin(ctx, c, nil, cfg, true)
	return f, err
}
