package service

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/replay"
)

// The modes of --replay-mode.
const (
	modeShadow  = "shadow"
	modeRewind  = "rewind"
	modeRebuild = "rebuild"
)

// replayFlags are the flags of a replay, each a variable too.
type replayFlags struct {
	ID, From, Until, Topics, Speed, Clock, Mode, Publish, Capture, Backups string
	Parallel                                                               string
	Idempotent                                                             string
}

// table is every flag, in the order of its meaning.
func (f *replayFlags) table() []struct {
	name, usage string
	to          *string
} {
	return []struct {
		name, usage string
		to          *string
	}{
		{"replay", "run the handlers over a stretch of the past, by this `name`, or auto; the same name goes on where it was", &f.ID},
		{"replay-from", "the first `position` to replay: -1h, start, 2026-11-22T09:00Z, offset:123", &f.From},
		{"replay-until", "the first `position` not to replay; now when it is not set", &f.Until},
		{"replay-topics", "only these of the consumers' `topics`", &f.Topics},
		{"replay-speed", "`1x` keeps the gaps between events, 10x makes them a tenth; max when it is not set", &f.Speed},
		{"replay-clock", "which `time` of an event is now to its handler: record (when it was published, the default) or event (when it happened)", &f.Clock},
		{"replay-mode", "`mode`: shadow (the default), where nothing live changes; rewind moves the groups back; rebuild builds the tables of sinks anew", &f.Mode},
		{"replay-publish", "`where` events go in a shadow: redirect (topics replay.NAME.TOPIC, the default) or capture (nowhere)", &f.Publish},
		{"replay-capture", "append what handlers cause in a shadow to this `file`, as JSON lines", &f.Capture},
		{"replay-parallel", "handle so `many` events at once in a shadow, those of a key in order; 1 when it is not set", &f.Parallel},
		{"replay-allow-idempotent", "`true` lets requests with an Idempotency-Key out of a shadow", &f.Idempotent},
		{"replay-backups", "keep the offsets that a rewind replaces in this `directory`; where millrace groups keeps them when it is not set", &f.Backups},
	}
}

// register reads the variables and defines the flags.
func (f *replayFlags) register(fs *flag.FlagSet, env func(string) string) {
	for _, x := range f.table() {
		*x.to = env(Env(x.name))
		fs.StringVar(x.to, x.name, *x.to, x.usage+" ["+Env(x.name)+"]")
	}
	if f.Backups == "" {
		f.Backups = backupsDir(env)
	}
}

// ReplayVars are the variables of a replay's flags by the names of the flags, for a program that runs a service.
func ReplayVars() map[string]string {
	out := map[string]string{}
	for _, x := range new(replayFlags).table() {
		out[x.name] = Env(x.name)
	}
	return out
}

// replaying is a service that is to run its handlers over a range.
type replaying struct {
	replayFlags
	span     position.Range
	clock    replay.Clock
	speed    float64
	parallel int
	guard    *replay.Guard
	log      *zap.Logger
	deps     func() (main string, deps []string)

	file  *os.File // of captures
	roles []*role
	sinks bool     // one was registered
	safe  []string // why what cannot be guarded changes nothing
	allow []func(*http.Request) bool

	create func(topic, name string) error // makes a topic like another one
	mu     sync.Mutex
	into   map[string]string // redirected topics that exist, by topic

	plant struct{ liveTopics bool } // a fault that a test plants
}

// maxReplayID leaves room for a group behind it: package replay takes 80 characters.
const maxReplayID = 40

