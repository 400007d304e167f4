package producer_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
)

func TestWhatTheClusterAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer *kerr.Error
		want   producer.Outcome
		is     error
		says   string
	}{
		{"too large", kerr.MessageTooLarge, producer.Rejected, producer.ErrTooLarge, "max.message.bytes"},
		{"not authorized", kerr.TopicAuthorizationFailed, producer.Rejected, producer.ErrNotAuthorized, "Write permission on topic a"},
		{"invalid record", kerr.InvalidRecord, producer.Rejected, nil, ""},
		{"policy", kerr.PolicyViolation, producer.Rejected, nil, ""},
		{"an error of the broker", kerr.UnknownServerError, producer.Unknown, nil, "Error.Retry"},
		{"fenced", kerr.ProducerFenced, producer.Unknown, nil, "their ids stay"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t)
			p := open(t, cluster(fake), producer.Config{})
			fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: tt.answer, Count: -1})
			err := p.Publish(soon(t), event.New("a", "k", "x"))
			r := results(t, err)[0]
			if r.Outcome != tt.want || !errors.Is(err, tt.answer) || r.Offset != -1 || r.Partition != -1 {
				t.Errorf("got %v: %v, want %v", r.Outcome, err, tt.want)
			}
			if got := errors.Is(err, producer.ErrRejected); got != (tt.want == producer.Rejected) || errors.Is(err, producer.ErrUnknown) == got {
				t.Errorf("errors.Is disagrees with the outcome: %v", err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %v in it", err, tt.is)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %q, want it to say %q", err, tt.says)
			}
			done := make(chan error, 1)
			p.PublishAsync(soon(t), event.New("a", "k", "x"), func(_ event.Event, err error) { done <- err })
			if err := <-done; !errors.Is(err, tt.answer) || errors.Is(err, producer.ErrRejected) != (tt.want == producer.Rejected) {
				t.Errorf("async: got %v", err)
			}
		})
	}
}

func TestATopicThatDoesNotExistIsReportedSoon(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	err := p.Publish(soon(t), event.New("none", "k", "x"))
	if !errors.Is(err, producer.ErrUnknownTopic) || !errors.Is(err, producer.ErrRejected) || !strings.Contains(err.Error(), "millrace topics apply") {
		t.Errorf("got %v", err)
	}
	if err := fake.CreateTopic("none", 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(soon(t), event.New("none", "k", "x")); err != nil {
		t.Errorf("the topic exists now: %v", err)
	}
}

func TestWithoutRightsNothingHangs(t *testing.T) {
	t.Parallel()
	describe := kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "a", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true}
	write := describe
	write.Operation = kmsg.ACLOperationWrite
	fake := newFake(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("SCRAM-SHA-512", "admin", "s"),
		kfake.User("SCRAM-SHA-512", "nobody", "s"), kfake.User("SCRAM-SHA-512", "looker", "s", describe), kfake.User("SCRAM-SHA-512", "writer", "s", describe, write))
	tests := []struct{ user, topic, says string }{
		{"nobody", "a", "User:nobody has no Write permission on topic a"},
		{"looker", "a", "User:looker has no Write permission on topic a"},
		{"writer", "b", "User:writer has no Write permission on topic b"},
	}
	for _, tt := range tests {
		t.Run(tt.user, func(t *testing.T) {
			t.Parallel()
			p := open(t, kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.SCRAM512(tt.user, "s")}, producer.Config{})
			err := p.Publish(soon(t), event.New(tt.topic, "k", "x"))
			if !errors.Is(err, producer.ErrNotAuthorized) || !errors.Is(err, producer.ErrRejected) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want it to say %q", err, tt.says)
			}
			if _, ok := errors.AsType[*kafka.PermissionError](err); !ok {
				t.Errorf("got %v, want a *kafka.PermissionError in it", err)
			}
		})
	}
}

