// Package gateway takes webhooks in: what a sender of [signature] posts is verified, kept as it came, and published
// once; then the sender hears a 2xx. It stands before the producer, at the edge where strangers are.
//
//	g, err := gateway.New(producer, registry, gateway.Config{Folder: gateway.Folder{Dir: "sources"}})
//	…
//	err = g.Run(ctx, listener) // POST /in/stripe, as sources/stripe.yaml says
//
// # What a 2xx means
//
// Every in-sync replica has the event. When Kafka is slow the request is held, within the time that its sender waits;
// then the sender is told to come again (503 with Retry-After), and what became of the event is waited for all the same:
// a repeat that arrives meanwhile hears its outcome. There is no spool on this machine.
//
// # Repeats
//
// An id that was acknowledged is not published again, as long as it is remembered: see [signature.Scheme.Identify]. It
// is remembered only then; a repeat that arrives while the first is under way waits for it. Copies that a crash, or a
// second gateway, makes share their ce_id.
//
// # Bounds
//
// Connections, headers, bodies, the time that a body takes, what is being read and what is on its way to Kafka are
// bounded, over all and for each source: a flood on one source leaves room for the others.
//
// # Answers
//
// Whoever fails hears a status, a general word and the request's id. The reason is in the log and in the metrics.
package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/dial"
	"github.com/millrace/millrace/schemas"
)

// Publisher is what events go through; *producer.Producer is one.
type Publisher interface {
	event.Publisher
	// PublishAsync sends e and calls done exactly once, with nil when every in-sync replica has it, or with an error
	// that wraps producer.ErrRejected (certainly not in the log) or producer.ErrUnknown. ctx bounds the wait for room.
	PublishAsync(ctx context.Context, e event.Event, done func(event.Event, error))
}

// Config configures a Gateway.
type Config struct {
	// Folder holds the sources.
	Folder Folder
	// Poll is how often the folder is looked at for changes. Defaults to 2 s.
	Poll time.Duration
	// Reload makes the gateway look at once: for SIGHUP. Nil is never.
	Reload <-chan struct{}
	// Prepare is called with the sources before they are used: to check, or make, their topics. Its error keeps the
	// sources that are in use. Nil does nothing.
	Prepare func(ctx context.Context, sources []*Source) error
	// Seen keeps what was seen, for the next start. Nil keeps nothing.
	Seen SeenLog
	// Instance names this gateway among those that share Seen. Defaults to "gateway".
	Instance string
	// Proxies are the networks of load balancers, whose X-Forwarded-For is believed. Empty believes nobody.
	Proxies []netip.Prefix
	// MaxConns bounds the connections that are open at once, ConnsPerIP those of one address that is no proxy's, and
	// the requests of one address behind a proxy. They default to 2,048 and 256.
	MaxConns, ConnsPerIP int
	// ReadBytes bounds the bodies that are in memory, ProduceBytes what is on its way to Kafka: no more than the
	// producer's MaxBytes. A source has at most a quarter of either. They default to 256 MiB and 64 MiB.
	ReadBytes, ProduceBytes int64
	// Client fetches certificates and confirms subscriptions. Defaults to that of [dial.Client].
	Client *http.Client
	// Issuers fetches the certificate of an authority, which has it behind http: only hosts of those that issue the
	// senders' are asked. Defaults to that of [dial.Client] with http.
	Issuers *http.Client
	// Drain is how long requests may go on when ctx has ended. Defaults to 10 s: a held request ends within 8.
	Drain time.Duration
	// DrainWait is how long it goes on to answer when ctx has ended, and says that it is not ready: so long may a balancer
	// take to see that. 0 is not at all.
	DrainWait time.Duration
	// Observer hears of every request. Nil is none.
	Observer Observer
	// Log hears of reloads, dead letters and outages. Nil is silent.
	Log *zap.Logger

	plant plant
	roots *x509.CertPool // of the senders' certificates; nil is the system's
}

// plant are bugs that a test plants to see that another test finds them.
type plant struct {
	answerEarly  bool // the answer does not wait for the acknowledgement
	markEarly    bool // an id is remembered before its acknowledgement
	dedupeEarly  bool // repeats are told before they are verified
	verifyParsed bool // what is verified was parsed and written again
}

