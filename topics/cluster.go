package topics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/kafka"
)

const (
	haveTimeout  = time.Minute
	applyTimeout = 5 * time.Minute
	readyTimeout = 15 * time.Second
	readyPoll    = 20 * time.Millisecond
	describeMost = 500 // topics a request asks the configurations of
)

var (
	// ErrChanged is in Apply's error when the cluster no longer has what the plan was made against. Plan again.
	ErrChanged = errors.New("the cluster has changed since the plan: plan again")
	// ErrRefused is in Apply's error for a change that the plan itself refuses.
	ErrRefused = errors.New("refused")
)

// Have reads the named topics from the cluster, or all of them when no name is given, sorted by name. A name the
// cluster does not have is left out. A Spec's Config holds what is set on the topic itself: what the broker decides is
// not the topic's. It takes at most a minute.
func Have(ctx context.Context, c kafka.Cluster, names ...string) ([]Spec, error) {
	ctx, cancel := context.WithTimeout(ctx, haveTimeout)
	defer cancel()
	cl, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("connect to read topics: %w", err)
	}
	defer cl.Close()
	return have(ctx, c, kadm.NewClient(cl), names)
}

func have(ctx context.Context, c kafka.Cluster, adm *kadm.Client, names []string) ([]Spec, error) {
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", c.Explain(err, "Describe", resources(names)...))
	}
	var specs []Spec
	for _, d := range details.Sorted() {
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		case d.Err != nil:
			return nil, fmt.Errorf("describe topic %s: %w", d.Topic, c.Explain(d.Err, "Describe", "topic "+d.Topic))
		default:
			specs = append(specs, Spec{Name: d.Topic, Partitions: int32(len(d.Partitions)), Replicas: replicas(d)})
		}
	}
	for batch := range slices.Chunk(specs, describeMost) {
		if err := describe(ctx, c, adm, batch); err != nil {
			return nil, err
		}
	}
	return specs, nil
}

// resources are the topics by which a refusal may be explained: where it does not say which, one stands for all.
func resources(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	return []string{"topic " + names[0]}
}

// replicas is the count most partitions would agree on: that of the lowest partition. While a reassignment runs, counts
// differ for a while.
func replicas(d kadm.TopicDetail) int16 {
	for _, p := range d.Partitions.Sorted() {
		return int16(len(p.Replicas))
	}
	return 0
}

// describe adds the topics' own configurations to the specs.
func describe(ctx context.Context, c kafka.Cluster, adm *kadm.Client, specs []Spec) error {
	at := make(map[string]*Spec, len(specs))
	for i := range specs {
		at[specs[i].Name] = &specs[i]
	}
	resources, err := adm.DescribeTopicConfigs(ctx, sortedKeys(at)...)
	if err != nil {
		return fmt.Errorf("describe topic configurations: %w", c.Explain(err, "DescribeConfigs", "cluster"))
	}
	for _, r := range resources {
		s := at[r.Name]
		switch {
		case s == nil:
			continue
		case r.Err != nil:
			return fmt.Errorf("describe configurations of topic %s: %w", r.Name, c.Explain(r.Err, "DescribeConfigs", "topic "+r.Name))
		}
		for _, kv := range r.Configs {
			if kv.Source == kmsg.ConfigSourceDynamicTopicConfig && kv.Value != nil {
				s.set(kv.Key, *kv.Value)
			}
		}
	}
	return nil
}

// set puts a configuration where a Spec has it. A retention that time.Duration cannot hold stays in Config.
func (s *Spec) set(key, value string) {
	if key == "retention.ms" {
		switch ms, err := strconv.ParseInt(value, 10, 64); {
		case err != nil:
		case ms == -1:
			s.Retention = Forever
			return
		case ms > 0 && ms <= math.MaxInt64/int64(time.Millisecond):
			s.Retention = time.Duration(ms) * time.Millisecond
			return
		}
	}
	if s.Config == nil {
		s.Config = map[string]string{}
	}
	s.Config[key] = value
}