var replayID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,40}$`)

// parse makes a replay of the flags: nil without --replay.
func (f replayFlags) parse(now time.Time) (*replaying, error) {
	if f.ID == "" {
		f.Backups = ""
		for _, x := range f.table() {
			if *x.to != "" {
				return nil, fault(x.name, errors.New("there is no replay: name one with --replay NAME, or --replay auto"))
			}
		}
		return nil, nil //nolint:nilnil // no replay is no error
	}
	r := &replaying{replayFlags: f, parallel: 1, deps: linked, into: map[string]string{}}
	if r.ID == "auto" {
		r.ID = strings.ReplaceAll(now.UTC().Format("r20060102t150405.000"), ".", "") // also as a part of tables' names
	}
	if !replayID.MatchString(r.ID) {
		return nil, fault("replay", fmt.Errorf("%q: letters, digits, dots, dashes and underscores, at most %d", r.ID, maxReplayID))
	}
	if err := r.place(now); err != nil {
		return nil, err
	}
	if err := r.choose(); err != nil {
		return nil, err
	}
	r.guard = &replay.Guard{ID: r.ID, Allow: r.allowed}
	return r, nil
}

// place reads where the range begins and ends.
func (r *replaying) place(now time.Time) (err error) {
	if r.From != "" {
		if r.span.From, err = position.Parse(r.From, now); err != nil {
			return fault("replay-from", err)
		}
	}
	r.span.Until = position.Point{Kind: position.End}
	if r.Until != "" {
		if r.span.Until, err = position.Parse(r.Until, now); err != nil {
			return fault("replay-until", err)
		}
	}
	if err := r.span.Validate(); err != nil {
		return fault("replay-until", err)
	}
	return nil
}

// choose reads the flags that have a few values each.
func (r *replaying) choose() error {
	for _, x := range []struct {
		flag    string
		to      *string
		choices []string // the first is the default
	}{
		{"replay-mode", &r.Mode, []string{modeShadow, modeRewind, modeRebuild}},
		{"replay-clock", &r.Clock, []string{"record", "event"}},
		{"replay-publish", &r.Publish, []string{"redirect", "capture"}},
	} {
		if *x.to == "" {
			*x.to = x.choices[0]
		}
		if !slices.Contains(x.choices, *x.to) {
			return fault(x.flag, fmt.Errorf("%q is none of %s", *x.to, strings.Join(x.choices, ", ")))
		}
	}
	if r.Clock == "event" {
		r.clock = replay.EventClock
	}
	if r.Mode == modeRewind && (r.From == "" || r.Until != "") {
		return fault("replay-mode", errors.New("a rewind needs --replay-from and takes no --replay-until: the groups go on to the end by themselves"))
	}
	if r.Speed != "" && r.Speed != "max" {
		n, err := strconv.ParseFloat(strings.TrimSuffix(r.Speed, "x"), 64)
		if err != nil || !(n > 0 && n <= 1e6) {
			return fault("replay-speed", fmt.Errorf("%q: write 1x, 10x, 0.5x or max", r.Speed))
		}
		r.speed = n
	}
	if r.Parallel != "" {
		n, err := strconv.Atoi(r.Parallel)
		if err != nil || n < 1 || n > 1024 {
			return fault("replay-parallel", fmt.Errorf("%q is no number from 1 to 1024", r.Parallel))
		}
		r.parallel = n
	}
	if r.Idempotent != "" {
		yes, err := parseBool(r.Idempotent)
		if err != nil {
			return fault("replay-allow-idempotent", err)
		}
		if yes {
			r.allow = append(r.allow, func(q *http.Request) bool { return q.Header.Get("Idempotency-Key") != "" })
		}
	}
	return nil
}

func (r *replaying) allowed(q *http.Request) bool {
	return slices.ContainsFunc(r.allow, func(f func(*http.Request) bool) bool { return f(q) })
}

// only are the topics that are asked for, none for all.
func (r *replaying) only() []string {
	if r.Topics == "" {
		return nil
	}
	return strings.Split(r.Topics, ",")
}

// takes are the topics of a role that are replayed.
func (r *replaying) takes(topics []string) []string {
	only := r.only()
	if len(only) == 0 {
		return topics
	}
	return slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return !slices.Contains(only, t) })
}

// ReplaySafe declares what a replay in shadow cannot guard: that the handlers' own pool of a database, client of another
// broker, files or sockets change nothing that lives, and why: "the orders pool: reads only". Without it a service that is
// linked with a database or broker driver beyond Millrace's sinks is not replayed.
//
// What a shadow guards: events of [Service.Producer]; calls of [Service.HTTP] and, for as long as the replay runs, of
// http.DefaultClient and http.DefaultTransport; Kafka clients made from [Service.Cluster], which reads alone; tables,
// folds and functions of [Service.Sink]; dead letters; loops of [Service.Go], which do not start; and event.Now.
//
// What it does not: an http.Transport, a Kafka client or a kafka.Cluster of the author's own; databases, files, processes
// and sockets; schemas that are registered by writing (off by default); time.Now; and what the wire function does.
func (s *Service) ReplaySafe(why string) {
	if s.replaying != nil {
		s.replaying.safe = append(s.replaying.safe, why)
	}
}

// ReplayAllow marks requests that may leave a replay in shadow: those that change nothing, or that a service takes once
// however often they come. They are captured all the same. Outside of a replay it does nothing.
func (s *Service) ReplayAllow(safe func(*http.Request) bool) {
	if s.replaying != nil {
		s.replaying.allow = append(s.replaying.allow, safe)
	}
}

// live is the cluster with the rights that the settings give.
func (s *Service) live() kafka.Cluster {
	c := s.Cluster
	if s.replaying != nil {
		c.ReadOnly = false
	}
	return c
}

// startReplay makes a service one that is replayed, before it is wired.
func (s *Service) startReplay(ctx context.Context) (stop func() error, err error) {
	r := s.replaying
	r.log = s.Log.With(zap.String("replay", r.ID))
	s.control = false
	s.Cluster.ReadOnly = true
	r.create = func(topic, name string) error { return makeRedirected(ctx, s.live(), topic, name) }
	if r.Capture != "" {
		if r.file, err = openCapture(r.Capture); err != nil {
			return nil, fault("replay-capture", err)
		}
		r.guard.Capture = replay.NewWriter(r.file).Write
	}
	s.http.Transport = r.guard.Transport(http.DefaultTransport)
	restore := guardDefaults(r.guard)
	return func() error {
		restore()
		if r.file != nil {
			return r.file.Close()
		}
		return nil
	}, nil
}

// lineStart begins each line of a capture.
const lineStart = `{"millrace":`

// openCapture opens a capture, to go on behind it. A last line that a crash or a full disk has cut is taken away: the event
// that it belongs to is captured again.
func openCapture(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() { // no pipe, and no terminal
		err = mendCapture(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func mendCapture(f *os.File) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	at := end // of what has no end
	for block := make([]byte, 64<<10); at > 0; {
		b := block[:min(int64(len(block)), at)]
		if _, err := f.ReadAt(b, at-int64(len(b))); err != nil {
			return err //nolint:wrapcheck // it names the file
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			at -= int64(len(b) - i - 1)
			break
		}
		at -= int64(len(b))
	}
	if at == end {
		return nil
	}
	begin := make([]byte, min(int64(len(lineStart)), end-at))
	if _, err := f.ReadAt(begin, at); err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	if !strings.HasPrefix(lineStart, string(begin)) {
		return fmt.Errorf("%s does not end as a capture does: name another file", f.Name())
	}
	return f.Truncate(at) //nolint:wrapcheck // it names the file
}

// shadowProducer makes cfg one of a shadow: what is published goes elsewhere, and is captured.
func (s *Service) shadowProducer(cfg *producer.Config) {
	r := s.replaying
	if !r.plant.liveTopics {
		own := cfg.Redirect
		cfg.Redirect = func(topic string) (string, error) {
			if own != nil {
				var err error
				if topic, err = own(topic); err != nil || topic == "" {
					return topic, err
				}
			}
			if r.Publish == "capture" {
				return "", nil
			}
			return r.redirect(topic)
		}
	}
	own := cfg.Capture
	cfg.Capture = func(ctx context.Context, e *event.Event) {
		if own != nil {
			own(ctx, e)
		}
		r.guard.Note(ctx, s.published(ctx, e))
	}
}

// published is an event as a capture has it.
func (s *Service) published(ctx context.Context, e *event.Event) replay.Effect {
	out := replay.Effect{Kind: replay.KindPublish, Target: e.Topic, ID: e.ID, Type: e.Type, Key: replay.Text(e.Key)}
	for _, h := range e.Headers {
		switch {
		case strings.HasPrefix(h.Key, "ce_"), h.Key == event.HeaderContentType, h.Key == event.HeaderTraceParent, h.Key == "tracestate", h.Key == "baggage":
			continue
		}
		if out.Headers == nil {
			out.Headers = map[string]string{}
		}
		out.Headers[h.Key] = string(h.Value)
	}
	body, err := s.Schemas.AppendJSON(ctx, nil, e)
	if err != nil {
		out.Body = replay.Value(e.Value) // of no format that we know
		return out
	}
	out.Body = replay.Value(body)
	return out
}
