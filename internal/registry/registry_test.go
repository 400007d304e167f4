package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/internal/registry"
	"github.com/millrace/millrace/kafka"
)

const patience = 30 * time.Second

// stores are what the contract is tested against.
var stores = map[string]func(*testing.T) registry.Store{
	"memory": func(*testing.T) registry.Store { return registry.Memory() },
	"kafka": func(t *testing.T) registry.Store {
		t.Helper()
		return registry.Kafka(fake(t), registry.KafkaConfig{Create: true})
	},
}

func fake(t *testing.T, opts ...kfake.Opt) kafka.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return kafka.Cluster{Seeds: c.ListenAddrs()}
}

// server is a running registry and a client of it.
type server struct {
	t    *testing.T
	reg  *registry.Registry
	url  string
	stop func()
}

func start(t *testing.T, store registry.Store) *server {
	t.Helper()
	reg, err := registry.New(store, registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	srv := httptest.NewServer(reg)
	s := &server{t: t, reg: reg, url: srv.URL}
	s.stop = sync.OnceFunc(func() {
		srv.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(s.stop)
	wait, cancelWait := context.WithTimeout(t.Context(), patience)
	defer cancelWait()
	if err := reg.AwaitReady(wait); err != nil {
		t.Fatal(err)
	}
	return s
}

// do sends a request; a body that is no string is sent as JSON.
func (s *server) do(method, path string, body any) (int, string) {
	s.t.Helper()
	status, text, err := s.try(method, path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return status, text
}

func (s *server) try(method, path string, body any) (int, string, error) {
	var src io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		src = strings.NewReader(body)
	default:
		b, err := json.Marshal(body)
		if err != nil {
			return 0, "", err
		}
		src = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, s.url+path, src)
	if err != nil {
		return 0, "", err
	}
	if src != nil {
		req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if ct := resp.Header.Get("Content-Type"); ct != "application/vnd.schemaregistry.v1+json" {
		err = errors.Join(err, fmt.Errorf("content type %q", ct))
	}
	return resp.StatusCode, strings.TrimSuffix(string(text), "\n"), err
}

type m map[string]any

func schema(text string) m { return m{"schema": text} }

const (
	orderV1 = `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"}]}`
	orderV2 = `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},{"name":"note","type":"string","default":""}]}`
	orderV3 = `{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},{"name":"note","type":"string"}]}`
	money   = `{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}`
	invoice = `{"type":"record","name":"Invoice","namespace":"shop","fields":[{"name":"sum","type":"Money"},{"name":"tax","type":"shop.Money"}]}`
)

// exchange is a request and its answer, the contract of the REST interface in the order it is told.
type exchange struct {
	name, method, path string
	body               any
	status             int
	want               string // the whole body; for errors its code
}

func (e exchange) run(t *testing.T, s *server) {
	t.Helper()
	status, got := s.do(e.method, e.path, e.body)
	want := e.want
	if strings.HasPrefix(want, "code ") {
		var answer struct {
			Code int    `json:"error_code"`
			Text string `json:"message"`
		}
		if err := json.Unmarshal([]byte(got), &answer); err != nil || answer.Text == "" {
			t.Errorf("%s: error without a message: %s", e.name, got)
		}
		got = fmt.Sprintf("code %d", answer.Code)
	}
	if status != e.status || got != want {
		t.Errorf("%s: %s %s\n got %d %s\nwant %d %s", e.name, e.method, e.path, status, got, e.status, want)
	}
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

var contract = []exchange{
	{"an empty registry", "GET", "/", nil, 200, `{}`},
	{"the types", "GET", "/schemas/types", nil, 200, `["AVRO"]`},
	{"no subjects", "GET", "/subjects", nil, 200, `[]`},
	{"no schemas", "GET", "/schemas", nil, 200, `[]`},
	{"versions of nothing", "GET", "/subjects/orders-value/versions", nil, 404, "code 40401"},
	{"a version of nothing", "GET", "/subjects/orders-value/versions/1", nil, 404, "code 40401"},
	{"look up in nothing", "POST", "/subjects/orders-value", schema(orderV1), 404, "code 40401"},
	{"delete nothing", "DELETE", "/subjects/orders-value", nil, 404, "code 40401"},
	{"an id of nothing", "GET", "/schemas/ids/1", nil, 404, "code 40403"},
	{"the first schema fits", "POST", "/compatibility/subjects/orders-value/versions/latest", schema(orderV1), 200, `{"is_compatible":true}`},
	{"no numbered version to fit", "POST", "/compatibility/subjects/orders-value/versions/1", schema(orderV1), 404, "code 40402"},

	{"register", "POST", "/subjects/orders-value/versions", schema(orderV1), 200, `{"id":1}`},
	{"register again", "POST", "/subjects/orders-value/versions", schema(orderV1), 200, `{"id":1}`},
	{"register with other spaces", "POST", "/subjects/orders-value/versions", schema("\n " + strings.ReplaceAll(orderV1, ",", " ,\n")), 200, `{"id":1}`},
	{"register with members we do not know", "POST", "/subjects/orders-value/versions", m{"schema": orderV1, "fancy": m{"a": 1}, "schemaType": "AVRO"}, 200, `{"id":1}`},
	{"the same schema elsewhere has the same id", "POST", "/subjects/copies-value/versions", schema(orderV1), 200, `{"id":1}`},
	{"a second version", "POST", "/subjects/orders-value/versions", schema(orderV2), 200, `{"id":2}`},
	{"a field that lost its default", "POST", "/subjects/orders-value/versions", schema(orderV3 + " "), 200, `{"id":3}`}, // reads V2: it has the field
	{"one that reads nothing older", "POST", "/subjects/copies-value/versions", schema(orderV3), 409, "code 409"},
	{"a primitive", "POST", "/subjects/ids-key/versions", schema(`"long"`), 200, `{"id":4}`},
	{"a bare primitive is the same", "POST", "/subjects/ids-key/versions", schema(`long`), 200, `{"id":4}`},

	{"subjects", "GET", "/subjects", nil, 200, `["copies-value","ids-key","orders-value"]`},
	{"subjects by prefix", "GET", "/subjects?subjectPrefix=co", nil, 200, `["copies-value"]`},
	{"a page of subjects", "GET", "/subjects?offset=1&limit=1", nil, 200, `["ids-key"]`},
	{"past the last page", "GET", "/subjects?offset=9", nil, 200, `[]`},
	{"versions", "GET", "/subjects/orders-value/versions", nil, 200, `[1,2,3]`},
	{"a version", "GET", "/subjects/orders-value/versions/2", nil, 200, `{"subject":"orders-value","id":2,"version":2,"schema":` + quoted(orderV2) + `}`},
	{"the latest", "GET", "/subjects/ids-key/versions/latest", nil, 200, `{"subject":"ids-key","id":4,"version":1,"schema":"\"long\""}`},
	{"the latest by its other name", "GET", "/subjects/ids-key/versions/-1", nil, 200, `{"subject":"ids-key","id":4,"version":1,"schema":"\"long\""}`},
	{"the text alone", "GET", "/subjects/orders-value/versions/1/schema", nil, 200, orderV1},
	{"no such version", "GET", "/subjects/orders-value/versions/9", nil, 404, "code 40402"},
	{"not a version", "GET", "/subjects/orders-value/versions/first", nil, 422, "code 42202"},
	{"version zero", "GET", "/subjects/orders-value/versions/0", nil, 422, "code 42202"},
	{"by id", "GET", "/schemas/ids/1", nil, 200, `{"schema":` + quoted(orderV1) + `}`},
	{"text by id", "GET", "/schemas/ids/1/schema", nil, 200, orderV1},
	{"subjects by id", "GET", "/schemas/ids/1/subjects", nil, 200, `["copies-value","orders-value"]`},
	{"versions by id", "GET", "/schemas/ids/1/versions", nil, 200, `[{"subject":"copies-value","version":1},{"subject":"orders-value","version":1}]`},
	{"not an id", "GET", "/schemas/ids/x", nil, 404, "code 404"},
	{"look up", "POST", "/subjects/orders-value", schema(orderV2), 200, `{"subject":"orders-value","id":2,"version":2,"schema":` + quoted(orderV2) + `}`},
	{"look up what is elsewhere", "POST", "/subjects/ids-key", schema(orderV2), 404, "code 40403"},
	{"latest only", "GET", "/schemas?latestOnly=true&subjectPrefix=ids", nil, 200, `[{"subject":"ids-key","id":4,"version":1,"schema":"\"long\""}]`},

	{"compatible with the latest", "POST", "/compatibility/subjects/copies-value/versions/latest", schema(orderV2), 200, `{"is_compatible":true}`},
	{"incompatible with the latest", "POST", "/compatibility/subjects/copies-value/versions/latest", schema(orderV3), 200, `{"is_compatible":false}`},
	{"compatible with a version", "POST", "/compatibility/subjects/orders-value/versions/2", schema(orderV3), 200, `{"is_compatible":true}`},
	{"incompatible with a version", "POST", "/compatibility/subjects/orders-value/versions/1", schema(orderV3), 200, `{"is_compatible":false}`},
	{"why", "POST", "/compatibility/subjects/copies-value/versions?verbose=true", schema(orderV3), 200, `{"is_compatible":false,"messages":["{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'The reader has a field without a default that the writer does not write, at path /fields/1', additionalInfo:'note'}","{oldSchemaVersion: 1}",` + quoted("{oldSchema: '"+orderV1+"'}") + `,"{compatibility: 'BACKWARD'}"]}`},

	{"the default level", "GET", "/config", nil, 200, `{"compatibilityLevel":"BACKWARD"}`},
	{"no level of the subject", "GET", "/config/copies-value", nil, 404, "code 40408"},
	{"the level that holds for it", "GET", "/config/copies-value?defaultToGlobal=true", nil, 200, `{"compatibilityLevel":"BACKWARD"}`},
	{"set the subject's level", "PUT", "/config/copies-value", m{"compatibility": "NONE"}, 200, `{"compatibility":"NONE"}`},
	{"now it is incompatible and welcome", "POST", "/subjects/copies-value/versions", schema(orderV3), 200, `{"id":3}`},
	{"the subject's level", "GET", "/config/copies-value", nil, 200, `{"compatibilityLevel":"NONE"}`},
	{"set the registry's level", "PUT", "/config", m{"compatibility": "full_transitive"}, 200, `{"compatibility":"FULL_TRANSITIVE"}`},
	{"transitive looks at all", "POST", "/compatibility/subjects/orders-value/versions", schema(orderV3), 200, `{"is_compatible":false}`},
	{"not a level", "PUT", "/config", m{"compatibility": "SIDEWAYS"}, 422, "code 42203"},
	{"unset the subject's level", "DELETE", "/config/copies-value", nil, 200, `{"compatibilityLevel":"NONE"}`},
	{"unset it again", "DELETE", "/config/copies-value", nil, 404, "code 40408"},
	{"unset the registry's", "DELETE", "/config", nil, 200, `{"compatibilityLevel":"FULL_TRANSITIVE"}`},
	{"the default again", "GET", "/config", nil, 200, `{"compatibilityLevel":"BACKWARD"}`},
	{"the mode", "GET", "/mode", nil, 200, `{"mode":"READWRITE"}`},
	{"no mode of the subject", "GET", "/mode/copies-value", nil, 404, "code 40409"},

	{"a schema to refer to", "POST", "/subjects/money/versions", schema(money), 200, `{"id":5}`},
	{"a schema that refers", "POST", "/subjects/invoices-value/versions", m{"schema": invoice, "references": []m{{"name": "shop.Money", "subject": "money", "version": 1}}}, 200, `{"id":6}`},
	{"it comes back as sent, in its shortest names", "GET", "/schemas/ids/6", nil, 200, `{"references":[{"name":"shop.Money","subject":"money","version":1}],"schema":` + quoted(strings.ReplaceAll(invoice, `"shop.Money"`, `"Money"`)) + `}`},
	{"look it up", "POST", "/subjects/invoices-value", m{"schema": invoice, "references": []m{{"name": "shop.Money", "subject": "money", "version": 1}}}, 200, `{"subject":"invoices-value","id":6,"version":1,"references":[{"name":"shop.Money","subject":"money","version":1}],"schema":` + quoted(strings.ReplaceAll(invoice, `"shop.Money"`, `"Money"`)) + `}`},
	{"check it", "POST", "/compatibility/subjects/invoices-value/versions/latest", m{"schema": invoice, "references": []m{{"name": "shop.Money", "subject": "money", "version": 1}}}, 200, `{"is_compatible":true}`},
	{"a reference to nothing", "POST", "/subjects/invoices-value/versions", m{"schema": invoice, "references": []m{{"name": "shop.Money", "subject": "cash", "version": 1}}}, 422, "code 42201"},
	{"no reference", "POST", "/subjects/invoices-value/versions", schema(invoice), 422, "code 42201"},
	{"who refers", "GET", "/subjects/money/versions/1/referencedby", nil, 200, `[6]`},
	{"what is referred to stays", "DELETE", "/subjects/money/versions/1", nil, 422, "code 42206"},
	{"and its subject", "DELETE", "/subjects/money", nil, 422, "code 42206"},

	{"metadata and rules come back", "POST", "/subjects/tagged-value/versions", m{"schema": orderV1, "metadata": m{"properties": m{"owner": "o"}}}, 200, `{"id":7}`},
	{"verbatim", "GET", "/subjects/tagged-value/versions/1", nil, 200, `{"subject":"tagged-value","id":7,"version":1,"metadata":{"properties":{"owner":"o"}},"schema":` + quoted(orderV1) + `}`},
	{"and the text alone finds them", "POST", "/subjects/tagged-value/versions", schema(orderV1), 200, `{"id":7}`},

	{"permanently before softly, a version", "DELETE", "/subjects/orders-value/versions/3?permanent=true", nil, 404, "code 40407"},
	{"permanently before softly, a subject", "DELETE", "/subjects/orders-value?permanent=true", nil, 404, "code 40405"},
	{"delete a version", "DELETE", "/subjects/orders-value/versions/latest", nil, 200, `3`},
	{"delete it again", "DELETE", "/subjects/orders-value/versions/3", nil, 404, "code 40406"},
	{"it is gone from its subject", "GET", "/subjects/orders-value/versions/3", nil, 404, "code 40402"},
	{"but there on request", "GET", "/subjects/orders-value/versions/3?deleted=true", nil, 200, `{"subject":"orders-value","id":3,"version":3,"schema":` + quoted(orderV3) + `,"deleted":true}`},
	{"delete a subject", "DELETE", "/subjects/orders-value", nil, 200, `[1,2]`},
	{"delete it again", "DELETE", "/subjects/orders-value", nil, 404, "code 40404"},
	{"a deleted subject is not listed", "GET", "/subjects", nil, 200, `["copies-value","ids-key","invoices-value","money","tagged-value"]`},
	{"but on request", "GET", "/subjects?deletedOnly=true", nil, 200, `["orders-value"]`},
	{"its ids are still served", "GET", "/schemas/ids/2/schema", nil, 200, orderV2},
	{"versions continue after a soft delete", "POST", "/subjects/orders-value/versions", schema(orderV1), 200, `{"id":1}`},
	{"under a new number; the old one with that id is forgotten", "GET", "/subjects/orders-value/versions?deleted=true", nil, 200, `[2,3,4]`},
	{"delete the subject once more", "DELETE", "/subjects/orders-value", nil, 200, `[4]`},
	{"for good", "DELETE", "/subjects/orders-value?permanent=true", nil, 200, `[2,3,4]`},
	{"nothing is left", "GET", "/subjects/orders-value/versions?deleted=true", nil, 404, "code 40401"},
	{"an id that nobody has", "GET", "/schemas/ids/2", nil, 404, "code 40403"},
	{"an id is never given again", "POST", "/subjects/orders-value/versions", schema(orderV2), 200, `{"id":8}`},
	{"versions start again after a hard delete", "GET", "/subjects/orders-value/versions", nil, 200, `[1]`},

	{"a subject with all it may have", "POST", "/subjects/a%2Fb%20%3C%26%3E%20%E2%80%A8%C3%A9/versions", schema(`"int"`), 200, `{"id":9}`},
	{"reads back", "GET", "/subjects/a%2Fb%20%3C%26%3E%20%E2%80%A8%C3%A9/versions/latest", nil, 200, "{\"subject\":\"a/b <&> \\u2028é\",\"id\":9,\"version\":1,\"schema\":\"\\\"int\\\"\"}"},
	{"a context is not there yet", "POST", "/subjects/:.ctx:s/versions", schema(`"int"`), 422, "code 42208"},
	{"a control character in a subject", "POST", "/subjects/a%00b/versions", schema(`"int"`), 422, "code 42208"},
	{"JSON schemas are not there yet", "POST", "/subjects/j/versions", m{"schema": "{}", "schemaType": "JSON"}, 422, "code 42201"},
	{"an id of one's own", "POST", "/subjects/j/versions", m{"schema": orderV1, "id": 7}, 422, "code 42205"},
	{"no such page", "GET", "/nothing/here", nil, 404, "code 404"},
	{"no such method", "PATCH", "/subjects", nil, 404, "code 404"},
}

func TestContract(t *testing.T) {
	t.Parallel()
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, open(t))
			for _, e := range contract {
				e.run(t, s)
			}
		})
	}
}

// dump is all that a registry tells.
func dump(s *server) string {
	s.t.Helper()
	var b strings.Builder
	for _, path := range []string{"/schemas?deleted=true", "/subjects?deleted=true", "/config", "/config/copies-value?defaultToGlobal=true", "/mode"} {
		_, text := s.do("GET", path, nil)
		b.WriteString(text + "\n")
	}
	return b.String()
}

func TestRestartReplaysTheSameState(t *testing.T) {
	t.Parallel()
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t)
			s := start(t, store)
			for _, e := range contract {
				s.do(e.method, e.path, e.body)
			}
			s.do("PUT", "/config/copies-value", m{"compatibility": "FULL"})
			before := dump(s)
			s.stop()
			again := start(t, store)
			if after := dump(again); after != before {
				t.Errorf("after the restart\n%s\nbefore\n%s", after, before)
			}
			exchange{"the next id goes on", "POST", "/subjects/next/versions", schema(`"double"`), 200, `{"id":10}`}.run(t, again)
		})
	}
}

