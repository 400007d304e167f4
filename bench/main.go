// Command bench measures what Millrace's layer costs: its typed publish and consume beside a raw Kafka client that
// moves the same records (key, value bytes, headers, compression) in the same process against the same broker.
//
//	go run ./bench                     # starts an Apache Kafka; MILLRACE_TEST_BROKERS uses another
//	go run ./bench -rounds 7 -out bench/results
//
// Arms take turns, round by round, so that a noisy machine disturbs both of a pair; each round gives a ratio, and the
// median of the ratios is the result. Rates follow the machine; ratios and CPU time per record do not.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/internal/kafkatest"
	"github.com/millrace/millrace/kafka"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	rounds, records, partitions int
	compression, only           string
	out, profile                string
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.IntVar(&o.rounds, "rounds", 5, "rounds; each runs every arm once")
	flags.IntVar(&o.records, "records", 300_000, "records per arm and round")
	flags.IntVar(&o.partitions, "partitions", 6, "partitions of each topic")
	flags.StringVar(&o.compression, "compression", "none", "none, gzip, snappy, lz4 or zstd")
	flags.StringVar(&o.only, "only", "", "only arms whose name contains this")
	flags.StringVar(&o.out, "out", "", "a folder for the result as JSON, named by date")
	flags.StringVar(&o.profile, "cpuprofile", "", "a folder for a CPU profile of each arm")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.rounds < 1 || o.records < 1 || o.partitions < 1 || flags.NArg() > 0 {
		return errors.New("rounds, records and partitions must be positive, and there are no arguments: see -help")
	}
	c, version, stop, err := broker(ctx, progress)
	if err != nil {
		return err
	}
	defer stop()
	r, err := measure(ctx, c, o, progress)
	if err != nil {
		return err
	}
	r.Broker = version
	r.print(out)
	if o.out == "" {
		return nil
	}
	return r.save(o.out, progress)
}

// broker is the cluster to measure against, and how to let go of it.
func broker(ctx context.Context, progress io.Writer) (c kafka.Cluster, version string, stop func(), err error) {
	if brokers := os.Getenv("MILLRACE_TEST_BROKERS"); brokers != "" {
		c = kafka.Cluster{Seeds: strings.Split(brokers, ",")}
		return c, "MILLRACE_TEST_BROKERS", func() {}, c.Ping(ctx)
	}
	r, err := kafkatest.Start(ctx, kafkatest.Config{Progress: progress, JVM: []string{"-Xmx1g"}})
	if err != nil {
		return c, "", nil, err
	}
	return r.Cluster(""), "Apache Kafka " + r.Version, func() { _ = r.Close() }, nil
}

// arm is one way to do a piece of work.
type arm struct {
	name string
	raw  string // the arm it is compared with; empty for one that is compared with
	run  func(ctx context.Context, c kafka.Cluster, topic string, n int, clock *clock) error
}

// clock takes the time and the CPU time of the part of an arm that counts.
type clock struct {
	began    time.Time
	cpu      time.Duration
	took     time.Duration
	took1CPU time.Duration
}

func (k *clock) start() { k.began, k.cpu = time.Now(), cpuTime() }

func (k *clock) stop() { k.took, k.took1CPU = time.Since(k.began), cpuTime()-k.cpu }

// cpuTime is what this process has used, in user and system mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs every arm once in each round, and a round without counting first.
func measure(ctx context.Context, c kafka.Cluster, o options, progress io.Writer) (*result, error) {
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	w, err := newWork(ctx, o.compression)
	if err != nil {
		return nil, err
	}
	source, err := makeTopic(ctx, adm, "bench-source", o.partitions)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "writing %d records to read\n", o.records)
	if err := w.rawPublish(ctx, c, source, o.records, new(clock)); err != nil {
		return nil, fmt.Errorf("write the records to read: %w", err)
	}
	arms := chosen(w.arms(), o.only)
	if slices.ContainsFunc(arms, arm.sinks) {
		fmt.Fprintf(progress, "writing %d rows, and starting PostgreSQL\n", o.records)
		if err := w.prepareSinks(ctx, c, adm, o); err != nil {
			return nil, err
		}
		defer w.closeSinks()
	}
	r := newResult(o)
	r.Database = w.sinks.version
	for round := range o.rounds + 1 {
		for _, a := range arms {
			k, err := turn(ctx, adm, c, a, w.topic(a, source), round, o)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round, a.name, err)
			}
			rate := float64(o.records) / k.took.Seconds()
			fmt.Fprintf(progress, "round %d/%d  %-24s %9.0f/s  %5d ns CPU\n", round, o.rounds, a.name, rate, k.took1CPU.Nanoseconds()/int64(o.records))
			if round > 0 { // the first fills caches and starts the broker's compiler
				r.add(a, rate, float64(k.took1CPU.Nanoseconds())/float64(o.records))
			}
		}
	}
	return r, nil
}