// Apply makes the changes and gives those it made, in order; on an error too. It reads the topics again first and makes
// no change whose Have is no longer so (ErrChanged); a change that the plan refuses is an error (ErrRefused); one that
// Destroys is left alone without destroy. A change that fails does not stop the others: the error joins all. When Apply
// returns nil, the topics it created have leaders. It takes at most five minutes.
func Apply(ctx context.Context, c kafka.Cluster, changes []Change, destroy bool) ([]Change, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	a := applier{cluster: c, destroy: destroy}
	order, byTopic := a.sort(changes)
	if len(order) == 0 {
		return nil, errors.Join(a.errs...)
	}
	cl, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("connect to apply topics: %w", err)
	}
	defer cl.Close()
	a.client, a.adm = cl, kadm.NewClient(cl)
	specs, err := have(ctx, c, a.adm, order)
	if err != nil {
		return nil, errors.Join(append(a.errs, err)...)
	}
	now := map[string]Spec{}
	for _, s := range specs {
		now[s.Name] = s
	}
	for _, topic := range order {
		spec, exists := now[topic]
		a.topic(ctx, spec, exists, byTopic[topic])
	}
	a.awaitLeaders(ctx)
	return a.applied, errors.Join(a.errs...)
}

type applier struct {
	cluster kafka.Cluster
	client  *kgo.Client
	adm     *kadm.Client
	destroy bool
	applied []Change
	errs    []error
}

// sort groups the changes to make by topic, in the order of their first.
func (a *applier) sort(changes []Change) (order []string, byTopic map[string][]Change) {
	byTopic = map[string][]Change{}
	for _, c := range changes {
		switch {
		case c.Refused != "":
			a.errs = append(a.errs, fmt.Errorf("topic %s, %s: %w: %s", c.Topic, c.What, ErrRefused, c.Refused))
			continue
		case c.What == Unmanaged || c.Destroys && !a.destroy:
			continue
		}
		if byTopic[c.Topic] == nil {
			order = append(order, c.Topic)
		}
		byTopic[c.Topic] = append(byTopic[c.Topic], c)
	}
	return order, byTopic
}

// topic makes the changes of one topic. Its configurations go in one request, because the broker checks some against
// each other.
func (a *applier) topic(ctx context.Context, now Spec, exists bool, changes []Change) {
	var configs []Change
	for _, c := range changes {
		if err := precondition(c, now, exists); err != nil {
			a.done(c, err)
			continue
		}
		switch c.What {
		case Create:
			a.done(c, a.create(ctx, c))
		case Delete:
			_, err := a.adm.DeleteTopic(ctx, c.Topic)
			a.done(c, err)
		case Partitions:
			a.done(c, a.partitions(ctx, c))
		default:
			configs = append(configs, c)
		}
	}
	if len(configs) == 0 {
		return
	}
	err := a.alter(ctx, configs)
	for _, c := range configs {
		a.done(c, err)
	}
}

func (a *applier) done(c Change, err error) {
	if err != nil {
		err = a.cluster.Explain(err, operation(c.What), "topic "+c.Topic, "cluster")
		a.errs = append(a.errs, fmt.Errorf("topic %s, %s: %w", c.Topic, c.What, err))
		return
	}
	a.applied = append(a.applied, c)
}

// operation is what the authorizer calls a change.
func operation(what string) string {
	switch what {
	case Create:
		return "Create"
	case Delete:
		return "Delete"
	case Partitions:
		return "Alter"
	default:
		return "AlterConfigs"
	}
}

// precondition compares what the change was planned against with what the cluster has.
func precondition(c Change, now Spec, exists bool) error {
	is := "absent"
	if exists {
		switch c.What {
		case Create, Delete:
			is = now.summary()
		case Partitions:
			is = decimal(now.Partitions)
		default:
			is = NotSet
			if v, ok := now.configs()[c.What]; ok {
				is = human(c.What, v)
			}
		}
	}
	if is != c.Have {
		return fmt.Errorf("%w (it was %q, it is %q)", ErrChanged, c.Have, is)
	}
	return nil
}

