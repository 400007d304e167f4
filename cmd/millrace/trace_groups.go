package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/cursor"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
)

// groupsMost bounds how many groups a trace asks for their positions.
const groupsMost = 2_000

// What has become of a record in a group.
const (
	groupDone     = "done"        // the position is past it
	groupWaiting  = "waiting"     // the position is before it
	groupDeferred = "deferred"    // it failed and is tried again later
	groupGaveUp   = "dead-letter" // it was copied to the group's dead letters
	groupNone     = "none"        // the group has committed nothing on its partition
	groupUnclear  = "unclear"     // the position is past it, and it may be among what the group has put aside
)

// groupState is what has become of a record in a group.
type groupState struct {
	Group string `json:"group"`
	State string `json:"state"`
	// Behind is how many offsets the position is before the record, for waiting: upper bound of records.
	Behind int64 `json:"behind,omitempty"`
	// Attempts that failed, and when the next one is due, for deferred.
	Attempts int        `json:"attempts,omitempty"`
	Due      *time.Time `json:"due,omitempty"`
	// Letter is where the copy stands, Class and Error why, for dead-letter.
	Letter string `json:"letter,omitempty"`
	Class  string `json:"class,omitempty"`
	Error  string `json:"error,omitempty"`
}

// text says it for people, at a moment.
func (g groupState) text(now time.Time) string {
	name := printable(g.Group)
	switch g.State {
	case groupWaiting:
		if g.Behind == 0 {
			return name + ": next"
		}
		return fmt.Sprintf("%s: not yet, %s before it", name, number(g.Behind))
	case groupDeferred:
		when := "now"
		if g.Due != nil && g.Due.After(now) {
			when = "in " + age(g.Due.Sub(now))
		}
		return fmt.Sprintf("%s: deferred after %s, due %s", name, plural(int64(g.Attempts), "attempt"), when)
	case groupGaveUp:
		return fmt.Sprintf("%s: dead letter %s (%s: %s)", name, printable(g.Letter), printable(g.Class), printable(g.Error))
	case groupNone:
		return name + ": nothing committed"
	case groupUnclear:
		return name + ": done, or put aside"
	}
	return name + ": " + g.State
}

// positions are the commits of all groups, by group.
type positions map[string]kadm.OffsetResponses

// groupPositions asks every group that we may see. What could not be asked is said, and left out.
func (a *app) groupPositions(ctx context.Context, c kafka.Cluster) (positions, error) {
	all, err := groups.List(ctx, c)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it did
	}
	if len(all) > groupsMost {
		a.say("there are %s: the first %s are looked at", plural(int64(len(all)), "group"), number(groupsMost))
		all = all[:groupsMost]
	}
	ids := make([]string, 0, len(all))
	for _, g := range all {
		if g.Type != "share" { // has no committed offsets
			ids = append(ids, g.ID)
		}
	}
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("look up positions: %w", err)
	}
	defer client.Close()
	found := positions{}
	denied := 0
	for id, f := range kadm.NewClient(client).FetchManyOffsets(ctx, ids...) {
		if f.Err != nil {
			denied++
			continue
		}
		found[id] = f.Fetched
	}
	if denied > 0 {
		a.say("the positions of %s could not be read", plural(int64(denied), "group"))
	}
	return found, nil
}

// judge says where every group stands on every record of the chain.
func (p positions) judge(all []*traced) {
	for _, t := range all {
		t.groups = p.at(t.spot, t.letters)
		for i := range t.copies {
			t.copies[i].groups = p.at(t.copies[i], t.letters)
		}
	}
}

func (p positions) at(s spot, letters []letter) []groupState {
	states := map[string]groupState{}
	for id, topics := range p {
		partitions, ok := topics[s.topic]
		if !ok {
			continue
		}
		if commit, ok := partitions[s.partition]; ok && commit.Err == nil && commit.At >= 0 {
			states[id] = standing(id, commit.At, commit.Metadata, s.offset)
		} else {
			states[id] = groupState{Group: id, State: groupNone}
		}
	}
	for _, l := range letters {
		if l.origin.Topic == s.topic && l.origin.Partition == s.partition && l.origin.Offset == s.offset {
			states[l.group] = groupState{
				Group: l.group, State: groupGaveUp, Letter: fmt.Sprintf("%s@%d", place(l.topic, l.partition), l.offset), Class: l.class, Error: l.text,
			}
		}
	}
	out := make([]groupState, 0, len(states))
	for _, g := range states {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b groupState) int { return strings.Compare(a.Group, b.Group) })
	return out
}

// standing is what a commit says of an offset.
func standing(group string, at int64, metadata string, offset int64) groupState {
	g := groupState{Group: group, State: groupDone}
	c, _ := cursor.Decode(at, metadata) // with an error it is the bare position
	if offset >= c.Position {
		if !slices.ContainsFunc(c.Done, func(r cursor.Run) bool { return r.From <= offset && offset < r.To }) {
			g.State, g.Behind = groupWaiting, offset-c.Position
		}
		return g
	}
	for _, o := range c.Open {
		switch {
		case o.Offset == offset && !o.Held:
			due := o.Due
			return groupState{Group: group, State: groupDeferred, Attempts: int(o.Attempt), Due: &due}
		case o.Held && o.Offset <= offset: // with its key, if that is the one that is held
			g.State = groupUnclear
		}
	}
	if c.Mark != nil && offset >= c.Floor { // what was spilled stands elsewhere
		g.State = groupUnclear
	}
	return g
}
