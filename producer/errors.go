package producer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
)

var (
	// ErrRejected says that the event is certainly not in the log. Whether to publish it again depends on the cause.
	ErrRejected = errors.New("rejected")
	// ErrUnknown says that the event may be in the log, or may still get there. Publish the same value again; its id stays.
	ErrUnknown = errors.New("unknown")
	// ErrClosed says that the producer is closed. Such an event is rejected, unless Close cut it off on its way.
	ErrClosed = errors.New("the producer is closed")
	// ErrTooLarge says that the record is larger than Config.BatchBytes or MaxBytes, or than the topic's max.message.bytes.
	ErrTooLarge = errors.New("the event is too large")
	// ErrUnknownTopic says that the cluster has no such topic, and none is made on the side.
	ErrUnknownTopic = errors.New("the topic does not exist")
	// ErrNotAuthorized says that the cluster refused the login, or the right to write. A *kafka.PermissionError says which.
	ErrNotAuthorized = errors.New("not authorized")
)

// Outcome is the end of an event.
type Outcome int

// The three ends of an event.
const (
	Acked    Outcome = iota // every in-sync replica has it
	Rejected                // certainly not in the log
	Unknown                 // perhaps in the log, now or later
)

// String is "acked", "rejected" or "unknown".
func (o Outcome) String() string {
	switch o {
	case Acked:
		return "acked"
	case Rejected:
		return "rejected"
	default:
		return "unknown"
	}
}

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Acked
	case errors.Is(err, ErrRejected):
		return Rejected
	default:
		return Unknown
	}
}

// Result is the end of one event.
type Result struct {
	// Event is what was published, with Source and Time filled in: publish it again as it is.
	Event event.Event
	// Outcome says whether the event is in the log.
	Outcome Outcome
	// Topic is where it was sent to: Event.Topic, or what Config.Redirect made of it.
	Topic string
	// Partition and Offset are where it is, both -1 unless it is Acked.
	Partition int32
	Offset    int64
	// Err wraps ErrRejected or ErrUnknown and the cause. Nil when it is Acked.
	Err error
}

// Error says that at least one event of a Publish is not acked.
type Error struct {
	// Results has one entry per event, in the order in which they were given to Publish.
	Results []Result
}

// Error counts the outcomes, gives the first cause, and says what to do.
func (e *Error) Error() string {
	var rejected, unknown int
	var first *Result
	for i := range e.Results {
		switch e.Results[i].Outcome {
		case Acked:
			continue
		case Rejected:
			rejected++
		default:
			unknown++
		}
		if first == nil {
			first = &e.Results[i]
		}
	}
	if first == nil {
		return "publish: every event is acked"
	}
	var b strings.Builder
	if len(e.Results) == 1 {
		fmt.Fprintf(&b, "publish event %s to %s: %s: %s", first.Event.ID, first.Event.Topic, first.Outcome, first.Err)
	} else {
		fmt.Fprintf(&b, "publish %d events: %d rejected, %d unknown; the first, %s to %s: %s",
			len(e.Results), rejected, unknown, first.Event.ID, first.Event.Topic, first.Err)
	}
	if unknown > 0 {
		b.WriteString("; unknown events may be in the log: publish the same values again (Error.Retry), their ids stay")
	}
	return b.String()
}

// Unwrap returns the error of each event that is not acked, each cause once, so that errors.Is and errors.As look
// into all of them.
func (e *Error) Unwrap() []error {
	var errs []error
	for i := range e.Results {
		err := e.Results[i].Err
		if err != nil && (len(errs) == 0 || errs[len(errs)-1] != err) { //nolint:errorlint // the same value, not its like
			errs = append(errs, err)
		}
	}
	return errs
}

// Retry returns the events whose outcome is unknown, in their order: publish them again.
func (e *Error) Retry() []event.Event {
	var again []event.Event
	for i := range e.Results {
		if e.Results[i].Outcome == Unknown {
			again = append(again, e.Results[i].Event)
		}
	}
	return again
}

// failure is one event's error: the outcome, the kind where there is a name for it, and the cause.
type failure struct {
	outcome, kind, cause error
}

// Error is the cause: it says what happened, and what to do.
func (f *failure) Error() string { return f.cause.Error() }

// Unwrap gives all three to errors.Is and errors.As.
func (f *failure) Unwrap() []error {
	if f.kind == nil {
		return []error{f.outcome, f.cause}
	}
	return []error{f.outcome, f.kind, f.cause}
}

