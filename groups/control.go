package groups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/reader"
)

// ControlTopic is where services are told to pause: one partition, compacted, a record for each group with the group as its
// key and a [Control] as JSON. [Pause] creates it; nothing else does.
const ControlTopic = "_millrace.control"

// The limits of a pause. It always ends by itself: whoever asked for it may be gone.
const (
	// PauseFor is how long a pause lasts where nothing else is said.
	PauseFor = 10 * time.Minute
	// PauseMost is the longest that services obey, whatever the record says.
	PauseMost = 24 * time.Hour
	// PauseWait is how long members may take to leave where nothing else is said: a service that has never found the
	// control topic looks for it every half a minute, then drains, and a static member is gone after its session timeout only.
	PauseWait = 2 * time.Minute
)

const (
	controlTimeout = 30 * time.Second // for one thing done to the control topic
	controlMost    = 64 << 10         // bytes of a record
	emptyEvery     = 500 * time.Millisecond
)

// Errors of a pause.
var (
	// ErrStayed means that members did not leave when they were told to: clients of others, or services that do not listen.
	ErrStayed = errors.New("members of the group did not leave")
	// ErrPaused means that somebody else has paused the group.
	ErrPaused = errors.New("the group is paused already")
)

// The states of a [Control].
const (
	Paused  = "paused"
	Running = "running"
)

// Control is what the services of a group are told.
type Control struct {
	Millrace int       `json:"millrace"` // the version of the format: 1
	ID       string    `json:"id"`       // of the pause, also in the record that ends it
	Group    string    `json:"group"`
	State    string    `json:"state"` // [Paused] or [Running]
	By       string    `json:"by"`    // who asked, for people
	At       time.Time `json:"at"`    // by the clock of who asked
	Until    time.Time `json:"until,omitzero"`
}

// Holds reports whether the group is to stand still at the time now. It is pure. Clocks that differ move the end of a pause by
// as much; one that lies more than [PauseMost] away is no end, and then there is no pause.
func (c Control) Holds(now time.Time) bool {
	return c.State == Paused && now.Before(c.Until) && c.Until.Sub(now) <= 2*PauseMost
}

// ParseControl reads a record of the control topic.
func ParseControl(key, value []byte) (Control, error) {
	fail := func(err error) (Control, error) { return Control{}, fmt.Errorf("read control record: %w", err) }
	if len(value) > controlMost {
		return fail(fmt.Errorf("%d bytes are more than %d", len(value), controlMost))
	}
	var c Control
	if err := json.Unmarshal(value, &c); err != nil {
		return fail(err)
	}
	switch {
	case c.Millrace != 1:
		return fail(fmt.Errorf("it is of version %d, this Millrace reads 1", c.Millrace))
	case c.Group == "" || c.Group != string(key):
		return fail(fmt.Errorf("it is of group %q, and its key is %q", c.Group, key))
	case c.State != Paused && c.State != Running:
		return fail(fmt.Errorf("%q is no state of a group", c.State))
	case c.State == Paused && (c.Until.Before(c.At) || c.Until.Sub(c.At) > PauseMost):
		return fail(fmt.Errorf("it is a pause from %s to %s: at most %s", c.At.Format(time.RFC3339), c.Until.Format(time.RFC3339), PauseMost))
	}
	return c, nil
}

// ControlOf returns what the services of a group are told now, a zero Control where nobody ever told them anything.
func ControlOf(ctx context.Context, c kafka.Cluster, group string) (Control, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	r, err := reader.Open(ctx, c, reader.Config{Topics: []string{ControlTopic}})
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return Control{}, nil
	}
	if err != nil {
		return Control{}, fmt.Errorf("read control of group %s: %w", group, err)
	}
	var last Control
	for e, err := range r.Events(ctx) {
		if err != nil {
			return Control{}, fmt.Errorf("read control of group %s: %w", group, err)
		}
		if string(e.Key) != group {
			continue
		}
		if told, err := ParseControl(e.Key, e.Value); err == nil { // what is damaged tells services nothing either
			last = told
		}
	}
	return last, nil
}

