package main

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/position"
	"github.com/millrace/millrace/reader"
)

const (
	largeScan = 1_000_000 // offsets from which a scan is announced
	scanRate  = 300_000   // records a second that an estimate counts with, on the safe side
)

// scanLine is the progress of a scan on a terminal.
type scanLine struct {
	*progress
	began time.Time
}

func (a *app) scanLine() *scanLine { return &scanLine{progress: a.progress(), began: a.now()} }

// update is called after every batch.
func (l *scanLine) update(scanned, total int64) {
	if total <= 0 || scanned >= total || !l.on {
		return
	}
	rate := float64(scanned) / max(0.001, l.now().Sub(l.began).Seconds())
	left := "…"
	if rate >= 1 {
		left = age(time.Duration(float64(total-scanned)/rate*float64(time.Second))) + " left"
	}
	l.show("%s of %s offsets (%d %%), %s/s, %s", number(scanned), number(total), 100*scanned/total, number(int64(rate)), left)
}

// sayEstimate tells before a large scan what it will take, and how to make it smaller.
func (a *app) sayEstimate(r *reader.Reading, span position.Range) {
	for _, line := range estimate(r.Complete().Total, span) {
		a.say("%s", line)
	}
}

// estimate is nothing for a scan that is over soon.
func estimate(total int64, span position.Range) []string {
	if total < largeScan {
		return nil
	}
	lines := []string{fmt.Sprintf("up to %s to look at, some %s", plural(total, "record"), age(time.Duration(total/scanRate)*time.Second))}
	if span.From.Kind == position.Start && span.From.N == 0 {
		lines = append(lines, "  → look at less:  --from -1h, or --partition")
	}
	return lines
}
