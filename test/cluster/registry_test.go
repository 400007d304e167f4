package cluster_test

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/millrace/millrace/internal/registry"
)

// serveRegistry serves a registry in memory and returns its URL.
func serveRegistry(t *testing.T) string {
	t.Helper()
	reg, err := registry.New(registry.Memory(), registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	srv := httptest.NewServer(reg)
	t.Cleanup(func() {
		srv.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("registry: %v", err)
		}
	})
	if err := reg.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return srv.URL
}