func (a *applier) create(ctx context.Context, c Change) error {
	if c.Spec == nil || c.Spec.Name != c.Topic {
		return errors.New("the change does not say what to create: plan again")
	}
	if ps := c.Spec.problems(); len(ps) > 0 {
		return fmt.Errorf("%w: %s", ErrRefused, ps[0].text)
	}
	configs := map[string]*string{}
	for k, v := range c.Spec.configs() {
		configs[k] = &v
	}
	factor := c.Spec.Replicas
	if factor == 0 {
		factor = -1
	}
	r, err := a.adm.CreateTopic(ctx, c.Spec.Partitions, factor, configs, c.Topic)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("%w (it was absent)", ErrChanged)
	}
	return withMessage(err, r.ErrMessage)
}

func (a *applier) partitions(ctx context.Context, c Change) error {
	n, err := strconv.ParseInt(c.Want, 10, 32)
	have, errHave := strconv.ParseInt(c.Have, 10, 32)
	if err != nil || errHave != nil || n <= have || n > maxPartitions {
		return fmt.Errorf("%w: from %s to %s partitions", ErrRefused, clip(c.Have), clip(c.Want))
	}
	rs, err := a.adm.UpdatePartitions(ctx, int(n), c.Topic)
	if err != nil {
		return err
	}
	r, err := rs.On(c.Topic, nil)
	if err != nil {
		return err
	}
	return withMessage(r.Err, r.ErrMessage)
}

func (a *applier) alter(ctx context.Context, changes []Change) error {
	var ops []kadm.AlterConfig
	for _, c := range changes {
		if c.Want == NotSet {
			if !c.Destroys {
				return fmt.Errorf("%w: %s is unset and the change does not say that it destroys", ErrRefused, c.What)
			}
			ops = append(ops, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: c.What})
			continue
		}
		v, err := canonical(c.What, c.Want)
		if err != nil {
			return err
		}
		ops = append(ops, kadm.AlterConfig{Op: kadm.SetConfig, Name: c.What, Value: &v})
	}
	topic := changes[0].Topic
	rs, err := a.adm.AlterTopicConfigs(ctx, ops, topic)
	if err != nil {
		return err
	}
	r, err := rs.On(topic, nil)
	if err != nil {
		return err
	}
	return withMessage(r.Err, r.ErrMessage)
}

// withMessage adds the broker's own words to an error, which for a refused configuration are the only useful part.
func withMessage(err error, message string) error {
	if err == nil || message == "" || strings.Contains(err.Error(), message) {
		return err
	}
	return fmt.Errorf("%w: %s", err, message)
}

// awaitLeaders waits until every partition of the created topics has a leader, so that who comes next need not retry.
func (a *applier) awaitLeaders(ctx context.Context) {
	wait := map[string]bool{}
	for _, c := range a.applied {
		if c.What == Create {
			wait[c.Topic] = true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for len(wait) > 0 {
		for _, topic := range a.led(ctx, sortedKeys(wait)) {
			delete(wait, topic)
		}
		if len(wait) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			a.errs = append(a.errs, fmt.Errorf("wait for the leaders of %s: %w", strings.Join(sortedKeys(wait), ", "), ctx.Err()))
			return
		case <-tick.C:
		}
	}
}

// led are those of the topics whose every partition has a leader. It asks a broker itself, for the client remembers its
// last answer for seconds.
func (a *applier) led(ctx context.Context, topics []string) []string {
	req := kmsg.NewPtrMetadataRequest()
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(topic)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, a.client)
	if err != nil {
		return nil // asked again at the next tick, and reported when time is up
	}
	var led []string
	for _, t := range resp.Topics {
		leaderless := func(p kmsg.MetadataResponseTopicPartition) bool { return p.ErrorCode != 0 || p.Leader < 0 }
		if t.Topic != nil && t.ErrorCode == 0 && len(t.Partitions) > 0 && !slices.ContainsFunc(t.Partitions, leaderless) {
			led = append(led, *t.Topic)
		}
	}
	return led
}
