// Command kafka starts a real Apache Kafka on this machine, without Docker, and keeps it running until Ctrl-C. It is
// what `make kafka` calls.
//
//	go run ./internal/kafkatest/kafka                        # one broker that lets anyone do anything
//	go run ./internal/kafkatest/kafka -secured               # three, with TLS, SCRAM users and ACLs
//	go run ./internal/kafkatest/kafka -dir .millrace/kafka   # the same data, ports and users the next time
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/millrace/millrace/internal/kafkatest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\nstopped before it served")
	case err != nil:
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("kafka", flag.ContinueOnError)
	flags.SetOutput(progress)
	secured := flags.Bool("secured", false, "three brokers with TLS, SCRAM users and an authorizer, instead of one that lets anyone do anything")
	version := flags.String("version", kafkatest.Version, "of Apache Kafka")
	dir := flags.String("dir", "", "keep data, ports and users here from run to run (default: a temporary directory)")
	users := flags.String("users", "orders,shipping,nobody", "users of a secured cluster beside "+kafkatest.AdminUser)
	heap := flags.String("heap", "512m", "memory of each broker's heap")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: see -help", flags.Arg(0))
	}
	cfg := kafkatest.Config{
		Version: *version, Secured: *secured, Dir: *dir, Progress: progress,
		JVM: []string{"-Xmx" + *heap, "-XX:+UseSerialGC"},
	}
	if *secured {
		cfg.Users = strings.FieldsFunc(*users, func(r rune) bool { return r == ',' })
	}
	r, err := kafkatest.Start(ctx, cfg)
	if err != nil {
		return err
	}
	describe(out, r, *secured, cfg.Users)
	err = watch(ctx, r, progress)
	fmt.Fprintln(progress, "\nstopping")
	return errors.Join(err, r.Close())
}

// watch returns when ctx ends. Until then it tells of each broker that ends; without the last there is no cluster left,
// and that is an error.
func watch(ctx context.Context, r *kafkatest.Running, progress io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type ended struct {
		kafkatest.End
		node *kafkatest.Node
	}
	ends := make(chan ended)
	for _, n := range r.Nodes() {
		go func() {
			e, err := n.Wait(ctx)
			if err != nil {
				e.Words = []string{err.Error()}
			}
			select {
			case ends <- ended{e, n}:
			case <-ctx.Done():
			}
		}()
	}
	for left := len(r.Nodes()); left > 0; {
		select {
		case <-ctx.Done():
			return nil
		case e := <-ends:
			if ctx.Err() != nil { // Ctrl-C reaches the brokers too
				return nil
			}
			left--
			fmt.Fprintf(progress, "\nbroker %d (pid %d) ended with %s, %d of %d are left; the end of %s:\n", e.node.ID, e.PID, e.State, left, len(r.Nodes()), e.Log)
			for _, line := range e.Words {
				fmt.Fprintln(progress, "  "+line)
			}
		}
	}
	return errors.New("no broker is left")
}

// describe says what runs where, and what to type next.
func describe(out io.Writer, r *kafkatest.Running, secured bool, users []string) {
	seeds := strings.Join(r.Cluster(kafkatest.AdminUser).Seeds, ",")
	fmt.Fprintf(out, "\nApache Kafka %s is serving. Ctrl-C stops it.\n\n", r.Version)
	for _, n := range r.Nodes() {
		fmt.Fprintf(out, "  broker %d   %-18s pid %d\n", n.ID, n.Address, n.PID())
	}
	fmt.Fprintf(out, "  files      %s\n  logs       %s\n", r.Dir, filepath.Join(r.Dir, "logs"))
	if !secured {
		fmt.Fprintf(out, "\nFor Millrace and its tests, in another terminal:\n\n  export PATH=$PWD/bin:$PATH\n  export MILLRACE_BROKERS=%s\n  export MILLRACE_TEST_BROKERS=%s\n  millrace topics ls\n", seeds, seeds)
		return
	}
	fmt.Fprintf(out, "  CA         %s\n  for tools  %s (--command-config)\n", r.CA(), r.ClientProperties())
	fmt.Fprintf(out, "\nUsers (SCRAM-SHA-512). %s may do everything, the others nothing until they are granted it:\n\n", kafkatest.AdminUser)
	for _, user := range append([]string{kafkatest.AdminUser}, users...) {
		fmt.Fprintf(out, "  %-10s %s\n", user, r.Password(user))
	}
	fmt.Fprintf(out, `
For Millrace, in another terminal:

  export PATH=$PWD/bin:$PATH
  export MILLRACE_BROKERS=%s
  export MILLRACE_TLS_CA=%s
  export MILLRACE_SASL_USER=%s MILLRACE_SASL_PASSWORD=%s
  millrace topics ls
`, seeds, r.CA(), kafkatest.AdminUser, r.Password(kafkatest.AdminUser))
}
