package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

const (
	askTimeout = 4 * time.Second
	askMost    = 16 << 20 // bytes of a gateway's answer that are read
)

// running is what a gateway that runs says of itself.
type running struct {
	Sources []gateway.SourceStatus `json:"sources"`
	Broken  string                 `json:"broken"` // why its folder is not used as it is
	counts  map[string]*counts     // by source
}

// counts are how a source's requests have ended since its gateway began.
type counts struct {
	Accepted     int64            `json:"accepted"`
	Duplicate    int64            `json:"duplicate"`
	Handshake    int64            `json:"handshake"`
	Rejected     int64            `json:"rejected"`
	Unavailable  int64            `json:"unavailable"` // told to come again
	Failed       int64            `json:"failed"`
	Reasons      map[string]int64 `json:"rejected_by_reason"`
	DeadLettered int64            `json:"dead_lettered"`
	P99          float64          `json:"p99_seconds"` // of those that were accepted, the upper end of the bucket; 0 = none

	buckets map[float64]int64 // requests that took at most so long
}

// askGateway asks the gateway whose metrics are at base.
func askGateway(ctx context.Context, base string) (*running, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	base = strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/metrics")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	r := &running{}
	text, err := fetch(ctx, base+"/sources")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s/sources: it is no gateway's answer: %w", base, err)
	}
	if text, err = fetch(ctx, base+"/metrics"); err != nil {
		return nil, err
	}
	r.counts = readCounts(string(text))
	return r, nil
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, usage(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, askMost))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d: is it the address of serve gateway --metrics?", url, resp.StatusCode)
	}
	return text, nil
}

var (
	sampleLine  = regexp.MustCompile(`^millrace_webhook_inbound_(\w+)\{(.*)\} (\S+)$`)
	sampleLabel = regexp.MustCompile(`(\w+)="([^"]*)"`) // no value of these has a quote in it
)

// readCounts reads the gateway's series from a text for Prometheus.
func readCounts(text string) map[string]*counts {
	all := map[string]*counts{}
	for line := range strings.Lines(text) {
		m := sampleLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		labels := map[string]string{}
		for _, l := range sampleLabel.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = l[2]
		}
		c := all[labels["source"]]
		if c == nil {
			c = &counts{Reasons: map[string]int64{}, buckets: map[float64]int64{}}
			all[labels["source"]] = c
		}
		c.sample(m[1], labels, int64(v))
	}
	for _, c := range all {
		c.P99 = c.quantile(0.99)
	}
	return all
}

// sample adds one series.
func (c *counts) sample(name string, labels map[string]string, n int64) {
	switch name {
	case "total":
		switch gateway.Result(labels["result"]) {
		case gateway.Accepted:
			c.Accepted += n
		case gateway.Duplicate:
			c.Duplicate += n
		case gateway.Handshake:
			c.Handshake += n
		case gateway.Rejected:
			c.Rejected += n
		case gateway.Unavailable:
			c.Unavailable += n
		case gateway.Failed:
			c.Failed += n
		}
	case "rejected_total":
		c.Reasons[labels["reason"]] += n
	case "dead_letters_total":
		c.DeadLettered += n
	case "duration_seconds_bucket":
		if gateway.Result(labels["result"]) != gateway.Accepted {
			return
		}
		if le, err := strconv.ParseFloat(labels["le"], 64); err == nil {
			c.buckets[le] += n
		}
	}
}

// quantile is the upper end of the bucket that holds the q-th part of what was accepted, 0 where it is unknown.
func (c *counts) quantile(q float64) float64 {
	bounds := slices.Sorted(maps.Keys(c.buckets))
	if len(bounds) == 0 {
		return 0
	}
	whole := float64(c.buckets[bounds[len(bounds)-1]])
	for _, le := range bounds {
		if n := float64(c.buckets[le]); n > 0 && n >= q*whole && !math.IsInf(le, 1) {
			return le
		}
	}
	return 0
}

// sum is what several sources come to.
func sum(all map[string]*counts) *counts {
	out := &counts{Reasons: map[string]int64{}, buckets: map[float64]int64{}}
	for _, c := range all {
		out.Accepted += c.Accepted
		out.Duplicate += c.Duplicate
		out.Handshake += c.Handshake
		out.Rejected += c.Rejected
		out.Unavailable += c.Unavailable
		out.Failed += c.Failed
		out.DeadLettered += c.DeadLettered
		for reason, n := range c.Reasons {
			out.Reasons[reason] += n
		}
		for le, n := range c.buckets {
			out.buckets[le] += n
		}
	}
	out.P99 = out.quantile(0.99)
	return out
}

// String is one line for a person.
func (c *counts) String() string {
	line := fmt.Sprintf("%s accepted, %s duplicate, %s rejected", number(c.Accepted), number(c.Duplicate), number(c.Rejected))
	if c.Rejected > 0 {
		var reasons []string
		for _, reason := range slices.Sorted(maps.Keys(c.Reasons)) {
			reasons = append(reasons, number(c.Reasons[reason])+" "+reason)
		}
		line += " (" + strings.Join(reasons, ", ") + ")"
	}
	if c.Unavailable > 0 {
		line += fmt.Sprintf(", %s told to come again", number(c.Unavailable))
	}
	if c.Failed > 0 {
		line += fmt.Sprintf(", %s failed", number(c.Failed))
	}
	if c.DeadLettered > 0 {
		line += fmt.Sprintf(", %s dead letters", number(c.DeadLettered))
	}
	if c.P99 > 0 {
		line += ", p99 ≤ " + time.Duration(c.P99*float64(time.Second)).String()
	}
	return line
}
