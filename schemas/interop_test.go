package schemas_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/millrace/millrace/internal/registry"
	"github.com/millrace/millrace/schemas"
)

// The registry in the binary and the one in the process give the same answers to the same questions.
func TestRemoteLikeMemory(t *testing.T) {
	t.Parallel()
	srv, err := registry.New(registry.Memory(), registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := srv.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(srv)
	t.Cleanup(web.Close)
	for name, reg := range map[string]*schemas.Registry{"memory": schemas.Memory(), "http": connect(t, web.URL)} {
		t.Run(name, func(t *testing.T) {
			money := `{"type":"record","name":"a.Money","fields":[{"name":"cents","type":"long"}]}`
			if _, err := reg.Register(t.Context(), "money", money); err != nil {
				t.Fatal(err)
			}
			user, err := reg.Register(t.Context(), "u", userV1)
			if err != nil || user.ID != 2 || user.Version != 1 {
				t.Errorf("got %+v, %v", user, err)
			}
			if again, err := reg.Register(t.Context(), "u2", userV1); err != nil || again.ID != 2 || again.Version != 1 {
				t.Errorf("the same text under another subject: got %+v, %v", again, err)
			}
			if _, err := reg.Register(t.Context(), "u", `{"type":"record","name":"shop.User","fields":[{"name":"new","type":"int"}]}`); !errors.Is(err, schemas.ErrIncompatible) {
				t.Errorf("incompatible: got %v", err)
			}
			if _, err := reg.Register(t.Context(), "u", `{"type":"nothing"}`); !errors.Is(err, schemas.ErrIncompatible) {
				t.Errorf("invalid: got %v", err)
			}
			if why, err := reg.Check(t.Context(), "u", userV2); err != nil || len(why) != 0 {
				t.Errorf("Check: got %v, %v", why, err)
			}
			if why, err := reg.Check(t.Context(), "nobody", userV2); err != nil || len(why) != 0 {
				t.Errorf("Check of a new subject: got %v, %v", why, err)
			}
			if _, err := reg.Latest(t.Context(), "nobody"); !errors.Is(err, schemas.ErrNotFound) {
				t.Errorf("Latest: got %v", err)
			}
			if _, err := reg.Versions(t.Context(), "nobody"); !errors.Is(err, schemas.ErrNotFound) {
				t.Errorf("Versions: got %v", err)
			}
			if _, err := reg.ByID(t.Context(), 99); !errors.Is(err, schemas.ErrNotFound) {
				t.Errorf("ByID: got %v", err)
			}
			if _, err := reg.Lookup(t.Context(), "u", userV2); !errors.Is(err, schemas.ErrNotFound) {
				t.Errorf("Lookup: got %v", err)
			}
			price := `{"type":"record","name":"a.Price","fields":[{"name":"m","type":"a.Money"}]}`
			p, err := reg.Register(t.Context(), "price", price, schemas.Reference{Name: "a.Money", Subject: "money", Version: 1})
			if err != nil {
				t.Fatal(err)
			}
			if line, err := p.AppendJSON(nil, []byte{14}); string(line) != `{"m":{"cents":7}}` {
				t.Errorf("references: got %s, %v", line, err)
			}
			if names, err := reg.Subjects(t.Context()); err != nil || !reflect.DeepEqual(names, []string{"money", "price", "u", "u2"}) {
				t.Errorf("Subjects: got %v, %v", names, err)
			}
		})
	}
}
