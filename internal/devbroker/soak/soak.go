// Package soak kills an embedded broker again and again while producers write to it, and then counts: what was
// acknowledged and is missing, what is there twice, what is out of order, what is torn, what was aborted and is seen.
//
//	report, err := soak.Run(ctx, soak.Config{Command: broker, Kills: 120, Transactions: true})
//
// It writes to a broker of its own on loopback, and kills only that process.
package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/devbroker"
)

const (
	topic      = "soak"
	partitions = 3
	upWithin   = 30 * time.Second
	starting   = 60 * time.Millisecond // a process, a pass and the load of the data take about that
	drain      = 30 * time.Second      // for what is under way when the load ends
)

// Config says what is killed how often under what load.
type Config struct {
	// Command makes the broker: a process that calls [devbroker.Child] and listens on addr; "" leaves the choice to it.
	// Required.
	Command func(ctx context.Context, addr string) *exec.Cmd
	// Kills is how often the broker is killed. Required.
	Kills int
	// Every is the mean time between a broker's start and its kill. Defaults to 300 ms.
	Every time.Duration
	// Workers is how many producers write. Defaults to 3.
	Workers int
	// Transactions makes the load transactional; one in ten is aborted.
	Transactions bool
	// Seed makes the times of the kills. Defaults to 1.
	Seed uint64
}

// Report is what a run came to.
type Report struct {
	Load  string `json:"load"` // idempotent, transactions
	Seed  uint64 `json:"seed"`
	Kills int    `json:"kills"`

	Starting int `json:"kills_while_starting"` // on top of Kills

	Took    time.Duration `json:"took_ns"`
	Restart time.Duration `json:"slowest_restart_ns"` // from a start to the answer

	Acked     int `json:"acked"`     // records of which the producer was told
	Committed int `json:"committed"` // transactions of which the producer was told
	Aborted   int `json:"aborted"`   // by the producer
	Unknown   int `json:"unknown"`   // records or transactions whose end nobody was told: there or not

	Lost           int `json:"lost"`            // acknowledged and not there
	Duplicated     int `json:"duplicated"`      // there more than once
	Disordered     int `json:"disordered"`      // behind a later one of the same producer and partition
	Torn           int `json:"torn"`            // transactions of which a part is there
	AbortedVisible int `json:"aborted_visible"` // transactions that were aborted and are read
}

// Violations is how much of what the broker promises did not hold.
func (r Report) Violations() int {
	return r.Lost + r.Duplicated + r.Disordered + r.Torn + r.AbortedVisible
}

// Run runs the load and the kills to their end. An error says that the run itself failed; violations are in the report.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if cfg.Every == 0 {
		cfg.Every = 300 * time.Millisecond
	}
	if cfg.Workers == 0 {
		cfg.Workers = 3
	}
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	began := time.Now()
	report := Report{Load: "idempotent", Seed: cfg.Seed, Kills: cfg.Kills}
	work := idempotent
	if cfg.Transactions {
		report.Load, work = "transactions", transactional
	}
	b := &broker{cfg: cfg}
	if err := b.start(ctx); err != nil {
		return report, err
	}
	defer b.kill()
	if err := createTopic(ctx, b.addr); err != nil {
		return report, err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	logs, errs := make([]*journal, cfg.Workers), make([]error, cfg.Workers)
	var wg sync.WaitGroup
	for w := range cfg.Workers {
		logs[w] = &journal{worker: w, txns: make(map[int]outcome)}
		wg.Go(func() { errs[w] = work(loading, b.addr, logs[w]) })
	}
	var err error
	random := rand.New(rand.NewPCG(cfg.Seed, 0)) //nolint:gosec // the times of kills are no secret
	for range cfg.Kills {
		if err = wait(ctx, cfg.Every/4+time.Duration(random.Int64N(int64(cfg.Every*3/2)))); err != nil {
			break
		}
		b.kill()
		if random.IntN(3) == 0 { // and again while it makes its data whole
			if err = b.launch(ctx); err != nil {
				break
			}
			if err = wait(ctx, time.Duration(random.Int64N(int64(starting)))); err != nil {
				break
			}
			b.kill()
			report.Starting++
		}
		if err = b.start(ctx); err != nil {
			break
		}
	}
	if err == nil {
		err = wait(ctx, cfg.Every)
	}
	stop()
	wg.Wait()
	if err := errors.Join(err, errors.Join(errs...)); err != nil {
		return report, err
	}
	seen, err := readAll(ctx, b.addr)
	if err != nil {
		return report, err
	}
	for _, j := range logs {
		j.judge(seen, &report)
	}
	report.Took, report.Restart = time.Since(began), b.slowest
	return report, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// broker is the process that is killed.
type broker struct {
	cfg     Config
	cmd     *exec.Cmd
	hold    io.Closer // its lifeline
	says    *os.File  // its status
	addr    string
	slowest time.Duration
}

// start launches a process and waits until it answers.
func (b *broker) start(ctx context.Context) error {
	began := time.Now()
	if err := b.launch(ctx); err != nil {
		return err
	}
	if err := b.says.SetReadDeadline(time.Now().Add(upWithin)); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	line, err := bufio.NewReader(b.says).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("wait for the broker: %w", err)
	}
	var said struct{ Addr, Error string }
	if err := json.Unmarshal(line, &said); err != nil {
		return fmt.Errorf("read what the broker says: %w", err)
	}
	if said.Addr == "" {
		return fmt.Errorf("the broker did not come up: %s", said.Error)
	}
	b.addr, b.slowest = said.Addr, max(b.slowest, time.Since(began))
	return nil
}

func (b *broker) launch(ctx context.Context) error {
	cmd := b.cfg.Command(ctx, b.addr)
	hold, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return fmt.Errorf("start the broker: %w", err)
	}
	b.cmd, b.hold, b.says = cmd, hold, r
	return nil
}

func (b *broker) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	_ = b.hold.Close()
	_ = b.says.Close()
	b.cmd = nil
}

func createTopic(ctx context.Context, addr string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
		return fmt.Errorf("create the topic: %w", err)
	}
	return nil
}

// readAll reads what a reader of committed records sees, by worker and number, in the order of partitions and offsets.
func readAll(ctx context.Context, addr string) (map[int][]sent, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*drain)
	defer cancel()
	// The last record of each partition is one of ours, written now: ends may be those of transactions.
	for p := range int32(partitions) {
		last := &kgo.Record{Topic: topic, Partition: p, Value: []byte("end")}
		if err := produceOne(ctx, addr, last); err != nil {
			return nil, err
		}
	}
	seen := make(map[int][]sent)
	for ended := 0; ended < partitions; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read what is there, %d of %d partitions: %w", ended, partitions, err)
		}
		var bad error
		fetches.EachRecord(func(r *kgo.Record) {
			if string(r.Value) == "end" {
				ended++
				return
			}
			var s sent
			if _, err := fmt.Sscanf(string(r.Value), format, &s.worker, &s.number, &s.part); err != nil {
				bad = fmt.Errorf("read %q: %w", r.Value, err)
			}
			s.partition = r.Partition
			seen[s.worker] = append(seen[s.worker], s)
		})
		if bad != nil {
			return nil, bad
		}
	}
	return seen, nil
}

func produceOne(ctx context.Context, addr string, r *kgo.Record) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("mark the end: %w", err)
	}
	return nil
}

// StatusFD is where the process of [Config.Command] says that it is up.
const StatusFD = devbroker.StatusFD
