package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/reader"
	"github.com/millrace/millrace/service"
)

const (
	shopGrace   = 2 * time.Second // a service's way out, before it is killed
	lookEvery   = time.Second
	lookTimeout = 4 * time.Second
	storefront  = "storefront" // the only service that consumes nothing

	paymentProvider = "provider"
)

// shopFloor is the demo: each service of examples/shop as a child process, watched from outside as an operator would,
// by the positions of its group and by the dead letters.
type shopFloor struct {
	*dev
	client   *kgo.Client
	admin    *kadm.Client
	provider []string                   // variables of the payment provider's process: whom it calls, and its secret
	dead     map[string]map[int32]int64 // end offsets of the dead-letter topics at the last look; nil before the first
	next     int                        // whose turn it is to be killed
	poured   int                        // how many poisons were published
}

// startShop declares the shop's topics and schemas and starts its services.
func (d *dev) startShop(ctx context.Context) error {
	specs, err := d.declare(ctx, shop.Files)
	if err != nil {
		return fmt.Errorf("declare the demo shop: %w", err)
	}
	d.board.declared(specs)
	provider, err := d.takePayments(ctx)
	if err != nil {
		return err
	}
	client, err := d.cluster.Client()
	if err != nil {
		return err
	}
	s := &shopFloor{dev: d, client: client, admin: kadm.NewClient(client), provider: provider}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(shop.Services)), func(name string) bool { return name == storefront })
	names = slices.Insert(names, 0, storefront) // the one that feeds the others
	d.board.serve(names)
	d.stage(ctx, "shop watch", func(ctx context.Context) error {
		defer client.Close()
		return s.watch(ctx)
	})
	d.stage(ctx, "shop", func(ctx context.Context) error {
		var wg sync.WaitGroup
		for _, name := range names {
			wg.Go(func() { s.keep(ctx, name) })
		}
		wg.Wait()
		return nil
	})
	d.shop = s
	return nil
}

// takePayments starts the gateway for the payment provider, with a secret that is new at each start, and returns what the
// provider's process must know.
func (d *dev) takePayments(ctx context.Context) ([]string, error) {
	secret := "whsec_" + rand.Text()
	dir := filepath.Join(d.dir, "shop-sources")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("unpack the shop's sources: %w", err)
	}
	found, err := fs.Glob(shop.Files, "sources/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range found {
		text, err := shop.Files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, path.Base(name)), text, 0o600); err != nil {
			return nil, fmt.Errorf("unpack the shop's sources: %w", err)
		}
	}
	url, err := d.startGateway(ctx, dir, func(name string) string {
		if name == shop.SecretEnv {
			return secret
		}
		return ""
	})
	return []string{shop.CallbackURLEnv + "=" + url + "/in/payments", shop.SecretEnv + "=" + secret}, err
}

// keep runs one service until ctx ends, and tells the board.
func (s *shopFloor) keep(ctx context.Context, name string) {
	file, err := s.openLog(name)
	if err != nil {
		s.board.note("%s does not run: %v", name, err)
		return
	}
	defer file.Close() //nolint:errcheck // a log that is not flushed has nobody to tell
	metrics := ""      // where the service says that it serves them
	p := devbroker.Process{
		Name:    name,
		Command: func(ctx context.Context) *exec.Cmd { return s.command(ctx, name) },
		Output:  file,
		Grace:   shopGrace,
		Started: func(pid int) {
			s.board.row(name, func(r *row) { r.pid, r.state, r.status = pid, "starting", service.Status{} })
		},
		Status: func(line []byte) {
			var st service.Status
			if json.Unmarshal(line, &st) == nil {
				if st.Metrics != "" && st.Metrics != metrics {
					metrics = st.Metrics
					s.log.Info("metrics", zap.String("name", name), zap.String("url", metrics))
				}
				s.board.row(name, func(r *row) { r.status, r.state = st, st.State })
			}
		},
		Ended: func(e devbroker.Exit) error {
			s.log.Warn("service ended", zap.String("name", name), zap.Int("pid", e.PID), zap.String("state", e.State))
			words := file.LastWords()
			s.board.row(name, func(r *row) {
				r.pid, r.state = 0, "restarting"
				r.restarts++
				if !r.killed {
					s.board.noteLocked("%s (pid %d) ended with %s and is started again: %s (%s)", name, e.PID, e.State, words, file.Name())
				}
			})
			return nil
		},
	}
	if err := p.Run(ctx); err != nil {
		s.board.row(name, func(r *row) { r.pid, r.state = 0, "stopped" })
		s.board.note("%v (%s)", err, file.Name())
	}
}

// command is a service's process. Settings of the user's own shell stay out: they are about other clusters.
func (s *shopFloor) command(ctx context.Context, name string) *exec.Cmd {
	cmd := s.child(ctx, "32MiB", "shop", name)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool {
		return strings.HasPrefix(v, "MILLRACE_") && !strings.HasPrefix(v, service.StatusEnv+"=")
	})
	cmd.Env = append(cmd.Env, service.Env("brokers")+"="+s.addrs.Broker, service.Env("registry")+"="+s.addrs.Registry, service.Env("create-topics")+"=true",
		service.Env("metrics")+"=127.0.0.1:0") // a free port, which its status names
	if name == "analytics" && s.getenv(shop.AnalyticsEnv) == "" { // a DSN of PostgreSQL is the user's choice
		cmd.Env = append(cmd.Env, shop.AnalyticsEnv+"="+filepath.Join(s.dir, "analytics.db"))
	}
	if name == paymentProvider {
		cmd.Env = append(cmd.Env, s.provider...)
	}
	return cmd
}

