package replay

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/kafka"
)

const (
	// groupPrefix begins the name of every group that keeps the progress of a replay.
	groupPrefix = "_millrace.replay."

	// lease is how long a run holds its replay after its last commit. A run that cannot commit for as long ends.
	lease = 15 * time.Second
	// settle is how long after the lock was written it is read again: longer than two that start at once are apart.
	settle = 300 * time.Millisecond
	// commitEvery is the time between two commits of a run that is not driven to them by its window.
	commitEvery = time.Second
	// commitAll is how often partitions are committed that have not moved: a group's offsets expire one by one.
	commitAll     = time.Hour
	commitTimeout = 5 * time.Second
	// A coordinator that is away is looked for so often, and so far apart.
	coordinatorLooks = 40
	coordinatorWait  = 250 * time.Millisecond
	maxMetadata      = 4096 // offset.metadata.max.bytes, as Kafka ships it
)

// mark is the metadata of a commit: what the partition's span was when the replay began, and on the first partition
// the head, which is about the whole.
type mark struct {
	Version int   `json:"millrace_replay"` // 1
	From    int64 `json:"from"`
	Until   int64 `json:"until"`
	Head    *head `json:"head,omitempty"`
}

// text is the metadata, without the escapes of HTML: filters are full of what it would escape.
func (m mark) text() (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return "", err //nolint:wrapcheck // save says what it was for
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// noteSize is how much of a commit a note takes.
func noteSize(note string) int {
	with, _ := mark{Head: &head{Note: note}}.text() // strings and numbers alone
	without, _ := mark{Head: &head{}}.text()
	return len(with) - len(without)
}

// parseMark reads the metadata of a commit at an offset. What is no replay's, or lies outside of its span, was not
// written by one.
func parseMark(at int64, meta string) (mark, bool) {
	var m mark
	if err := json.Unmarshal([]byte(meta), &m); err != nil || m.Version != 1 || m.From < 0 || m.From > at || at > m.Until {
		return mark{}, false
	}
	return m, m.Head == nil || m.Head.Parts > 0 && m.Head.Grant >= 0
}

// head is what a replay is, and who runs it.
type head struct {
	Owner owner     `json:"owner,omitzero"`
	Lease time.Time `json:"lease,omitzero"` // until then the owner has it
	Begun time.Time `json:"begun"`
	Parts int       `json:"parts"`
	// Grant is how many events the owner may have delivered past this commit; 0 once it was stopped in time.
	Grant int64 `json:"grant"`
	Counts
	Repeats     int64     `json:"repeats,omitempty"`
	Gone        int64     `json:"gone,omitempty"`
	Since       time.Time `json:"since,omitzero"`  // events of an earlier record time are not meant
	Before      time.Time `json:"before,omitzero"` // nor those of this one or a later one
	Set         string    `json:"set,omitempty"`   // the hash of a saved set
	Uncommitted bool      `json:"uncommitted,omitempty"`
	Done        bool      `json:"done,omitempty"`
	Note        string    `json:"note,omitempty"`
}

// owner is a run. Machine, where it is known, is one boot of one kernel and one namespace of processes in it, so that
// whoever has the same can see whether PID still lives.
type owner struct {
	Token   string `json:"token"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Machine string `json:"machine,omitempty"`
}

func newOwner() owner {
	o := owner{Token: random(8), PID: os.Getpid(), Machine: machine()}
	o.Host, _ = os.Hostname() // for people
	return o
}

func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + namespace
}

// dead reports that the run is certainly over: its process ran here, and is gone. A process of the same number that
// came later looks like it, and then its lease must run out.
func (o owner) dead(me owner) bool {
	if o.Machine == "" || o.Machine != me.Machine || o.PID == me.PID || runtime.GOOS == "windows" {
		return false
	}
	p, err := os.FindProcess(o.PID)
	return err != nil || errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// newID is unlike any other, and sorts by time.
func newID() string { return time.Now().UTC().Format("20060102-150405-") + random(3) }

// store keeps the progress of replays.
type store interface {
	// load returns nil without an error for a replay that has no progress.
	load(ctx context.Context, id string) (*frozen, error)
	// save commits the spans, and the head with the first of all.
	save(ctx context.Context, id string, h head, first Span, spans []Span) error
	close()
}

// kafkaStore keeps progress in the offsets of memberless groups.
type kafkaStore struct {
	cluster kafka.Cluster
	client  *kgo.Client
	admin   *kadm.Client
}

func openStore(c kafka.Cluster) (*kafkaStore, error) {
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("keep progress: %w", err)
	}
	return &kafkaStore{c, client, kadm.NewClient(client)}, nil
}

func (s *kafkaStore) close() { s.client.Close() }

func (s *kafkaStore) load(ctx context.Context, id string) (*frozen, error) {
	group := groupPrefix + id
	commits, err := s.admin.FetchOffsets(ctx, group)
	for range coordinatorLooks { // the first group of a new cluster has none yet
		if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.CoordinatorLoadInProgress) || !sleep(ctx, coordinatorWait) {
			break
		}
		commits, err = s.admin.FetchOffsets(ctx, group)
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil //nolint:nilnil // no progress is no error
	}
	if err != nil {
		return nil, fmt.Errorf("read progress of replay %s: %w", id, s.cluster.Explain(err, "Read", "group "+group))
	}
	f := &frozen{resumed: true}
	var first *head
	for _, o := range commits.Sorted() {
		if o.Err != nil {
			return nil, fmt.Errorf("read progress of replay %s: %w", id, o.Err)
		}
		if o.At < 0 {
			continue
		}
		m, ok := parseMark(o.At, o.Metadata)
		if !ok {
			return nil, fmt.Errorf("read progress of replay %s: the commit on %s/%d is none of a replay: another tool moved group %s: run it anew with another id",
				id, o.Topic, o.Partition, group)
		}
		if m.Head != nil && first == nil {
			first = m.Head
		}
		f.spans = append(f.spans, Span{o.Topic, o.Partition, m.From, m.Until, o.At})
	}
	if len(f.spans) == 0 {
		return nil, nil //nolint:nilnil // no progress is no error
	}
	slices.SortFunc(f.spans, bySpan)
	if first == nil || first.Parts != len(f.spans) {
		return nil, fmt.Errorf("read progress of replay %s: offsets of group %s are missing: they expired, or their topic was deleted: run it anew with another id", id, group)
	}
	f.head = *first
	return f, nil
}

func (s *kafkaStore) save(ctx context.Context, id string, h head, first Span, spans []Span) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	group := groupPrefix + id
	offsets := kadm.Offsets{}
	add := func(p Span, h *head) error {
		meta, err := mark{Version: 1, From: p.From, Until: p.Until, Head: h}.text()
		if err != nil {
			return fmt.Errorf("commit progress of replay %s: %w", id, err)
		}
		if len(meta) > maxMetadata {
			return fmt.Errorf("commit progress of replay %s: %d bytes are more than a commit holds: Config.Note must be shorter", id, len(meta))
		}
		offsets.Add(kadm.Offset{Topic: p.Topic, Partition: p.Partition, At: p.Position, LeaderEpoch: -1, Metadata: meta})
		return nil
	}
	for _, p := range spans {
		if p.Topic == first.Topic && p.Partition == first.Partition {
			continue
		}
		if err := add(p, nil); err != nil {
			return err
		}
	}
	if err := add(first, &h); err != nil {
		return err
	}
	if err := s.admin.CommitAllOffsets(ctx, group, offsets); err != nil {
		return fmt.Errorf("commit progress of replay %s: %w", id, s.cluster.Explain(err, "Read", "group "+group, "topic "+first.Topic))
	}
	return nil
}

// lock is a run's hold on its replay. It is a record with a lease in the commit of the first partition, and Kafka does
// not compare before it commits, so it is no fence: a run that was away for longer than its lease, or two that start
// within settle on machines whose clocks or commits are further apart, may overlap until the next commit of one of
// them. What is committed is true for its writer, so that costs repeats and order, and loses nothing.
type lock struct {
	store store
	id    string
	owner owner
	h     head
	first Span // the partition that carries the head

	held  time.Time // of the last commit
	saved time.Time // all partitions
}

// begin returns the frozen range of cfg, from its progress where there is some, and a lock on it. Without a store, or
// with nothing to replay, the lock is nil.
func begin(ctx context.Context, c kafka.Cluster, s store, cfg Config, fresh bool) (*frozen, *lock, error) {
	var f *frozen
	var err error
	if s != nil && !fresh {
		if f, err = s.load(ctx, cfg.ID); err != nil {
			return nil, nil, err
		}
	}
	if f != nil {
		if err := f.check(cfg); err != nil {
			return nil, nil, err
		}
	} else {
		if f, err = freeze(ctx, c, cfg); err != nil {
			return nil, nil, err
		}
		f.head.Begun, f.head.Parts, f.head.Note = time.Now().UTC().Truncate(time.Millisecond), len(f.spans), cfg.Note
		f.head.Done = len(f.spans) == 0
	}
	if s == nil || f.head.Done {
		return f, nil, nil
	}
	l := &lock{store: s, id: cfg.ID, owner: newOwner(), first: f.spans[0]}
	if err := l.take(ctx, f, min(minGrant, int64(cfg.Window)), fresh); err != nil {
		return nil, nil, err
	}
	return f, l, nil
}

// taken says who has the replay.
func taken(id string, h head) error {
	return fmt.Errorf("replay %s: %w: process %d on %s, until %s", id, ErrTaken, h.Owner.PID, h.Owner.Host, h.Lease.Format(time.RFC3339))
}

// take writes the lock, and reads it again unless nobody else can know the id.
func (l *lock) take(ctx context.Context, f *frozen, grant int64, fresh bool) error {
	h := &f.head
	if time.Now().Before(h.Lease) && !h.Owner.dead(l.owner) {
		return taken(l.id, *h)
	}
	var left int64
	for _, s := range f.spans {
		left += s.Until - s.Position
	}
	h.Repeats += min(h.Grant, left)
	h.Grant = grant
	l.h = *h
	if err := l.save(ctx, l.first, f.spans); err != nil {
		return err
	}
	if fresh {
		return nil
	}
	t := time.NewTimer(settle)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return fmt.Errorf("replay %s: %w", l.id, ctx.Err())
	}
	return l.check(ctx)
}

// check says whether the replay is still this run's.
func (l *lock) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	f, err := l.store.load(ctx, l.id)
	if err != nil {
		return err
	}
	if f == nil || f.head.Owner.Token != l.owner.Token {
		if f == nil {
			return fmt.Errorf("replay %s: %w: its progress was deleted", l.id, ErrTaken)
		}
		return taken(l.id, f.head)
	}
	return nil
}

// save commits spans with the head, and holds the lock for another lease.
func (l *lock) save(ctx context.Context, first Span, spans []Span) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	l.h.Owner, l.h.Lease = l.owner, now.Add(lease)
	if err := l.store.save(ctx, l.id, l.h, first, spans); err != nil {
		return err
	}
	l.held = now
	return nil
}

// commit writes a cut, if the replay is still this run's.
func (l *lock) commit(ctx context.Context, c cut) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	l.h.Counts, l.h.Grant = c.counts, c.grant
	spans := c.moved
	if time.Since(l.saved) > commitAll {
		spans, l.saved = c.all, time.Now()
	}
	return l.save(ctx, c.all[0], spans)
}

// release writes the last cut and gives the replay up: whoever comes next need not wait. What is on its way still may
// have been delivered, and is said so.
func (l *lock) release(ctx context.Context, c cut, onTheWay int64, done bool) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	l.h.Counts, l.h.Grant, l.h.Done = c.counts, onTheWay, done
	l.h.Owner, l.h.Lease = owner{}, time.Time{}
	return l.store.save(ctx, l.id, l.h, c.all[0], c.moved)
}

// Progress is a replay as its group tells it.
type Progress struct {
	Summary
	Begun   time.Time
	Running bool // a run holds it
	Owner   string
	Note    string // Config.Note
}

func (f *frozen) progress(id string) Progress {
	h := f.head
	p := Progress{
		Summary: Summary{ID: id, Spans: f.spans, Counts: h.Counts, Repeats: h.Repeats, Gone: h.Gone, Done: h.Done},
		Begun:   h.Begun, Note: h.Note, Running: time.Now().Before(h.Lease) && !h.Owner.dead(newOwner()),
	}
	if p.Running {
		p.Owner = fmt.Sprintf("process %d on %s", h.Owner.PID, h.Owner.Host)
	}
	return p
}

// Topics are the topics that the replay reads, those without an event in the range left out.
func (p Progress) Topics() []string { return (&frozen{spans: p.Spans}).topics() }

// Find returns the progress of one replay. An error wraps [ErrNotFound] where there is none.
func Find(ctx context.Context, c kafka.Cluster, id string) (Progress, error) {
	s, err := openStore(c)
	if err != nil {
		return Progress{}, err
	}
	defer s.close()
	f, err := s.load(ctx, id)
	if err == nil && f == nil {
		err = fmt.Errorf("look for replay %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Progress{}, err
	}
	return f.progress(id), nil
}

// List returns the progress of every replay that the cluster knows, the newest first. A group whose offsets expired has
// none; one that is damaged is left out, and is an error of [Find].
func List(ctx context.Context, c kafka.Cluster) ([]Progress, error) {
	s, err := openStore(c)
	if err != nil {
		return nil, err
	}
	defer s.close()
	groups, err := s.admin.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list replays: %w", c.Explain(err, "Describe", "cluster"))
	}
	var out []Progress
	for _, g := range groups.Groups() {
		id, ok := strings.CutPrefix(g, groupPrefix)
		if !ok {
			continue
		}
		f, err := s.load(ctx, id)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("list replays: %w", ctx.Err())
		}
		if err == nil && f != nil {
			out = append(out, f.progress(id))
		}
	}
	slices.SortFunc(out, func(a, b Progress) int { return cmp.Or(b.Begun.Compare(a.Begun), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}
