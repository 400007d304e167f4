package sinktest

import "testing"

func runTables[Tx any](*testing.T, func(t *testing.T) Harness[Tx]) {}
