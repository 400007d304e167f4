package service_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/producer"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

type tick struct {
	N int64 `avro:"n"`
}

func (tick) AvroName() string   { return "test.Tick" }
func (tick) AvroSchema() string { return tickSchema }

var tickSchema = schemas.MustFor[tick]()

// buffer is a bytes.Buffer that a service and a test share.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func broker(t *testing.T) string {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "ticks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k.ListenAddrs()[0]
}

// at is the environment of a service on a broker; pairs are further variables.
func at(addr string, pairs ...string) func(string) string {
	return env(append(pairs, "MILLRACE_BROKERS", addr, "MILLRACE_REGISTRY", "http://127.0.0.1:1")...)
}

func nothing(context.Context, *service.Service) error { return nil }

func TestWrongSettingsExitWithTwo(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		env  func(string) string
		want string
	}{
		{"no broker", nil, env(), "--brokers (MILLRACE_BROKERS)"},
		{"no registry", nil, env("MILLRACE_BROKERS", "b:1"), "--registry (MILLRACE_REGISTRY)"},
		{"a flag that does not exist", []string{"--colour"}, at("b:1"), "-colour"},
		{"an argument", []string{"start"}, at("b:1"), `"start"`},
		{"a log level", []string{"--log-level", "loud"}, at("b:1"), "--log-level (MILLRACE_LOG_LEVEL)"},
		{"a log format", nil, at("b:1", "MILLRACE_LOG_FORMAT", "xml"), "--log-format (MILLRACE_LOG_FORMAT)"},
		{"a variable", nil, at("b:1", "MILLRACE_CREATE_TOPICS", "perhaps"), "MILLRACE_CREATE_TOPICS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var stderr buffer
			if code := service.Run(t.Context(), "shipping", tt.args, tt.env, &stderr, nothing); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if got := stderr.String(); !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("the one line should name %s: %s", tt.want, got)
			}
		})
	}
}

func TestHelpListsFlagsAndVariables(t *testing.T) {
	t.Parallel()
	var stderr buffer
	if code := service.Run(t.Context(), "shipping", []string{"-h"}, env(), &stderr, nothing); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"-brokers host:port", "MILLRACE_SASL_PASSWORD", "-create-topics"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("help does not say %s:\n%s", want, &stderr)
		}
	}
}

func TestABrokerThatIsNotThereExitsWithOneAndItsAddress(t *testing.T) {
	t.Parallel()
	var stderr buffer
	code := service.Run(t.Context(), "shipping", nil, at("127.0.0.1:1"), &stderr, nothing)
	if code != 1 || !strings.Contains(stderr.String(), "127.0.0.1:1") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

func TestAServicePublishesConsumesAndStopsInOrder(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	fd, err := syscall.Dup(int(write.Fd())) // the service's own, as a child's would be
	if err != nil || write.Close() != nil {
		t.Fatal("no descriptor", err)
	}
	const events = 20
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	var stderr buffer
	code := make(chan int, 1)
	go func() {
		code <- service.Run(ctx, "ticker", nil, at(broker(t), service.StatusEnv, fmt.Sprint(fd)), &stderr, func(ctx context.Context, s *service.Service) error {
			s.Schemas = schemas.Memory()
			p, err := s.Producer(producer.Config{})
			if err != nil {
				return err
			}
			var handled sync.WaitGroup
			handled.Add(events)
			mux := consumer.NewMux()
			consumer.On(mux, func(_ context.Context, e event.Of[tick]) error {
				if e.Source != "ticker" {
					t.Errorf("the source is %q", e.Source)
				}
				handled.Done()
				return nil
			})
			s.Consume(mux, consumer.Config{Topics: []string{"ticks"}})
			s.Report(func() string { return "ticking" })
			s.Go("publish", func(ctx context.Context) error {
				for n := range int64(events) {
					if err := p.Publish(ctx, event.New("ticks", fmt.Sprint(n), tick{n})); err != nil {
						return err
					}
				}
				handled.Wait()
				return nil // a loop that ends does not end the service
			})
			return nil
		})
	}()
	states := map[string]bool{}
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		var s service.Status
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if states[s.State] = true; s.Handled == events && s.State == "running" {
			if s.Service != "ticker" || s.Result != "ticking" || s.Rate <= 0 || s.DeadLetters != 0 {
				t.Errorf("the status is %s", lines.Text())
			}
			signal()
		}
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, &stderr)
	}
	for _, want := range []string{"starting", "running", "stopping"} {
		if !states[want] {
			t.Errorf("the status was never %s: %v", want, states)
		}
	}
}

func TestTheFirstErrorEndsAllAndExitsWithOne(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	var stderr buffer
	ended := false
	code := service.Run(t.Context(), "shipping", []string{"--log-format=json"}, at(broker(t)), &stderr, func(_ context.Context, s *service.Service) error {
		s.Go("good", func(ctx context.Context) error {
			<-ctx.Done()
			ended = true
			return ctx.Err()
		})
		s.Go("bad", func(context.Context) error { return boom })
		return nil
	})
	if code != 1 || !ended || !strings.Contains(stderr.String(), `"error":"bad: boom"`) {
		t.Errorf("exit code %d, the other loop ended: %v; %s", code, ended, &stderr)
	}
}

func TestAServiceWithoutLoopsEndsWhenItIsWired(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{0: nil, 1: errors.New("no database")} {
		var stderr buffer
		code := service.Run(t.Context(), "once", nil, at(broker(t)), &stderr, func(ctx context.Context, s *service.Service) error {
			s.Schemas = schemas.Memory()
			p, perr := s.Producer(producer.Config{})
			if perr != nil {
				return perr
			}
			if s.HTTP().Timeout != service.HTTPTimeout {
				t.Error("the HTTP client has no deadline")
			}
			return errors.Join(err, p.Publish(ctx, event.New("ticks", "k", tick{1})))
		})
		if code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, &stderr)
		}
	}
}

func TestAStatusDescriptorThatIsWrongIsAnError(t *testing.T) {
	t.Parallel()
	for _, fd := range []string{"x", "1"} {
		var stderr buffer
		if code := service.Run(t.Context(), "s", nil, at("127.0.0.1:1", service.StatusEnv, fd), &stderr, nothing); code != 1 || !strings.Contains(stderr.String(), service.StatusEnv) {
			t.Errorf("%s: exit code %d: %s", fd, code, &stderr)
		}
	}
}