func rejected(kind, cause error) error { return &failure{ErrRejected, kind, cause} }

func errClosed() error { return rejected(nil, ErrClosed) }

// refusals are answers of a broker to a batch that it did not write, and will not write when it is sent again.
var refusals = []error{
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException,
	kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
	kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation, kerr.UnsupportedCompressionType,
	kerr.UnsupportedForMessageFormat, kerr.InvalidRequiredAcks,
	kafka.ErrReadOnly, // refused on our side
}

// denials are answers about who we are and what we may.
var denials = []error{
	kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
	kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
}

// judge turns what became of an item into its error: nil, or one that wraps ErrRejected or ErrUnknown.
//
// An item is rejected when the client never got as far as choosing its partition, and when the cluster refused it
// and no answer of the cluster was lost meanwhile: a batch whose answer is lost is sent again, so the first attempt may
// be in the log although the second was refused. All else is unknown.
func (p *Producer) judge(it *item, err error) error {
	if err == nil {
		return nil
	}
	if failed, ok := errors.AsType[*failure](err); ok {
		return failed
	}
	if errors.Is(err, kerr.ClusterAuthorizationFailed) {
		p.client.denied.Store(true)
	}
	f := &failure{outcome: ErrUnknown}
	f.kind, f.cause = p.explain(it.record.Topic, err)
	if it.record.Partition < 0 || isAny(err, refusals) && p.watch.lost.Load() == it.lost {
		f.outcome = ErrRejected
	}
	return f
}

func isAny(err error, targets []error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// explain names err's kind, and says what to do about it.
func (p *Producer) explain(topic string, err error) (kind, cause error) {
	switch {
	case errors.Is(err, kgo.ErrClientClosed):
		return ErrClosed, fmt.Errorf("%w before the answer came: %w", ErrClosed, err)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return ErrUnknownTopic, fmt.Errorf("topic %s does not exist: declare it and run millrace topics apply: %w", topic, err)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return ErrTooLarge, fmt.Errorf("the event, or the batch it is in, is too large for topic %s: raise Config.BatchBytes or the topic's max.message.bytes, or publish a reference to the data: %w", topic, err)
	case isAny(err, denials):
		return ErrNotAuthorized, p.cluster.Explain(err, "Write", "topic "+topic)
	}
	return nil, p.cluster.Explain(err, "Write", "topic "+topic)
}

// unanswered is the error of events whose call ends before their answer: because ctx ended, or the login was refused.
func (p *Producer) unanswered(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &failure{outcome: ErrUnknown, cause: p.watch.because(p.cluster, fmt.Errorf("no answer yet: %w", err))}
	}
	return &failure{ErrUnknown, ErrNotAuthorized, p.watch.because(p.cluster, errors.New("no answer yet"))}
}

// watch hears from the client what its promises do not say.
type watch struct {
	lost    atomic.Uint64                 // produce requests whose answer never came
	connect atomic.Pointer[error]         // why the last connection did not come about; nil after one that did
	refused atomic.Pointer[chan struct{}] // closed, and replaced, when a login is refused
}

// OnBrokerE2E counts lost answers.
func (w *watch) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	const produce = 0
	if key == produce && e2e.Err() != nil && e2e.BytesWritten > 0 {
		w.lost.Add(1)
	}
}

// OnBrokerConnect remembers why a connection failed: the client itself tries again in silence, after a refused login
// too.
func (w *watch) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		w.connect.Store(nil)
		return
	}
	w.connect.Store(&err)
	if isAny(err, denials) {
		next := make(chan struct{})
		if waiting := w.refused.Swap(&next); waiting != nil {
			close(*waiting)
		}
	}
}

// refusal is closed when the next login is refused.
func (w *watch) refusal() <-chan struct{} {
	for {
		if ch := w.refused.Load(); ch != nil {
			return *ch
		}
		next := make(chan struct{})
		w.refused.CompareAndSwap(nil, &next)
	}
}

// because adds to err, a wait that ended, why the cluster could not be reached, if it could not.
func (w *watch) because(c kafka.Cluster, err error) error {
	if last := w.connect.Load(); last != nil {
		return fmt.Errorf("%w (the last connection failed: %w)", err, c.Explain(*last, "Write", "cluster"))
	}
	return err
}
