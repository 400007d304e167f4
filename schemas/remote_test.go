package schemas_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/secret"
	"github.com/millrace/millrace/schemas"
)

// serve answers as a registry does; routes are "GET /schemas/ids/1".
func serve(t *testing.T, routes map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if h, ok := routes[req.Method+" "+req.URL.Path]; ok {
			h(w, req)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error_code":40403,"message":"Schema not found"}`)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func connect(t *testing.T, urls ...string) *schemas.Registry {
	t.Helper()
	reg, err := schemas.New(schemas.Config{URLs: urls, User: "ann", Password: secret.New("s3cret")})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// Only a registry's own word makes a record poison; everything else is an outage.
func TestRemoteErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		want error
	}{
		{"unknown to a healthy registry", answer(404, `{"error_code":40403,"message":"Schema 7 not found"}`), schemas.ErrPoison},
		{"a proxy's 404", answer(404, `<html>not here</html>`), schemas.ErrUnavailable},
		{"a server's 404", answer(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`), schemas.ErrUnavailable},
		{"500", answer(500, `{"error_code":50001,"message":"store"}`), schemas.ErrUnavailable},
		{"503 without a body", answer(503, ``), schemas.ErrUnavailable},
		{"401", answer(401, ``), schemas.ErrUnavailable},
		{"403", answer(403, `{"error_code":40301}`), schemas.ErrUnavailable},
		{"no JSON", answer(200, `hello`), schemas.ErrUnavailable},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for chunk := strings.Repeat(" ", 1<<20); ; {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
		}, schemas.ErrUnavailable},
		{"a text that cannot be parsed", answer(200, `{"schema":"{\"type\":\"nothing\"}"}`), schemas.ErrIncompatible},
		{"Protobuf", answer(200, `{"schemaType":"PROTOBUF","schema":"message M {}"}`), schemas.ErrIncompatible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := connect(t, serve(t, map[string]http.HandlerFunc{"GET /schemas/ids/7": tt.h}).URL)
			e := event.Event{Meta: event.Meta{Topic: "t"}, Value: []byte{0, 0, 0, 0, 7, 14}}
			err := reg.Decode(t.Context(), &e, new(any))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			for _, other := range []error{schemas.ErrPoison, schemas.ErrUnavailable, schemas.ErrIncompatible, schemas.ErrNotFound} {
				if other != tt.want && errors.Is(err, other) { //nolint:errorlint // which of the four it is
					t.Errorf("%v is %v too", err, other)
				}
			}
			if tt.name == "endless" && !strings.Contains(err.Error(), "longer than") {
				t.Errorf("got %v, want that the response is too long", err)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v tells the password", err)
			}
		})
	}
}

// A URL that fails, by refusing or by a 5xx, hands over to the next.
func TestRemoteFailover(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	broken := serve(t, map[string]http.HandlerFunc{"GET /schemas/ids/7": func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		answer(502, ``)(w, req)
	}})
	good := serve(t, map[string]http.HandlerFunc{"GET /schemas/ids/7": func(w http.ResponseWriter, req *http.Request) {
		if user, password, ok := req.BasicAuth(); !ok || user != "ann" || password != "s3cret" {
			answer(401, ``)(w, req)
			return
		}
		answer(200, `{"schema":"\"long\""}`)(w, req)
	}})
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	reg := connect(t, gone.URL, broken.URL, good.URL)
	s, err := reg.ByID(t.Context(), 7)
	if err != nil || s.Name != "long" || s.ID != 7 {
		t.Errorf("got %+v, %v", s, err)
	}
	if asked.Load() != 1 {
		t.Errorf("the broken one was asked %d times", asked.Load())
	}
}

func TestRemoteRegister(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, req *http.Request) {
		var body struct{ Schema string }
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil || body.Schema != userV1 {
			answer(422, `{"error_code":42201,"message":"Input schema is an invalid Avro schema"}`)(w, req)
			return
		}
		text, err := json.Marshal(map[string]any{"subject": "shop.User", "version": 3, "id": 5, "schema": body.Schema})
		if err != nil {
			t.Error(err)
		}
		answer(200, string(text))(w, req)
	}
	reg := connect(t, serve(t, map[string]http.HandlerFunc{
		"POST /subjects/shop.User/versions":                      echo,
		"POST /subjects/shop.User":                               echo,
		"GET /schemas/ids/5":                                     answer(500, ``), // known already: never asked
		"GET /subjects/shop.User/versions":                       answer(200, `[3,1]`),
		"GET /subjects":                                          answer(200, `["b","a"]`),
		"POST /compatibility/subjects/shop.User/versions/latest": answer(200, `{"is_compatible":false,"messages":["{errorType:'X'}"]}`),
		"POST /subjects/taken/versions":                          answer(409, `{"error_code":409,"message":"Schema being registered is incompatible"}`),
	}).URL)
	s, err := reg.Register(t.Context(), "shop.User", userV1)
	if err != nil || s.ID != 5 || s.Version != 3 || s.Name != "shop.User" {
		t.Errorf("got %+v, %v", s, err)
	}
	if byID, err := reg.ByID(t.Context(), 5); err != nil || byID.Name != "shop.User" {
		t.Errorf("got %+v, %v", byID, err)
	}
	if vs, err := reg.Versions(t.Context(), "shop.User"); err != nil || len(vs) != 2 || vs[0] != 1 {
		t.Errorf("got %v, %v", vs, err)
	}
	if names, err := reg.Subjects(t.Context()); err != nil || names[0] != "a" {
		t.Errorf("got %v, %v", names, err)
	}
	if why, err := reg.Check(t.Context(), "shop.User", userV2); err != nil || len(why) != 1 {
		t.Errorf("got %v, %v", why, err)
	}
	if why, err := reg.Check(t.Context(), "new", userV2); err != nil || len(why) != 0 {
		t.Errorf("a new subject: got %v, %v", why, err)
	}
	if _, err := reg.Register(t.Context(), "taken", userV1); !errors.Is(err, schemas.ErrIncompatible) {
		t.Errorf("got %v, want ErrIncompatible", err)
	}
	if _, err := reg.Register(t.Context(), "shop.User", "nonsense"); !errors.Is(err, schemas.ErrIncompatible) {
		t.Errorf("got %v, want ErrIncompatible", err)
	}
	if err := reg.Prefetch(t.Context(), 5, 6); !errors.Is(err, schemas.ErrNotFound) || strings.Contains(err.Error(), "schema 5") {
		t.Errorf("got %v, want that 6 is not found", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cfg  schemas.Config
		want string
	}{
		{"no URL", schemas.Config{}, "Config.URLs"},
		{"no scheme", schemas.Config{URLs: []string{"localhost:8081"}}, "no http"},
		{"a password in the URL", schemas.Config{URLs: []string{"http://ann:s3cret@host"}}, "Config.Password"},
		{"a bad URL with a password", schemas.Config{URLs: []string{"ann:s3cret@host"}}, "***@host"},
		{"TTL", schemas.Config{URLs: []string{"http://host"}, TTL: -1}, "Config.TTL"},
		{"naming", schemas.Config{URLs: []string{"http://host"}, Topics: map[string]schemas.Topic{"t": {Naming: 9}}}, "Naming"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := schemas.New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
}

// A registry behind https is reached with the certificates that Config.TLS trusts, and with no others.
func TestRemoteTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(answer(200, `{"schema":"\"long\""}`))
	t.Cleanup(srv.Close)
	transport, ok := srv.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("the test server's client has another transport")
	}
	reg, err := schemas.New(schemas.Config{URLs: []string{srv.URL}, TLS: transport.TLSClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.ByID(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if _, err := connect(t, srv.URL).ByID(t.Context(), 1); !errors.Is(err, schemas.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: got %v", err)
	}
}