const (
	defaultPoll         = 2 * time.Second
	defaultMaxConns     = 2048
	defaultConnsPerIP   = 256
	defaultReadBytes    = 256 << 20
	defaultProduceBytes = 64 << 20
	defaultDrain        = 10 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Poll == 0 {
		c.Poll = defaultPoll
	}
	if c.Instance == "" {
		c.Instance = "gateway"
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.ConnsPerIP == 0 {
		c.ConnsPerIP = defaultConnsPerIP
	}
	if c.ReadBytes == 0 {
		c.ReadBytes = defaultReadBytes
	}
	if c.ProduceBytes == 0 {
		c.ProduceBytes = defaultProduceBytes
	}
	if c.Drain == 0 {
		c.Drain = defaultDrain
	}
	if c.Client == nil {
		c.Client = dial.Client(dial.Config{})
	}
	if c.Issuers == nil {
		c.Issuers = dial.Client(dial.Config{HTTP: true})
	}
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Folder.Dir == "":
		return errors.New("config: Folder.Dir is empty: name the folder of sources")
	case c.Poll < 0 || c.Drain < 0 || c.DrainWait < 0:
		return errors.New("config: Poll, Drain and DrainWait are positive times")
	case c.MaxConns < 0 || c.ConnsPerIP < 0:
		return errors.New("config: MaxConns and ConnsPerIP are positive numbers")
	case c.ReadBytes < 4*maxFile || c.ProduceBytes < 4*maxFile:
		return fmt.Errorf("config: ReadBytes and ProduceBytes are at least %d", 4*maxFile)
	}
	return nil
}

// Gateway takes webhooks in. It is an [http.Handler] once [Gateway.Reload] has succeeded, and runs by [Gateway.Run].
type Gateway struct {
	cfg       Config
	pub       Publisher
	reg       *schemas.Registry
	letters   letterWriter
	log       *zap.Logger
	sources   atomic.Pointer[sources]
	reading   *budget
	producing *budget
	peers     *peers
	health    health
	stopping  atomic.Bool
	certs     *certificates

	up        chan struct{} // closed when Run has loaded the sources
	reloading sync.Mutex
	broken    atomic.Pointer[string] // why the folder is not used as it is; nil where it is
	states    sync.Map               // name → *state; they outlive reloads
	unread    chan struct{}          // wakes restore: there are ids to read back
	tasks     *tasks                 // what has no outcome yet
}

// sources is a set of them that is used as a whole.
type sources struct {
	byName map[string]*served
	print  [32]byte
}

// served is a source with what it has in memory.
type served struct {
	*Source

	*state
}

// New returns a Gateway that publishes through pub. reg encodes what it publishes; events of the type
// millrace.webhook.Received must be known to it, or be registered by it.
func New(pub Publisher, reg *schemas.Registry, cfg Config) (*Gateway, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return &Gateway{
		cfg: cfg, pub: pub, reg: reg, letters: newLetterWriter(pub), log: cfg.Log,
		reading: newBudget(cfg.ReadBytes), producing: newBudget(cfg.ProduceBytes),
		peers: newPeers(cfg.ConnsPerIP, cfg.Proxies), certs: newCertificates(cfg.Client, cfg.Issuers, cfg.roots),
		tasks: newTasks(), up: make(chan struct{}), unread: make(chan struct{}, 1),
	}, nil
}

