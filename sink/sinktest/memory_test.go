package sinktest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/millrace/millrace/sink"
	"github.com/millrace/millrace/sink/sinktest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(*testing.T) sinktest.Harness[*sinktest.Tx] {
		m := sinktest.NewMemory()
		return sinktest.Harness[*sinktest.Tx]{
			Open:  func() sink.DB[*sinktest.Tx] { return m },
			Dump:  func(_ *testing.T, table string, columns []string) [][]string { return m.Dump(table, columns) },
			Data:  func(_ context.Context, tx *sinktest.Tx) error { return tx.Refuse(sinktest.ErrData) },
			Wrong: func(_ context.Context, tx *sinktest.Tx) error { return tx.Refuse(sinktest.ErrWrong) },
			Cut: func(_ *testing.T, took bool) sink.DB[*sinktest.Tx] {
				cut := false
				m.Hook = func(_ context.Context, at sinktest.Step, _ *sinktest.Tx) error {
					switch {
					case cut:
					case took && at == sinktest.Committed, !took && at == sinktest.Commit:
						cut = true
						return fmt.Errorf("cut: %w", sink.ErrUnknownCommit)
					}
					return nil
				}
				return m
			},
		}
	})
}