// Who is given the right to write while it runs needs no restart: a client that was refused its producer id would refuse
// every record from then on.
func TestARightThatIsGrantedLaterCounts(t *testing.T) {
	t.Parallel()
	describe := kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "a", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true}
	fake := newFake(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("SCRAM-SHA-512", "admin", "s"), kfake.User("SCRAM-SHA-512", "looker", "s", describe))
	p := open(t, kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.SCRAM512("looker", "s")}, producer.Config{})
	for range 3 {
		if err := p.Publish(soon(t), event.New("a", "k", "x")); !errors.Is(err, producer.ErrNotAuthorized) || !errors.Is(err, kerr.ClusterAuthorizationFailed) {
			t.Fatalf("got %v, want the refusal of a producer id", err)
		}
	}
	admin, err := kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.SCRAM512("admin", "s")}.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	grant := kadm.NewACLs().Topics("a").Allow("User:looker").AllowHosts("*").Operations(kadm.OpWrite).ResourcePatternType(kadm.ACLPatternLiteral)
	if _, err := kadm.NewClient(admin).CreateACLs(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	ctx := soon(t)
	for {
		err := p.Publish(ctx, event.New("a", "k", "x"))
		if err == nil {
			break
		}
		if !errors.Is(err, producer.ErrNotAuthorized) {
			t.Fatalf("granted: %v", err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestARefusedLoginIsReported(t *testing.T) {
	t.Parallel()
	fake := newFake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "s"))
	fake.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) { // as Apache Kafka answers
		fake.KeepControl()
		answer, ok := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if !ok {
			return nil, nil, false
		}
		answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return answer, nil, true
	})
	p := open(t, kafka.Cluster{Seeds: fake.ListenAddrs(), Auth: kafka.Plain("admin", "guess")}, producer.Config{})
	err := p.Publish(soon(t), event.New("a", "k", "x"))
	if !errors.Is(err, producer.ErrNotAuthorized) || !errors.Is(err, kerr.SaslAuthenticationFailed) || !strings.Contains(err.Error(), "the login was refused") {
		t.Errorf("got %v, want the refused login", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = p.Close(ctx) // the event waits in the buffer: there is no use in waiting for it
}

func TestAReadOnlyClusterTakesNothing(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	c := cluster(fake)
	c.ReadOnly = true
	p := open(t, c, producer.Config{})
	if err := p.Publish(soon(t), event.New("a", "k", "x")); !errors.Is(err, kafka.ErrReadOnly) || !errors.Is(err, producer.ErrRejected) {
		t.Errorf("got %v, want a rejection by ErrReadOnly", err)
	}
	if n := count(fake, "a"); n != 0 {
		t.Errorf("%d records were written", n)
	}
}

func TestAClusterThatIsAwayIsNamedWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	p := open(t, kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}, producer.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := p.Publish(ctx, event.New("a", "k", "x"))
	if cerr := p.Close(ctx); !errors.Is(cerr, producer.ErrUnknown) {
		t.Errorf("Close: got %v, want unknown", cerr)
	}
	if !errors.Is(err, producer.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nothing listens there") {
		t.Errorf("got %v", err)
	}
}

// The broker writes a batch, its answer is lost, and the batch that is sent again is refused: the event is on the
// log, so it must not be called rejected.
func TestARefusalAfterALostAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	try := 0
	fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if try++; try == 1 {
			return nil, errors.New("the connection ends"), true
		}
		return nil, nil, false
	})
	fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed})
	err := p.Publish(soon(t), event.New("a", "k", "x"))
	if !errors.Is(err, kerr.TopicAuthorizationFailed) || !errors.Is(err, producer.ErrUnknown) {
		t.Errorf("got %v, want unknown", err)
	}
}

func TestAnEndingContextLeavesTheOutcomeUnknownAndFailsNobodyElse(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	if err := p.Publish(soon(t), event.New("a", "k", "0")); err != nil { // the topic is known from here on
		t.Fatal(err)
	}
	arrived, release := hold(t, fake)
	ctx, cancel := context.WithCancel(soon(t))
	first := make(chan error, 1)
	e := event.New("a", "k", "1")
	go func() { first <- p.Publish(ctx, e, event.New("a", "k", "bad")) }()
	wait(t, arrived)
	second := make(chan error, 1)
	p.PublishAsync(soon(t), event.New("a", "k", "2"), func(_ event.Event, err error) { second <- err })
	cancel()
	err := <-first
	rs := results(t, err)
	if rs[0].Outcome != producer.Unknown || !errors.Is(rs[0].Err, context.Canceled) || rs[1].Outcome != producer.Rejected {
		t.Errorf("got %v and %v: %v", rs[0].Outcome, rs[1].Outcome, err)
	}
	var failed *producer.Error
	errors.As(err, &failed)
	again := failed.Retry()
	if len(again) != 1 || again[0].ID != e.ID || again[0].Time.IsZero() {
		t.Fatalf("got %+v to retry, want the event with its id and its time", again)
	}
	release()
	if err := <-second; err != nil {
		t.Errorf("another caller's event failed: %v", err)
	}
	if err := p.Publish(soon(t), again...); err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, got := range read(t, fake, "a", 4) {
		ids[got.ID]++
	}
	if ids[e.ID] != 2 {
		t.Errorf("got ids %v: an unknown event was written later and again, with one id", ids)
	}
}

