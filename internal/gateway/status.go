package gateway

import (
	"cmp"
	"slices"
)

// SourceStatus is a source as its operator sees it.
type SourceStatus struct {
	Name   string `json:"name"`
	Scheme string `json:"scheme"`
	Topic  string `json:"topic"`
	// Path is what its sender is given, behind the public host.
	Path string `json:"path"`
	// Keys is how many secrets there are.
	Keys int `json:"keys"`
	// Remembered is how many ids a repeat is told by, Requests how many requests are under way.
	Remembered int   `json:"remembered"`
	Requests   int64 `json:"requests"`
	// Refused are the events whose sender was told to come again and that were not acknowledged since: the newest
	// thousand. RefusedTotal counts every such answer.
	Refused      []Refusal `json:"refused"`
	RefusedTotal uint64    `json:"refused_total"`
	// Pass is how many repeats will be published all the same.
	Pass int `json:"pass"`
	// Retries says whether the sender comes again by itself; Redeliver where a person has it send again.
	Retries   bool   `json:"retries"`
	Redeliver string `json:"redeliver,omitempty"`
}

// Status returns the sources by name.
func (g *Gateway) Status() []SourceStatus {
	set := g.sources.Load()
	if set == nil {
		return nil
	}
	out := make([]SourceStatus, 0, len(set.byName))
	for _, s := range set.byName {
		st := SourceStatus{Name: s.Name, Scheme: s.schemeName(), Topic: s.Topic, Path: prefix + s.Name, Keys: len(s.Keys), Requests: s.requests.Load()}
		if s.Scheme != nil {
			st.Retries, st.Redeliver = s.Scheme.Sender.Retries.On5xx, s.Scheme.Sender.Redeliver
		}
		s.mu.Lock()
		for _, t := range []*table{s.ids, s.bodies} {
			if t != nil {
				st.Remembered += t.used
			}
		}
		st.Refused, st.RefusedTotal, st.Pass = slices.Clone(s.refusals), s.refused, s.pass
		s.mu.Unlock()
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b SourceStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Broken says why the folder is not used as it is, "" where it is.
func (g *Gateway) Broken() string {
	if text := g.broken.Load(); text != nil {
		return *text
	}
	return ""
}

// PassRepeats lets the next n repeats of a source be published all the same, with the ce_id of the first: for a
// redelivery that somebody asked its sender for on purpose. It reports whether there is such a source.
func (g *Gateway) PassRepeats(source string, n int) bool {
	set := g.sources.Load()
	if set == nil || set.byName[source] == nil {
		return false
	}
	st := set.byName[source].state
	st.mu.Lock()
	defer st.mu.Unlock()
	st.pass = n
	return true
}
