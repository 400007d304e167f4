package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace/millrace/internal/registry"
	"github.com/millrace/millrace/kafka"
)

// rival is a store in which another process is faster: before our first SCHEMA record comes its own.
type rival struct {
	registry.Store
	key, value string
	fail       error // of every write of a schema, if set
	once       sync.Once
}

func (r *rival) Open(ctx context.Context) (registry.Log, error) {
	log, err := r.Store.Open(ctx)
	return &rivalLog{log, r}, err
}

type rivalLog struct {
	registry.Log
	rival *rival
}

func (l *rivalLog) Append(ctx context.Context, key, value []byte) (int64, error) {
	if strings.Contains(string(key), `"SCHEMA"`) {
		if l.rival.fail != nil {
			return 0, l.rival.fail
		}
		var err error
		l.rival.once.Do(func() { _, err = l.Log.Append(ctx, []byte(l.rival.key), []byte(l.rival.value)) })
		if err != nil {
			return 0, err
		}
	}
	return l.Log.Append(ctx, key, value)
}

// Two processes choose the same number at the same moment: the first in the log has it, the second finds out before it
// answers, puts the log right and takes the next. The bug it guards against gave one id to two schemas.
func TestWriterThatWasSlowerChoosesAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		key, value string
		id         string // given to us
		rivals     string // the path and answer of the rival's schema
		want       string
	}{
		{
			"the same id in another subject",
			`{"keytype":"SCHEMA","subject":"t","version":1,"magic":1}`, `{"subject":"t","version":1,"id":1,"schema":"\"long\"","deleted":false}`,
			`{"id":2}`, "/subjects/t/versions/1", `{"subject":"t","id":1,"version":1,"schema":"\"long\""}`,
		},
		{
			"the same id and version",
			`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}`, `{"subject":"s","version":1,"id":1,"schema":"\"int\"","deleted":false}`,
			`{"id":2}`, "/subjects/s/versions/1", `{"subject":"s","id":1,"version":1,"schema":"\"int\""}`,
		},
		{
			"the same schema",
			`{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}`, `{"subject":"s","version":1,"id":5,"schema":"\"double\"","deleted":false}`,
			`{"id":5}`, "/subjects/s/versions/1", `{"subject":"s","id":5,"version":1,"schema":"\"double\""}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mem := registry.Memory()
			s := start(t, &rival{Store: mem, key: tt.key, value: tt.value})
			exchange{"register", "POST", "/subjects/s/versions", schema(`"double"`), 200, tt.id}.run(t, s)
			exchange{"the rival's", "GET", tt.rivals, nil, 200, tt.want}.run(t, s)
			exchange{"ours", "GET", "/subjects/s/versions/latest/schema", nil, 200, `"double"`}.run(t, s)

			if a, b := dump(s), dump(start(t, compacted(t, mem))); a != b {
				t.Errorf("after compaction\n%s\nbefore\n%s", b, a)
			}
		})
	}
}

// A writer was refused and died before it could choose again: what it has left must not win after compaction.
func TestLeftoversOfACrashedWriterAreSwept(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{
		"ours":    `{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}`,
		"foreign": `{"subject":"s","version":1,"magic":1,"keytype":"SCHEMA"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mem := registry.Memory()
			log := mustOpen(t, mem)
			for _, kv := range [][2]string{
				{`{"keytype":"SCHEMA","subject":"t","version":1,"magic":1}`, `{"subject":"t","version":1,"id":1,"schema":"\"long\"","deleted":false}`},
				{key, `{"subject":"s","version":1,"id":1,"schema":"\"int\"","deleted":false}`},
				// compaction would keep this later record of t, after the leftover
				{`{"keytype":"SCHEMA","subject":"t","version":1,"magic":1}`, `{"subject":"t","version":1,"id":1,"schema":"\"long\"","deleted":true}`},
			} {
				if _, err := log.Append(t.Context(), []byte(kv[0]), []byte(kv[1])); err != nil {
					t.Fatal(err)
				}
			}
			s := start(t, mem)
			exchange{"any write", "PUT", "/config", m{"compatibility": "NONE"}, 200, `{"compatibility":"NONE"}`}.run(t, s)
			after := start(t, compacted(t, mem))
			exchange{"the first has the id", "GET", "/schemas/ids/1/schema", nil, 200, `"long"`}.run(t, after)
			if a, b := dump(s), dump(after); a != b {
				t.Errorf("after compaction\n%s\nbefore\n%s", b, a)
			}
		})
	}
}