// Reload reads the folder and uses what it says from the next request on. After an error everything is as before.
// It returns false where nothing has changed.
func (g *Gateway) Reload(ctx context.Context) (changed bool, err error) {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	defer func() {
		if err != nil {
			text := err.Error()
			g.broken.Store(&text)
		}
	}()
	l, err := g.cfg.Folder.load(ctx, g.reg)
	if err == nil {
		err = g.some(l)
	}
	if err != nil {
		return false, err
	}
	old := g.sources.Load()
	if old != nil && old.print == l.print {
		g.broken.Store(nil)
		return false, nil
	}
	for _, s := range l.sources {
		if s.MaxBody > g.reading.share {
			return false, fmt.Errorf("%s: limits.body is %d: a source may hold %d bytes at once", s.file, s.MaxBody, g.reading.share)
		}
	}
	if g.cfg.Prepare != nil {
		if err := g.cfg.Prepare(ctx, l.sources); err != nil {
			return false, err
		}
	}
	next, more, now := &sources{byName: map[string]*served{}, print: l.print}, false, time.Now()
	for _, s := range l.sources {
		stored, _ := g.states.LoadOrStore(s.Name, newState(s.Name))
		st := stored.(*state) //nolint:forcetypeassert // nothing else is in it
		more = st.remember(s.window(), s.bodyWindow(), now) || more
		next.byName[s.Name] = &served{s, st}
	}
	g.sources.Store(next)
	g.broken.Store(nil)
	g.forget(next.byName, now)
	if more {
		select {
		case g.unread <- struct{}{}:
		default: // it is awake already
		}
	}
	return true, nil
}

// some refuses a folder without a source: a volume that is not mounted looks like it, and would turn every webhook away.
func (g *Gateway) some(l loaded) error {
	switch old := g.sources.Load(); {
	case len(l.sources) > 0:
		return nil
	case old != nil:
		return fmt.Errorf("there is no source in %s any more, and a volume that is not mounted looks so: put the files back, or stop the gateway", g.cfg.Folder.Dir)
	default:
		return fmt.Errorf("there is no source in %s: write a file for each sender, such as stripe.yaml, or name the folder that has them", g.cfg.Folder.Dir)
	}
}

// goneFor is how long what a source remembers outlives its file: one that is missing for a moment, while a folder is
// replaced, must not publish again what it has.
const goneFor = 72 * time.Hour

// forget drops the states of sources that are gone for long. The caller holds reloading.
func (g *Gateway) forget(present map[string]*served, now time.Time) {
	g.states.Range(func(name, value any) bool {
		st := value.(*state) //nolint:forcetypeassert // nothing else is in it
		switch {
		case present[st.name] != nil:
			st.gone = time.Time{}
		case st.gone.IsZero():
			st.gone = now
		case now.Sub(st.gone) > goneFor:
			g.states.Delete(name)
		}
		return true
	})
}

// request is one request on its way through the gateway.
type request struct {
	*served

	id      string
	at      time.Time
	method  string
	http    *http.Request
	header  http.Header
	body    []byte // as it came
	decoded []byte // without its compression
	key     int    // of the signature
}

// outcome is how a request ends.
type outcome struct {
	status      int
	result      Result
	reason      string // of a rejection
	contentType string
	body        []byte
	err         error // for the log
}

// ServeHTTP answers one webhook.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	began := time.Now()
	id := newRequestID()
	name := ""
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("a request panicked", zap.String("request", id), zap.String("source", name), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			g.finish(w, name, id, began, outcome{status: http.StatusInternalServerError, result: Failed})
		}
	}()
	out := g.admit(hr.Context(), w, hr, &request{id: id, at: began, method: hr.Method, http: hr, header: hr.Header}, &name)
	g.finish(w, name, id, began, out)
}

// admit takes a request past the limits of its address and finds its source, whose name it sets.
func (g *Gateway) admit(ctx context.Context, w http.ResponseWriter, hr *http.Request, r *request, name *string) outcome {
	release, ok := g.peers.enter(hr)
	if !ok {
		return rejected(http.StatusTooManyRequests, "address")
	}
	defer release()
	src, out := g.route(hr)
	if src != nil {
		*name, r.served = src.Name, src
	}
	if out.status != 0 {
		return out
	}
	return g.serve(ctx, w, r)
}

func rejected(status int, reason string) outcome {
	return outcome{status: status, result: Rejected, reason: reason}
}

const prefix = "/in/"

