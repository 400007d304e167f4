// Package schemas ties bytes to their schemas: it encodes what a producer publishes and decodes what a consumer
// reads, by the schemas of any Confluent-compatible registry.
//
// A value on the wire is a frame, 0x00 and the id of the schema it was written with, and the Avro body. To write,
// the schema of the Go type is looked up in the topic's subject; to read, the writer's schema is resolved to the one
// of the Go type, so that both may change at their own pace:
//
//	reg, err := schemas.New(schemas.Config{URLs: []string{"http://localhost:8081"}})
//	e := event.New("shop.orders", order.OrderID, order)
//	value, err := reg.Encode(ctx, nil, &e)
//	...
//	var order shop.OrderPlaced
//	err = reg.Decode(ctx, &e, &order)
//
// # Go types
//
// A struct's fields are matched by their avro tags. How a type says its name and its schema is told by [Named],
// [Described] and [Generated]. An int64 takes a timestamp as it is on the wire and a []byte a decimal, which is some
// three times as fast as a time.Time and a *big.Rat.
//
// Data without a Go type is a [Generic], a map[string]any or a json.RawMessage to write, and a *any to read. Values
// are nil, bool, int32, int64, float32, float64, string (also of enums), []byte, []any and map[string]any, and by
// logical type time.Time, time.Duration, *big.Rat (decimal), [16]byte (a fixed UUID) and [Duration]. A union's value
// is bare; a map with one key that names a branch, {"long": 7}, is understood when it is written.
//
// # Errors
//
// Every error wraps one of [ErrPoison], [ErrUnavailable], [ErrIncompatible] and [ErrNotFound] where a consumer must
// tell them apart. What was written with an id that a healthy registry does not know is poison; what cannot be asked
// because the registry is away is unavailable: mixing the two up would empty a topic into the dead letters in an
// outage.
package schemas

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/millrace/millrace/internal/secret"
)

// Topic says how the events of a topic are written. Reading needs none of it, but for a topic whose Format is not
// framed: its values are never taken for a frame.
type Topic struct {
	// Format is how data is written. Nil is Avro.
	Format Format
	// Naming makes the subject. Defaults to ByTopic.
	Naming Naming
	// Latest writes with the subject's latest version instead of the version that is the Go type's own schema, so
	// fields that only the registry knows get their defaults. It is looked up again every Config.TTL.
	Latest bool
	// Create registers a type's schema when it is first written. Off by default: schemas are registered by
	// "millrace schemas register", where a person sees what changes.
	Create bool
}

// Config configures a Registry.
type Config struct {
	// URLs are those of one Confluent-compatible registry; they are tried in order.
	URLs []string
	// TLS is for https URLs. Nil trusts the system's certificates.
	TLS *tls.Config
	// User and Password are for HTTP basic authentication. Empty sends none.
	User     string
	Password secret.String
	// Topics says how topics are written, by name; "*" stands for the others. Defaults to Avro, ByTopic.
	Topics map[string]Topic
	// TTL is how long an answer about the latest version of a subject is good for. Defaults to 30 s.
	TTL time.Duration
	// Limits bound the schemas that are taken from the registry. A zero field takes its default, see Limits.
	Limits Limits
	// Log hears of outages that were bridged with what is known, and of schemas that cannot be parsed. Nil is silent.
	Log *zap.Logger
}

func (c Config) withDefaults() Config {
	if c.TTL == 0 {
		c.TTL = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	if len(c.URLs) == 0 {
		return errors.New("schemas: Config.URLs is empty: name the registry, as in http://localhost:8081")
	}
	for _, raw := range c.URLs {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("schemas: Config.URLs: %q is no http or https URL", redact(raw))
		}
		if u.User != nil {
			return fmt.Errorf("schemas: Config.URLs: %s: put the user and the password into Config.User and Config.Password", u.Redacted())
		}
	}
	if c.TTL < 0 {
		return errors.New("schemas: Config.TTL is negative")
	}
	for name, t := range c.Topics {
		if t.Naming < ByTopic || t.Naming > ByTopicRecord {
			return fmt.Errorf("schemas: Config.Topics[%q].Naming: there is no naming %d", name, t.Naming)
		}
	}
	return nil
}

// redact keeps a password in a URL that does not parse out of the error.
func redact(raw string) string {
	for i := len(raw) - 1; i >= 0; i-- {
		if raw[i] == '@' {
			return "***" + raw[i:]
		}
	}
	return raw
}

// New returns a Registry over cfg.URLs. It asks nothing yet. An error says which field of cfg is wrong.
func New(cfg Config) (*Registry, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b, err := newRemote(cfg)
	if err != nil {
		return nil, err
	}
	return newRegistry(cfg, b), nil
}

// Memory returns a Registry whose schemas live in the process: for tests. It behaves as one over HTTP does, its
// compatibility level is BACKWARD, and it registers what a topic's events need when they are first written. The
// naming is ByTopic, so a topic takes one event type; [MemoryWith] says otherwise.
func Memory() *Registry { return MemoryWith(nil) }

// MemoryWith is [Memory] with the topics as they are configured; no entry for "*" means Avro, ByTopic, Create.
func MemoryWith(topics map[string]Topic) *Registry {
	all := map[string]Topic{"*": {Create: true}}
	maps.Copy(all, topics)
	return newRegistry(Config{Topics: all}.withDefaults(), newMemory())
}

func newRegistry(cfg Config, b backend) *Registry {
	r := &Registry{topics: cfg.Topics, unframed: map[string]bool{}, ttl: cfg.TTL, limits: cfg.Limits, log: cfg.Log, backend: b}
	for name, t := range cfg.Topics {
		if name != "*" && t.Format != nil && !t.Format.Framed() {
			r.unframed[name] = true
		}
	}
	return r
}

// topic is how the topic is written.
func (r *Registry) topic(name string) Topic {
	t, ok := r.topics[name]
	if !ok {
		t = r.topics["*"]
	}
	if t.Format == nil {
		t.Format = Avro()
	}
	return t
}