func TestAContextThatHasEndedSendsNothing(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Publish(ctx, event.New("a", "k", "x")); !errors.Is(err, producer.ErrRejected) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a rejection", err)
	}
	if err := p.Close(soon(t)); err != nil || count(fake, "a") != 0 {
		t.Errorf("%d records were written: %v", count(fake, "a"), err)
	}
}

func TestAFullProducerWaitsUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  producer.Config
	}{
		{"records", producer.Config{MaxRecords: 2}},
		{"bytes", producer.Config{MaxBytes: 1000}}, // two records of some 450 bytes
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t)
			p := open(t, cluster(fake), tt.cfg)
			arrived, release := hold(t, fake)
			var mu sync.Mutex
			var ends []error
			async := func(ctx context.Context) {
				p.PublishAsync(ctx, event.New("a", "k", strings.Repeat("x", 300)), func(_ event.Event, err error) {
					mu.Lock()
					ends = append(ends, err)
					mu.Unlock()
				})
			}
			async(soon(t))
			async(soon(t))
			wait(t, arrived)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := p.Publish(ctx, event.New("a", "k", strings.Repeat("x", 300))); !errors.Is(err, producer.ErrRejected) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want a rejection", err)
			}
			waited := make(chan struct{})
			go func() { async(soon(t)); close(waited) }() // waits for room, and gets it
			release()
			wait(t, waited)
			if err := p.Close(soon(t)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(ends...); err != nil || len(ends) != 3 || count(fake, "a") != 3 {
				t.Errorf("got %d ends (%v) and %d records, want 3", len(ends), err, count(fake, "a"))
			}
		})
	}
}

func TestCloseFlushesAndThenNothingIsPublished(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{Linger: time.Minute}) // only a flush ends it
	const n = 100
	ends := 0 // written by the goroutine that serves answers; Close returns after the last
	for range n {
		p.PublishAsync(soon(t), event.New("a", "k", "x"), func(_ event.Event, err error) {
			if err == nil {
				ends++
			}
		})
	}
	if err := p.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	if ends != n || count(fake, "a") != n {
		t.Errorf("got %d answers and %d records, want %d", ends, count(fake, "a"), n)
	}
	e := event.New("a", "k", "x")
	err := p.Publish(soon(t), e)
	if !errors.Is(err, producer.ErrClosed) || !errors.Is(err, producer.ErrRejected) || results(t, err)[0].Event.ID != e.ID {
		t.Errorf("got %v, want ErrClosed", err)
	}
	called := false
	p.PublishAsync(soon(t), e, func(got event.Event, err error) {
		called = errors.Is(err, producer.ErrClosed) && errors.Is(err, producer.ErrRejected) && got.ID == e.ID
	})
	if !called {
		t.Error("PublishAsync: want ErrClosed at once")
	}
	if err := p.Close(soon(t)); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestPublishDoesNotLinger(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{Linger: time.Second})
	ctx := soon(t)
	for range 40 { // the first learns the partitions, and lingers; 20 that linger are too late
		if err := p.Publish(ctx, event.New("a", "k", "x"), event.New("b", "k", "x")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseCutsOffWhatIsLeftAtItsDeadline(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	p := open(t, cluster(fake), producer.Config{MaxRecords: 2})
	arrived, _ := hold(t, fake)
	published := make(chan error, 1)
	go func() { published <- p.Publish(soon(t), event.New("a", "k", "x")) }()
	wait(t, arrived)
	var async error
	p.PublishAsync(soon(t), event.New("a", "k", "x"), func(_ event.Event, err error) { async = err })
	room := make(chan error, 1)
	go func() { room <- p.Publish(soon(t), event.New("a", "k", "x")) }() // there is no room
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, producer.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: got %v, want unknown", err)
	}
	if !errors.Is(async, producer.ErrUnknown) || !errors.Is(async, producer.ErrClosed) {
		t.Errorf("PublishAsync: got %v, want unknown, before Close returns", async)
	}
	if err := <-published; !errors.Is(err, producer.ErrUnknown) || !errors.Is(err, producer.ErrClosed) {
		t.Errorf("Publish: got %v, want unknown", err)
	}
	if err := <-room; !errors.Is(err, producer.ErrRejected) || !errors.Is(err, producer.ErrClosed) {
		t.Errorf("waiting for room: got %v, want a rejection", err)
	}
}
