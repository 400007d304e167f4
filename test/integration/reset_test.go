package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consumer"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/service"
)

// A group at work is moved: its services leave in order, the offsets are set, and they come back and begin there. With both
// protocols, and with members that have a name of their own, which the coordinator keeps for longer.
func TestRealCoordinatedReset(t *testing.T) {
	t.Parallel()
	s := newShell(t, kafkatest.Plain(t))
	for _, tt := range []struct {
		name string
		cfg  consumer.Config
	}{
		{"classic", consumer.Config{}},
		{"of the new protocol", consumer.Config{ServerAssign: true}},
		{"static", consumer.Config{InstanceID: "worker", SessionTimeout: 6 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newStand(t, s).reset(tt.cfg)
		})
	}
}

func (st *stand) reset(cfg consumer.Config) {
	st.offsets(0, "apply "+st.group+" --at start --yes")
	var (
		mu   sync.Mutex
		seen = map[string]int{}
		said bytes.Buffer
		wg   sync.WaitGroup
	)
	ctx, stop := context.WithCancel(context.WithoutCancel(st.Context()))
	defer func() {
		stop()
		wg.Wait()
		if st.Failed() {
			st.Log(said.String())
		}
	}()
	log := logged(func(b []byte) { mu.Lock(); defer mu.Unlock(); said.Write(b) })
	env := map[string]string{"MILLRACE_BROKERS": strings.Join(st.sh.cluster.Seeds, ","), "MILLRACE_REGISTRY": "http://127.0.0.1:1"}
	for i := range 2 {
		wg.Go(func() {
			code := service.Run(ctx, st.group, []string{"--client-id", fmt.Sprint("worker", i)}, func(k string) string { return env[k] }, log,
				func(_ context.Context, svc *service.Service) error {
					mux := consumer.NewMux()
					mux.Otherwise(func(_ context.Context, e event.Event) error {
						mu.Lock()
						defer mu.Unlock()
						seen[fmt.Sprintf("%d/%d", e.Partition, e.Offset)]++
						return nil
					})
					own := cfg
					own.Topics = []string{st.topic}
					if own.InstanceID != "" {
						own.InstanceID += fmt.Sprint(i)
					}
					svc.Consume(mux, own)
					return nil
				})
			if code != 0 {
				st.Errorf("worker %d exits %d", i, code)
			}
		})
	}
	atWork := func(records, times int) func(groups.Group) bool {
		return func(g groups.Group) bool {
			mu.Lock()
			defer mu.Unlock()
			n := 0
			for _, so := range seen {
				if so >= times {
					n++
				}
			}
			return n >= records && g.State == "Stable" && len(g.Members) == 2 && g.Total().Lag == 0
		}
	}
	st.await("at work", atWork(110, 1))
	apply := "apply " + st.group + " --at start --coordinated --yes"
	out, errs := st.offsets(0, apply) // the topic that services listen to may be new: they find it within half a minute
	st.says(out, "-100", "-10")
	st.says(errs, "stands still", "goes on", "2 partitions of "+st.group+" changed")
	st.await("back at work, and through all again", atWork(110, 2))

	before := st.commits()
	stranger := kafkatest.Client(st.T, st.sh.cluster, kgo.ConsumerGroup(st.group), kgo.ConsumeTopics(st.topic), kgo.DisableAutoCommit(), kgo.ClientID("stranger"))
	if cfg.ServerAssign {
		stranger.Close()
		stranger = kafkatest.Client(st.T, st.sh.cluster, kgo.ConsumerGroup(st.group), kgo.ConsumeTopics(st.topic), kgo.DisableAutoCommit(), kgo.ClientID("stranger"), kgo.ServerSideBalancer())
	}
	three := func(g groups.Group) bool { return g.State == "Stable" && len(g.Members) == 3 }
	st.await("joined by a stranger", three)
	_, errs = st.offsets(5, apply+" --wait 10s")
	st.says(errs, "did not leave within 10s: ", "stranger at ", "the pause was taken back")
	st.await("whole again", three)
	if after := st.commits(); !slices.EqualFunc(before, after, func(a, b kadm.Offset) bool { return a.At == b.At }) {
		st.Errorf("before %+v, after %+v", before, after)
	}
	stranger.Close()
}

// await looks at the group until ok.
func (st *stand) await(what string, ok func(groups.Group) bool) {
	st.Helper()
	ctx, cancel := context.WithTimeout(st.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		gs, err := groups.Describe(ctx, st.sh.cluster, st.group)
		if err == nil && ok(gs[0]) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			st.Fatalf("the group never was %s: %+v, %v", what, gs, err)
		}
	}
}

// logged is a function that is written to.
type logged func([]byte)

func (w logged) Write(b []byte) (int, error) { w(b); return len(b), nil }
