package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/deadletter"
	"github.com/millrace/millrace/internal/engine"
	"github.com/millrace/millrace/internal/verdict"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
)

// RebuildSuffix is put behind the names of a sink and its tables while [Config.Rebuild] is set.
const RebuildSuffix = "__v2"

const (
	// reportEvery is the time between two reports of positions to Kafka.
	reportEvery = time.Second
	// closeTimeout bounds the closing of the dead letters' producer.
	closeTimeout = 5 * time.Second
	// inFlight is how many batches are read ahead, over all partitions.
	inFlight = 8
)

var sinkName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

func (c Config) withDefaults() Config {
	if c.Batch == 0 {
		c.Batch = 5000
	}
	if c.Wait == 0 {
		c.Wait = 50 * time.Millisecond
	}
	if c.Burst.Run == 0 {
		c.Burst.Run = 1000
	}
	if c.Burst.Over == 0 {
		c.Burst.Over = 1000
	}
	if c.Observer == nil {
		c.Observer = Silent{}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	switch {
	case !sinkName.MatchString(c.Name):
		return fmt.Errorf("sink: Config.Name %q: letters, digits, dot, underscore and hyphen", c.Name)
	case reserved(c.Name):
		return fmt.Errorf("sink: Config.Name %q: names that end in %s or %s are those of rebuilds", c.Name, RebuildSuffix, oldSuffix)
	case len(c.Topics) == 0:
		return errors.New("sink: Config.Topics is empty: name at least one topic")
	case c.Batch < 0 || c.Batch > 1<<16:
		return fmt.Errorf("sink: Config.Batch is %d, it must be between 1 and 65,536", c.Batch)
	case c.Wait < 0 || c.Dedupe < 0:
		return errors.New("sink: a negative Config.Wait or Dedupe")
	case len(c.Retry.Deferred) > 0:
		return errors.New("sink: Config.Retry.Deferred: a sink keeps the order of its partitions: use Attempts, Backoff and Max")
	case c.Burst.Run < -1 || c.Burst.Over < 0 || c.Burst.Ratio < 0 || c.Burst.Ratio > 1:
		return fmt.Errorf("sink: Config.Burst %+v: Run is -1 or more, Over is positive, Ratio is between 0 and 1", c.Burst)
	}
	for i, t := range c.Topics {
		if t == "" || slices.Contains(c.Topics[:i], t) {
			return fmt.Errorf("sink: Config.Topics %q has an empty or repeated name", c.Topics)
		}
		if err := deadletter.Check(t, c.name()); err != nil {
			return fmt.Errorf("sink: Config.Name: %w", err)
		}
	}
	return nil
}

// reserved reports whether a rebuild could give its own sink or table this name.
func reserved(name string) bool {
	return strings.HasSuffix(name, RebuildSuffix) || strings.HasSuffix(name, oldSuffix)
}

// name is that of the position rows and of the group.
func (c Config) name() string { return c.Name + c.suffix() }

func (c Config) suffix() string {
	if c.Rebuild {
		return RebuildSuffix
	}
	return ""
}

// Run writes the events of cfg.Topics to t, as one member of the sink cfg.Name, until ctx ends, or until a verdict or an
// error ends it. It returns nil when ctx ended. Members share the partitions as those of a consumer group do: the group
// cfg.Name, in which nothing is read back. Its commits say that the position is kept elsewhere.
//
// It ends with an error, and changes nothing, where going on would lose events without a word: a position below the start
// of the log, a topic that was deleted and created again. The error says how to go on.
func Run(ctx context.Context, c kafka.Cluster, dec consumer.Decoder, t Target, cfg Config) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	feed, err := engine.NewGroup(c, engine.GroupConfig{
		Group: cfg.name(), Topics: cfg.Topics, Start: cfg.Start, NoReset: true, InstanceID: cfg.InstanceID,
		SessionTimeout: cfg.SessionTimeout, Log: cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("run sink %s: %w", cfg.name(), err)
	}
	if cfg.CreateTopics {
		err := deadletter.Create(ctx, c, cfg.Name, cfg.Topics...)
		if ctx.Err() != nil {
			return nil // asked to stop
		}
		if err != nil {
			return err
		}
	}
	pub, err := producer.New(c, nil, producer.Config{Log: cfg.Log}) // without a source: the copy keeps its own
	if err != nil {
		return err
	}
	err = run(ctx, feed, feed, dec, t, cfg, deadletter.New(pub, cfg.Name, deadletter.Config{}))
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, pub.Close(closing))
}

// run is Run between its ends.
func run(ctx context.Context, f engine.Feed, l logs, dec consumer.Decoder, t Target, cfg Config, letters graveyard) error {
	w, err := open(ctx, dec, t, cfg)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // asked to stop
	}
	if err != nil && cfg.Rebuild {
		return fmt.Errorf("%w; where an earlier rebuild is in the way, with other columns or without a table, give it up and begin anew: millrace sink rebuild -f FILE --afresh (Admin.Discard in Go)", err)
	}
	if err != nil {
		return err
	}
	places := &places{of: make(map[cursor.ID]*place)}
	s := &store{name: cfg.name(), feed: f, logs: l, target: w, places: places}
	r := &runner{target: w, places: places, cfg: cfg, letters: letters, now: time.Now}
	err = engine.Run(ctx, f, s, r, engine.Config{
		Batch: cfg.Batch, BatchWait: cfg.Wait, InFlight: max(1<<14, inFlight*cfg.Batch),
		CommitEvery: reportEvery, Markers: true, Observer: cfg.Observer, Log: cfg.Log,
	})
	if errors.Is(err, engine.ErrOutOfLog) {
		err = fmt.Errorf("%w: %s", err, rewind(cfg.name()))
	}
	return err
}

// open opens the target. One that is away is waited for, as it is later: a restart is no reason to end.
func open(ctx context.Context, dec consumer.Decoder, t Target, cfg Config) (Writer, error) {
	s := Setup{
		Sink: cfg.name(), Owner: owner(), Topics: cfg.Topics, Suffix: cfg.suffix(),
		Dedupe: cfg.Dedupe, Observer: cfg.Observer, Log: cfg.Log,
		Evolve: cfg.Evolve && !cfg.Rebuild, // one that goes on would leave a new column empty in all that it has written
	}
	began := time.Now()
	for try := 0; ; try++ {
		w, err := t.Open(ctx, dec, s)
		switch {
		case err == nil && try > 0:
			cfg.Log.Info("the target answers: the sink begins", zap.Duration("waited", time.Since(began)))
		case consumer.VerdictOf(err).Kind != verdict.Pause:
		case try == 0:
			cfg.Log.Warn("the target cannot be opened now: the sink waits for it", zap.Error(err))
		}
		if consumer.VerdictOf(err).Kind != verdict.Pause || !sleep(ctx, jitter(min(firstWait<<min(try, 10), maxWait))) {
			return w, err
		}
	}
}

// rewind is what a person does about a position that cannot be gone on from.
func rewind(name string) string {
	return "see what is missing, then choose where to go on: millrace sink rewind plan -f FILE --at …, or --name " + name +
		" and its database in place of the file; Parquet files go on in another directory"
}

// owner names this process, for people who look at position rows.
func owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return cmp.Or(host, "unknown") + "/" + strconv.Itoa(os.Getpid())
}
