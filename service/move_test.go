package service

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestWhoDoesNotStopInTimeIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		never := make(chan struct{})
		defer close(never)
		s := &Service{Log: zap.NewNop(), stats: newStats("s")}
		s.Go("stubborn", func(context.Context) error { <-never; return nil })
		s.Go("good", func(ctx context.Context) error { <-ctx.Done(); return nil })
		end()
		started := time.Now()
		err := s.move(ctx)
		if err == nil || !strings.Contains(err.Error(), "stubborn: not ended within 30s") || strings.Contains(err.Error(), "good") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(started); took != StopTimeout {
			t.Errorf("took %s", took)
		}
	})
}
