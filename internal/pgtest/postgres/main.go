// Command postgres starts a real PostgreSQL on this machine, without Docker, and keeps it running until Ctrl-C. It is
// what `make postgres` calls.
//
//	go run ./internal/pgtest/postgres                          # empty, and gone afterwards
//	go run ./internal/pgtest/postgres -dir .millrace/postgres  # the same data the next time
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace/millrace/internal/pgtest"
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
		fmt.Fprintln(os.Stderr, "postgres:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("postgres", flag.ContinueOnError)
	flags.SetOutput(progress)
	dir := flags.String("dir", "", "keep the data here from run to run (default: a temporary directory)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: see -help", flags.Arg(0))
	}
	s, err := pgtest.Boot(ctx, pgtest.Config{Fsync: true, Dir: *dir, Progress: progress})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nPostgreSQL %s is serving. Ctrl-C stops it.\n\n  address    %s   pid %d\n  files      %s\n\nIn another terminal:\n\n  psql '%s'\n",
		s.Version, s.Address, s.PID(), s.Dir, s.DSN("postgres"))
	<-ctx.Done()
	fmt.Fprintln(progress, "\nstopping")
	return s.Close()
}