// compacted is a store with what Kafka's cleaner would leave of another: the last record of each key, in order.
func compacted(t *testing.T, from registry.Store) registry.Store {
	t.Helper()
	log := mustOpen(t, from)
	end, err := log.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []registry.Record
	last := map[string]int64{}
	for int64(len(all)) < end {
		records, err := log.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			all, last[string(r.Key)] = append(all, r), r.Offset
		}
	}
	clean := registry.Memory()
	to := mustOpen(t, clean)
	for _, r := range all {
		if last[string(r.Key)] != r.Offset || len(r.Value) == 0 {
			continue
		}
		if _, err := to.Append(t.Context(), r.Key, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	return clean
}

func mustOpen(t *testing.T, s registry.Store) registry.Log {
	t.Helper()
	log, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	return log
}

func TestStoreThatFailsIsNotTheClientsFault(t *testing.T) {
	t.Parallel()
	s := start(t, &rival{Store: registry.Memory(), fail: errors.New("the secret name of a broker")})
	status, body := s.do("POST", "/subjects/s/versions", schema(`"int"`))
	if status != 500 || !strings.Contains(body, "50001") || strings.Contains(body, "secret") {
		t.Errorf("got %d %s", status, body)
	}
	exchange{"nothing was registered", "GET", "/subjects", nil, 200, `[]`}.run(t, s)
}

func admin(t *testing.T, c kafka.Cluster) *kadm.Client {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func TestTopicIsCreatedToKeepSchemas(t *testing.T) {
	t.Parallel()
	c := fake(t, kfake.NumBrokers(5))
	start(t, registry.Kafka(c, registry.KafkaConfig{Create: true}))
	adm := admin(t, c)
	details, err := adm.ListTopics(t.Context(), "_schemas")
	if err != nil {
		t.Fatal(err)
	}
	ps := details["_schemas"].Partitions
	if len(ps) != 1 || len(ps[0].Replicas) != 3 {
		t.Errorf("got %+v", ps)
	}
	configs, err := adm.DescribeTopicConfigs(t.Context(), "_schemas")
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range configs[0].Configs {
		if kv.Key == "cleanup.policy" && kv.MaybeValue() != "compact" {
			t.Errorf("cleanup.policy is %s", kv.MaybeValue())
		}
	}
}

func TestTopicThatWouldLoseSchemasIsRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		partitions int32
		policy     string
		want       string
	}{
		{"made by auto-creation", 1, "delete", "cleanup.policy=delete"},
		{"deletes and compacts", 1, "compact,delete", "cleanup.policy=compact,delete"},
		{"several partitions", 3, "compact", "3 partitions"},
		{"no topic", 0, "", "does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := fake(t)
			if tt.partitions > 0 {
				if _, err := admin(t, c).CreateTopic(t.Context(), tt.partitions, 1, map[string]*string{"cleanup.policy": &tt.policy}, "_schemas"); err != nil {
					t.Fatal(err)
				}
			}
			reg, err := registry.New(registry.Kafka(c, registry.KafkaConfig{}), registry.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if err := reg.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// stopping is a store during whose call at the registry is told to stop.
type stopping struct {
	at   string
	stop context.CancelFunc
}

func (s *stopping) call(ctx context.Context, name string) error {
	if name == s.at {
		s.stop()
		<-ctx.Done()
	}
	return ctx.Err()
}

func (s *stopping) Open(ctx context.Context) (registry.Log, error) { return s, s.call(ctx, "open") }

func (s *stopping) Append(ctx context.Context, _, _ []byte) (int64, error) {
	return 0, s.call(ctx, "append")
}

func (s *stopping) Next(ctx context.Context) ([]registry.Record, error) {
	return nil, s.call(ctx, "next")
}

func (s *stopping) End(ctx context.Context) (int64, error) { return 0, s.call(ctx, "end") }

func (s *stopping) Close() {}

// A registry that is told to stop has stopped in order, however far its start had come: once it was an error when it was
// still looking for the end of its log, and a service that stopped soon after its start exited with 1.
func TestAStopIsNoError(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"open", "append", "next"} {
		t.Run("at "+at, func(t *testing.T) {
			t.Parallel()
			ctx, stop := context.WithCancel(t.Context())
			reg, err := registry.New(&stopping{at, stop}, registry.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if err := reg.Run(ctx); err != nil || ctx.Err() == nil {
				t.Errorf("got %v, want nil", err)
			}
		})
	}
	for name, store := range stores {
		t.Run("before the start, "+name, func(t *testing.T) {
			t.Parallel()
			ctx, stop := context.WithCancel(t.Context())
			stop()
			reg, err := registry.New(store(t), registry.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if err := reg.Run(ctx); err != nil {
				t.Errorf("got %v, want nil", err)
			}
		})
	}
}

func TestRunEndsWhereNoClusterAnswers(t *testing.T) {
	t.Parallel()
	reg, err := registry.New(registry.Kafka(kafka.Cluster{Seeds: []string{"127.0.0.1:1"}}, registry.KafkaConfig{}), registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := reg.Run(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("got %v: nothing listens there", err)
	}
}

// The client that our own codecs use, and many others' services.
func TestFranzGoClient(t *testing.T) {
	t.Parallel()
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, open(t))
			ctx := t.Context()
			cl, err := sr.NewClient(sr.URLs(s.url))
			if err != nil {
				t.Fatal(err)
			}
			one, err := cl.CreateSchema(ctx, "orders-value", sr.Schema{Schema: orderV1})
			if err != nil || one.ID != 1 || one.Version != 1 || one.Subject != "orders-value" {
				t.Fatalf("create: %+v, %v", one, err)
			}
			if _, err := cl.CreateSchema(ctx, "orders-value", sr.Schema{Schema: orderV2}); err != nil {
				t.Fatalf("create: %v", err)
			}
			if got, err := cl.SchemaByID(ctx, 2); err != nil || got.Schema != orderV2 {
				t.Errorf("by id: %+v, %v", got, err)
			}
			if got, err := cl.SchemaByVersion(ctx, "orders-value", -1); err != nil || got.ID != 2 || got.Version != 2 {
				t.Errorf("latest: %+v, %v", got, err)
			}
			if got, err := cl.LookupSchema(ctx, "orders-value", sr.Schema{Schema: orderV1}); err != nil || got.ID != 1 || got.Version != 1 {
				t.Errorf("look up: %+v, %v", got, err)
			}
			if got, err := cl.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), "orders-value", -1, sr.Schema{Schema: `"int"`}); err != nil || got.Is || len(got.Messages) == 0 {
				t.Errorf("check: %+v, %v", got, err)
			}
			for _, r := range cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFullTransitive}, "orders-value") {
				if r.Err != nil {
					t.Errorf("set level: %v", r.Err)
				}
			}
			for _, r := range cl.Compatibility(ctx, "orders-value", sr.GlobalSubject) {
				if want := map[string]sr.CompatibilityLevel{"orders-value": sr.CompatFullTransitive}[r.Subject]; r.Err != nil || want != 0 && r.Level != want {
					t.Errorf("level of %q: %v, %v", r.Subject, r.Level, r.Err)
				}
			}
			if got, err := cl.Subjects(ctx); err != nil || len(got) != 1 {
				t.Errorf("subjects: %v, %v", got, err)
			}
			if got, err := cl.SupportedTypes(ctx); err != nil || len(got) != 1 || got[0] != sr.TypeAvro {
				t.Errorf("types: %v, %v", got, err)
			}
			var answer *sr.ResponseError
			if _, err := cl.SchemaByID(ctx, 99); !errors.As(err, &answer) || answer.StatusCode != 404 || answer.ErrorCode != 40403 {
				t.Errorf("by an id of nothing: %v", err)
			}
			if got, err := cl.DeleteSubject(ctx, "orders-value", sr.SoftDelete); err != nil || len(got) != 2 {
				t.Errorf("delete softly: %v, %v", got, err)
			}
			if got, err := cl.DeleteSubject(ctx, "orders-value", sr.HardDelete); err != nil || len(got) != 2 {
				t.Errorf("delete for good: %v, %v", got, err)
			}
		})
	}
}