// chosen are the arms whose names contain only, and what they are compared with.
func chosen(arms []arm, only string) []arm {
	wanted := map[string]bool{}
	for _, a := range arms {
		if strings.Contains(a.name, only) {
			wanted[a.name], wanted[a.raw] = true, true
		}
	}
	return slices.DeleteFunc(arms, func(a arm) bool { return !wanted[a.name] })
}

// turn runs an arm once: a publishing one into a topic of its own, a consuming one over source.
func turn(ctx context.Context, adm *kadm.Client, c kafka.Cluster, a arm, source string, round int, o options) (*clock, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	topic := source
	if strings.HasPrefix(a.name, "publish") {
		var err error
		if topic, err = makeTopic(ctx, adm, "bench-"+strings.ReplaceAll(a.name, " ", "-"), o.partitions); err != nil {
			return nil, err
		}
		defer func() { _, _ = adm.DeleteTopics(context.WithoutCancel(ctx), topic) }()
	}
	runtime.GC() // the garbage of the arm before is not this one's
	if o.profile != "" && round > 0 {
		f, err := os.Create(filepath.Join(o.profile, fmt.Sprintf("%s-%d.pprof", strings.ReplaceAll(a.name, " ", "-"), round)))
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	k := new(clock)
	err := a.run(ctx, c, topic, o.records, k)
	return k, err
}

// makeTopic creates a topic with a name of its own.
func makeTopic(ctx context.Context, adm *kadm.Client, name string, partitions int) (string, error) {
	name = fmt.Sprintf("%s-%d", name, time.Now().UnixNano())
	if _, err := adm.CreateTopic(ctx, int32(partitions), 1, nil, name); err != nil {
		return "", fmt.Errorf("create topic %s: %w", name, err)
	}
	return name, nil
}

// result is what a run found.
type result struct {
	Date        time.Time `json:"date"`
	Broker      string    `json:"broker"`
	Database    string    `json:"database,omitempty"`
	Go          string    `json:"go"`
	CPUs        int       `json:"cpus"`
	Rounds      int       `json:"rounds"`
	Records     int       `json:"records"`
	Partitions  int       `json:"partitions"`
	Compression string    `json:"compression"`
	Arms        []*series `json:"arms"`
}

// series is what an arm did, round by round.
type series struct {
	Name   string    `json:"name"`
	Raw    string    `json:"raw,omitempty"`
	Rates  []float64 `json:"records_per_second"`
	CPU    []float64 `json:"cpu_ns_per_record"`
	Ratios []float64 `json:"ratios,omitempty"` // to the raw arm of the same round
	// Medians.
	Rate    float64 `json:"median_records_per_second"`
	CPUNano float64 `json:"median_cpu_ns_per_record"`
	Ratio   float64 `json:"median_ratio,omitempty"`
}

func newResult(o options) *result {
	return &result{
		Date: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(),
		Rounds: o.rounds, Records: o.records, Partitions: o.partitions, Compression: o.compression,
	}
}

func (r *result) series(name string) *series {
	i := slices.IndexFunc(r.Arms, func(s *series) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return r.Arms[i]
}

// add takes an arm's turn. Its raw arm had its turn in the same round before it.
func (r *result) add(a arm, rate, cpu float64) {
	s := r.series(a.name)
	if s == nil {
		s = &series{Name: a.name, Raw: a.raw}
		r.Arms = append(r.Arms, s)
	}
	s.Rates, s.CPU = append(s.Rates, rate), append(s.CPU, cpu)
	s.Rate, s.CPUNano = median(s.Rates), median(s.CPU)
	if raw := r.series(a.raw); raw != nil {
		s.Ratios = append(s.Ratios, rate/raw.Rates[len(s.Rates)-1])
		s.Ratio = median(s.Ratios)
	}
}

// median of at least one number.
func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	if n := len(x); n%2 == 0 {
		return (x[n/2-1] + x[n/2]) / 2
	}
	return x[len(x)/2]
}

func (r *result) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s, %s, %d CPUs; %d rounds of %d records, %d partitions, compression %s; medians\n\n", r.Broker, r.Go, r.CPUs, r.Rounds, r.Records, r.Partitions, r.Compression)
	fmt.Fprintf(out, "%-26s %12s %14s   %s\n", "arm", "records/s", "ns CPU/record", "ratio to raw")
	for _, s := range r.Arms {
		ratio := ""
		if s.Raw != "" {
			ratio = fmt.Sprintf("%.2f (%.2f to %.2f)", s.Ratio, slices.Min(s.Ratios), slices.Max(s.Ratios))
		}
		fmt.Fprintf(out, "%-26s %12.0f %14.0f   %s\n", s.Name, s.Rate, s.CPUNano, ratio)
	}
}

func (r *result) save(dir string, progress io.Writer) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, r.Date.Format("2006-01-02T150405Z")+".json")
	if err := os.WriteFile(name, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("save the result: %w", err)
	}
	fmt.Fprintln(progress, "saved", name)
	return nil
}