// watch looks at groups and dead letters once a second.
func (s *shopFloor) watch(ctx context.Context) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("look at the shop", zap.Error(err)) // a broker that restarts, most likely
		}
	}
}

func (s *shopFloor) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return errors.Join(s.lookAtGroups(ctx), s.lookAtDead(ctx))
}

// lookAtGroups brings the positions of the groups to the board.
func (s *shopFloor) lookAtGroups(ctx context.Context) error {
	all, err := groups.List(ctx, s.cluster)
	if err != nil {
		return err
	}
	var ids []string
	for _, g := range all {
		if _, ours := shop.Services[g.ID]; ours {
			ids = append(ids, g.ID)
		}
	}
	described, err := groups.Describe(ctx, s.cluster, ids...)
	if err != nil {
		return err
	}
	for _, g := range described {
		var done, end int64
		for _, p := range g.Partitions {
			if p.Gone {
				continue
			}
			end += p.End
			if p.Commit != nil {
				done += p.Commit.Offset
			}
		}
		s.board.row(g.ID, func(r *row) { s.board.positionLocked(r, done, end) })
	}
	return nil
}

// lookAtDead shows dead letters that came since the last look.
func (s *shopFloor) lookAtDead(ctx context.Context) error {
	all, err := s.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(all.Names(), func(t string) bool {
		return !strings.HasPrefix(t, "shop.") || !strings.HasSuffix(t, ".dlq")
	})
	now := map[string]map[int32]int64{}
	if len(names) > 0 {
		ends, err := s.admin.ListEndOffsets(ctx, names...)
		if err != nil {
			return err
		}
		ends.Each(func(o kadm.ListedOffset) {
			if o.Err != nil {
				return
			}
			if now[o.Topic] == nil {
				now[o.Topic] = map[int32]int64{}
			}
			now[o.Topic][o.Partition] = o.Offset
		})
	}
	var places []reader.Place
	total := int64(0)
	for topic, partitions := range now {
		for p, end := range partitions {
			total += end
			if s.dead != nil && end > s.dead[topic][p] {
				places = append(places, reader.Place{Topic: topic, Partition: p, Offset: end - 1})
			}
		}
	}
	s.dead = now
	s.board.deadLetters(total)
	letters, err := reader.Peek(ctx, s.cluster, places...)
	if err != nil {
		return err
	}
	for place, e := range letters {
		s.board.note("dead letter in %s: %s", place.Topic, aboutDead(e))
	}
	return nil
}

// aboutDead says in a line why an event is in the dead letters.
func aboutDead(e event.Event) string {
	header := func(name string) string {
		return printable(string(e.Headers.Get(name)))
	}
	return fmt.Sprintf("%s, from %s partition %s offset %s: %s", header(event.HeaderErrorClass), header(event.HeaderOriginTopic),
		header(event.HeaderOriginPartition), header(event.HeaderOriginOffset), header(event.HeaderError))
}

// kill ends the next consumer as a power failure would: nothing is flushed, nothing is committed.
func (s *shopFloor) kill() {
	for range len(shop.Services) {
		victim := s.board.victim(s.next)
		s.next++
		if victim.pid == 0 {
			continue
		}
		p, err := os.FindProcess(victim.pid)
		if err == nil {
			s.board.row(victim.name, func(r *row) { r.killed, r.owes = true, owesNow })
			err = p.Kill()
		}
		if err != nil {
			s.board.note("kill %s: %v", victim.name, err)
			return
		}
		s.board.note("killed %s (pid %d, SIGKILL): it starts again, and goes on from its group's position once the dead member's session has run out", victim.name, victim.pid)
		return
	}
	s.board.note("no consumer is running that could be killed")
}

// poison publishes what looks like an order and does not decode: the frame names the schema, the bytes are none of it.
func (s *shopFloor) poison(ctx context.Context) {
	s.poured++
	key := fmt.Appendf(nil, "poison-%d", s.poured)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		schema, err := s.schemas.Latest(ctx, shop.Orders+"-value")
		if err != nil {
			s.board.note("publish poison: %v", err)
			return
		}
		value := binary.BigEndian.AppendUint32([]byte{0}, uint32(schema.ID))
		r := &kgo.Record{Topic: shop.Orders, Key: key, Value: append(value, "\xff\xff\xff\xff this is no order"...)}
		if err := s.client.ProduceSync(ctx, r).FirstErr(); err != nil {
			s.board.note("publish poison: %v", err)
			return
		}
		s.board.note("poison published: %s partition %d offset %d does not decode; each group sends it to its dead letters and goes on", r.Topic, r.Partition, r.Offset)
	}()
}