// hostile bodies must be refused in little time, and leave the registry as it was.
var hostile = map[string]string{
	"empty":                  ``,
	"not JSON":               `{`,
	"a list":                 `[]`,
	"a number for a schema":  `{"schema":7}`,
	"no schema":              `{}`,
	"nested a million times": strings.Repeat("[", 1_000_000),
	"a nested schema":        `{"schema":"` + strings.Repeat(`[`, 500_000) + `"}`,
	"an endless record":      `{"schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"r\",\"type\":` + strings.Repeat(`{\"type\":\"array\",\"items\":`, 20_000) + `\"int\"` + strings.Repeat(`}`, 20_000) + `}]}"}`,
	"a decimal of 2^31":      `{"schema":"{\"type\":\"bytes\",\"logicalType\":\"decimal\",\"precision\":2147483648}"}`,
	"a fixed of 2^40":        `{"schema":"{\"type\":\"fixed\",\"name\":\"F\",\"size\":1099511627776}"}`,
	"a default of itself":    `{"schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"r\",\"type\":\"R\",\"default\":{\"r\":{\"r\":{}}}}]}"}`,
	"20,000 enums":           `{"schema":"[` + strings.TrimSuffix(strings.Repeat(`{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[\"A\"]},`, 20_000), ",") + `]"}`,
	"too large a text":       `{"schema":"\"` + strings.Repeat("x", 2<<20) + `\""}`,
	"too large a body":       `{"schema":"` + strings.Repeat("x", 5<<20) + `"}`,
	"references to itself":   `{"schema":"\"int\"","references":[{"name":"a","subject":"s","version":1}]}`,
	"a reference below zero": `{"schema":"\"int\"","references":[{"name":"a","subject":"s","version":-1}]}`,
	"a type of another":      `{"schema":"\"int\"","schemaType":"` + strings.Repeat("x", 100_000) + `"}`,
	"bytes that are no text": "{\"schema\":\"\xff\xfe\"}",
}