// Many clients of two processes register at once: no id stands for two schemas, and both processes agree.
func TestTwoProcessesNeverGiveOneIDToTwoSchemas(t *testing.T) {
	t.Parallel()
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t)
			a, b := start(t, store), start(t, store)
			const each = 20
			type given struct {
				server *server
				text   string
				id     int
			}
			var mu sync.Mutex
			var all []given
			var wg sync.WaitGroup
			for i, s := range []*server{a, b, a, b} {
				wg.Go(func() {
					for n := range each {
						// every second schema is registered by all four, under one subject
						text := fmt.Sprintf(`{"type":"fixed","name":"F%d","size":%d}`, n, n+1)
						subject := fmt.Sprintf("shared-%d", n)
						if n%2 == 1 {
							text = fmt.Sprintf(`{"type":"fixed","name":"G%d_%d","size":1}`, i, n)
							subject = fmt.Sprintf("own-%d-%d", i, n)
						}
						status, answer, err := s.try("POST", "/subjects/"+subject+"/versions", schema(text))
						var body struct{ ID int }
						if err = errors.Join(err, json.Unmarshal([]byte(answer), &body)); err != nil || status != 200 {
							t.Errorf("%d %s %v", status, answer, err)
							return
						}
						mu.Lock()
						all = append(all, given{s, text, body.ID})
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			texts, ids := map[int]string{}, map[string]int{}
			for _, g := range all {
				if old, ok := texts[g.id]; ok && old != g.text {
					t.Errorf("id %d stands for %s and %s", g.id, old, g.text)
				}
				if old, ok := ids[g.text]; ok && old != g.id {
					t.Errorf("%s has the ids %d and %d", g.text, old, g.id)
				}
				texts[g.id], ids[g.text] = g.text, g.id
			}
			// a write brings each of them to the end of the log
			a.do("PUT", "/config/x", m{"compatibility": "NONE"})
			b.do("PUT", "/config/x", m{"compatibility": "NONE"})
			a.do("PUT", "/config/x", m{"compatibility": "NONE"})
			if da, db := dump(a), dump(b); da != db {
				t.Errorf("they differ:\n%s\n%s", da, db)
			}
			for id, text := range texts {
				if _, got := a.do("GET", fmt.Sprintf("/schemas/ids/%d/schema", id), nil); got != text {
					t.Errorf("id %d: got %s, want %s", id, got, text)
				}
			}
		})
	}
}

func TestNotReadyUntilRun(t *testing.T) {
	t.Parallel()
	reg, err := registry.New(registry.Memory(), registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	reg.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/subjects", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "50001") || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]registry.Config{"Compatibility": {Compatibility: "SIDEWAYS"}, "Timeout": {Timeout: -1}} {
		if _, err := registry.New(registry.Memory(), cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}