// PauseConfig says which group is to stand still, and for how long.
type PauseConfig struct {
	// Group is the consumer group. Required. It must exist.
	Group string
	// By names who asks, for people.
	By string
	// For is when the pause ends by itself, whatever happens to who asked. Defaults to [PauseFor]; at most [PauseMost].
	For time.Duration
	// Wait is how long members may take to leave, less than For. Defaults to [PauseWait], or half of For.
	Wait time.Duration
	// Alone refuses with [ErrPaused] while another pause of the group holds, which else is replaced.
	Alone bool
	// Waiting is called with the members that are still there, whenever their number changes. Nil is none.
	Waiting func([]Member)
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

func (p PauseConfig) withDefaults() PauseConfig {
	if p.For == 0 {
		p.For = PauseFor
	}
	if p.Wait == 0 {
		p.Wait = min(PauseWait, p.For/2)
	}
	if p.Waiting == nil {
		p.Waiting = func([]Member) {}
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	return p
}

func (p PauseConfig) validate() error {
	switch {
	case p.Group == "":
		return errors.New("it has no name")
	case p.For < 0 || p.For > PauseMost:
		return fmt.Errorf("%s is no time to pause for: at most %s", p.For, PauseMost)
	case p.Wait < 0 || p.Wait >= p.For:
		return fmt.Errorf("a wait of %s does not fit into a pause of %s", p.Wait, p.For)
	}
	return nil
}

// Pause tells the services of a group to finish what they are at, commit, and leave, and waits until the group is empty. They
// stand still until [Resume], or until the pause ends by itself. On an error the pause was taken back: members that do not leave
// are an [ErrStayed] that names them.
func Pause(ctx context.Context, c kafka.Cluster, cfg PauseConfig) (Control, error) {
	cfg = cfg.withDefaults()
	fail := func(err error) (Control, error) { return Control{}, fmt.Errorf("pause group %s: %w", cfg.Group, err) }
	if err := cfg.validate(); err != nil {
		return fail(err)
	}
	if c.ReadOnly {
		return fail(kafka.ErrReadOnly)
	}
	if _, err := Describe(ctx, c, cfg.Group); err != nil {
		return fail(err)
	}
	if cfg.Alone {
		now, err := ControlOf(ctx, c, cfg.Group)
		if err != nil {
			return fail(err)
		}
		if now.Holds(cfg.Now()) {
			return fail(fmt.Errorf("%w: by %s until %s", ErrPaused, now.By, now.Until.UTC().Format(time.RFC3339)))
		}
	}
	at := cfg.Now().UTC()
	told := Control{
		Millrace: 1, ID: event.New(ControlTopic, cfg.Group, nil).ID, Group: cfg.Group, State: Paused, By: cfg.By, At: at, Until: at.Add(cfg.For),
	}
	err := createControl(ctx, c)
	if err == nil {
		if err = tell(ctx, c, told); err == nil {
			err = empty(ctx, c, cfg)
		}
		if err == nil {
			return told, nil
		}
		// A record that was not acknowledged may be there all the same.
		if _, taken := Resume(context.WithoutCancel(ctx), c, told, cfg.By, cfg.Now()); taken != nil {
			err = errors.Join(err, fmt.Errorf("%w: its services go on at %s by themselves", taken, told.Until.Format(time.RFC3339)))
		} else {
			err = fmt.Errorf("%w; the pause was taken back", err)
		}
	}
	return fail(err)
}

// Resume lets the services of a paused group go on. With the id of a pause it ends that one alone: when another has taken its
// place since, or none holds, it does nothing. It returns what held before. It takes at most a minute.
func Resume(ctx context.Context, c kafka.Cluster, pause Control, by string, now time.Time) (Control, error) {
	fail := func(err error) error { return fmt.Errorf("resume group %s: %w", pause.Group, err) }
	if c.ReadOnly {
		return Control{}, fail(kafka.ErrReadOnly)
	}
	was, err := ControlOf(ctx, c, pause.Group)
	if err != nil && pause.ID == "" {
		return was, fail(err)
	}
	if err == nil && (!was.Holds(now) || pause.ID != "" && pause.ID != was.ID) {
		return was, nil
	}
	id := was.ID
	if err != nil {
		id = pause.ID // what we made we end, seen or not
	}
	if err := tell(ctx, c, Control{Millrace: 1, ID: id, Group: pause.Group, State: Running, By: by, At: now.UTC()}); err != nil {
		return was, fail(err)
	}
	return was, nil
}

func createControl(ctx context.Context, c kafka.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	client, err := c.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	there, err := adm.ListTopics(ctx, ControlTopic)
	if err == nil && there.Has(ControlTopic) {
		return nil
	}
	_, err = adm.CreateTopic(ctx, 1, -1, map[string]*string{"cleanup.policy": new("compact")}, ControlTopic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s, which services listen to: %w", ControlTopic, c.Explain(err, "Create", "topic "+ControlTopic, "cluster"))
	}
	return nil
}

// tell writes a record to the control topic.
func tell(ctx context.Context, c kafka.Cluster, what Control) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	value, err := json.Marshal(what)
	if err != nil {
		return err
	}
	client, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	r := &kgo.Record{Topic: ControlTopic, Key: []byte(what.Group), Value: value}
	if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("tell the services of group %s: %w", what.Group, c.Explain(err, "Write", "topic "+ControlTopic))
	}
	return nil
}

// empty waits until the group has no members.
func empty(ctx context.Context, c kafka.Cluster, cfg PauseConfig) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	late := time.NewTimer(cfg.Wait)
	defer late.Stop()
	tick := time.NewTicker(emptyEvery)
	defer tick.Stop()
	seen := -1
	for {
		g, err := membersOf(ctx, c, client, cfg.Group)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if len(g.Members) == 0 && !active(g.State) {
			return nil
		}
		if len(g.Members) != seen {
			seen = len(g.Members)
			cfg.Waiting(g.Members)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("%w within %s: %s", ErrStayed, cfg.Wait, nameMembers(g.Members))
		case <-tick.C:
		}
	}
}

func membersOf(ctx context.Context, c kafka.Cluster, client *kgo.Client, group string) (Group, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	var g Group
	err := coordinated(ctx, func() error {
		all, err := members(ctx, c, client, []string{group})
		g = all[group].Group
		return err
	})
	return g, err
}

func nameMembers(all []Member) string {
	const most = 10
	var names []string
	for _, m := range all[:min(len(all), most)] {
		name := m.ClientID + " at " + strings.TrimPrefix(m.Host, "/")
		if m.Instance != "" {
			name += " (static: " + m.Instance + ")"
		}
		names = append(names, name)
	}
	if n := len(all) - most; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, ", ")
}