func TestHostileBodiesAreRefusedQuickly(t *testing.T) {
	t.Parallel()
	s := start(t, registry.Memory())
	for name, body := range hostile {
		for _, path := range []string{"/subjects/s/versions", "/compatibility/subjects/s/versions/latest"} {
			begun := time.Now()
			status, text := s.do("POST", path, body)
			if status < 400 || status >= 500 || len(text) > 4<<10 {
				t.Errorf("%s: %s: got %d %.200s", name, path, status, text)
			}
			if d := time.Since(begun); d > 10*time.Second {
				t.Errorf("%s: %s: took %v", name, path, d)
			}
		}
	}
	exchange{"as it was", "GET", "/schemas?deleted=true", nil, 200, `[]`}.run(t, s)
	exchange{"and alive", "POST", "/subjects/s/versions", schema(`"int"`), 200, `{"id":1}`}.run(t, s)
}

func TestContentTypes(t *testing.T) {
	t.Parallel()
	s := start(t, registry.Memory())
	for ct, want := range map[string]int{
		"": 200, "application/json": 200, "application/vnd.schemaregistry+json": 200, "application/vnd.schemaregistry.v1+json; charset=utf-8": 200,
		"text/plain": 415, "application/x-www-form-urlencoded": 415, "nonsense;;": 415,
	} {
		req, err := http.NewRequest(http.MethodPost, s.url+"/subjects/s/versions", strings.NewReader(`{"schema":"\"int\""}`))
		if err != nil {
			t.Fatal(err)
		}
		if ct != "" {
			req.Header.Set("Content-Type", ct)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != want {
			t.Errorf("%q: got %d, want %d", ct, resp.StatusCode, want)
		}
	}
}

func FuzzRegisterBody(f *testing.F) {
	for _, body := range hostile {
		if len(body) < 1<<10 {
			f.Add(body)
		}
	}
	f.Add(`{"schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[]}","references":[],"metadata":null,"ruleSet":{"domainRules":[]}}`)
	reg, err := registry.New(registry.Memory(), registry.Config{})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	if err := reg.AwaitReady(ctx); err != nil {
		f.Fatal(err)
	}
	n := 0
	f.Fuzz(func(t *testing.T, body string) {
		n++
		s := direct{t, reg}
		path := fmt.Sprintf("/subjects/s%d/versions", n)
		status, answer := s.do(http.MethodPost, path, body)
		if status != 200 && (status < 400 || status > 499) {
			t.Fatalf("%q: %d %s", body, status, answer)
		}
		if status == 200 {
			if again, second := s.do(http.MethodPost, path, body); again != 200 || second != answer {
				t.Fatalf("%q: registered as %s and then %d %s", body, answer, again, second)
			}
		}
	})
}

// direct asks a registry without a network.
type direct struct {
	t   *testing.T
	reg http.Handler
}

func (d direct) do(method, path, body string) (int, string) {
	d.t.Helper()
	w := httptest.NewRecorder()
	d.reg.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}