// route finds the source of a path, and how the request ends where its path or method lead nowhere.
func (g *Gateway) route(hr *http.Request) (*served, outcome) {
	name, ok := strings.CutPrefix(hr.URL.EscapedPath(), prefix)
	set := g.sources.Load()
	if !ok || set == nil || set.byName[name] == nil {
		return nil, rejected(http.StatusNotFound, "unknown")
	}
	src := set.byName[name]
	switch hr.Method {
	case http.MethodPost, http.MethodPut:
	case http.MethodGet, http.MethodHead: // a handshake, or a person who looks
		if src.Scheme == nil || len(src.Scheme.Handshakes) == 0 || hr.Method == http.MethodHead {
			return src, rejected(http.StatusMethodNotAllowed, "method")
		}
	default:
		return src, rejected(http.StatusMethodNotAllowed, "method")
	}
	return src, outcome{}
}

// serve takes a request of a known source through the rules, in their order: limits, body, handshake or verification,
// repeats, Kafka.
func (g *Gateway) serve(ctx context.Context, w http.ResponseWriter, r *request) outcome {
	if !r.bucket.take(r.Rate, r.at) {
		return rejected(http.StatusTooManyRequests, "rate")
	}
	if r.requests.Add(1) > int64(r.MaxRequests) {
		r.requests.Add(-1)
		return busy("requests")
	}
	defer r.requests.Add(-1)
	ctx, cancel := context.WithDeadline(ctx, r.at.Add(r.hold()))
	defer cancel()
	release, out := g.body(ctx, w, r)
	if release == nil {
		return out
	}
	defer release()
	if g.cfg.plant.dedupeEarly {
		if r.known(r.keys(), time.Now()) {
			return r.thanks(Duplicate)
		}
	}
	if out, done := g.verify(ctx, r); done {
		return out
	}
	return g.accept(ctx, r)
}

// accept publishes a verified request, unless it is a repeat, and waits for the acknowledgement within ctx.
func (g *Gateway) accept(ctx context.Context, r *request) outcome {
	keys := r.keys()
	for {
		f, how := r.claim(keys, time.Now())
		if how == claimSeen {
			return r.thanks(Duplicate)
		}
		if how == claimOwn {
			g.publish(ctx, r, f)
			if g.cfg.plant.answerEarly {
				return r.thanks(Accepted)
			}
		}
		select {
		case <-f.done:
		case <-ctx.Done():
		}
		select {
		case <-f.done:
		default: // the outcome is not known yet, or the sender has gone
			return g.comeAgain(r, f, ctx.Err())
		}
		switch {
		case f.err == nil && how == claimOwn:
			return r.thanks(Accepted)
		case f.err == nil:
			return r.thanks(Duplicate)
		case how == claimOwn || ctx.Err() != nil:
			return g.comeAgain(r, f, f.err)
		} // the one that was waited for failed: try it ourselves
	}
}

// comeAgain is the answer without an acknowledgement. The id is kept, for the sender's own redelivery. Only what Kafka did
// with an event says whether the gateway is deaf: not a registry that is away, nor a sender that has gone.
func (g *Gateway) comeAgain(r *request, f *flight, err error) outcome {
	if f.sent.Load() && !errors.Is(err, context.Canceled) && g.health.failed(time.Now()) {
		g.log.Warn("a webhook did not get through to Kafka in time: senders are told to come again until one does",
			zap.String("source", r.Name), zap.String("request", r.id), zap.Error(err))
	}
	r.refuse(Refusal{ID: f.keys.name(), At: r.at, Request: r.id})
	out := busy("kafka")
	out.err = err
	return out
}

// through notes that something got through to Kafka.
func (g *Gateway) through() {
	if g.health.succeeded() {
		g.log.Info("webhooks get through to Kafka again")
	}
}

// retryAfter is what a sender is told to wait, in seconds: a leader election has ended by then.
const retryAfter = "10"

func busy(reason string) outcome {
	return outcome{status: http.StatusServiceUnavailable, result: Unavailable, reason: reason}
}

// thanks is the 2xx.
func (r *request) thanks(result Result) outcome {
	out := outcome{status: http.StatusOK, result: result, contentType: "text/plain; charset=utf-8", body: []byte("ok")}
	if r.Scheme != nil && r.Scheme.Sender.Answer != "" {
		out.body = []byte(r.Scheme.Sender.Answer)
	}
	return out
}
