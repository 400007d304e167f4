// Command millrace is everything a person does with Millrace from a terminal: it runs the development cluster and
// the services, and looks at and changes topics, schemas, events and consumer groups.
//
//	millrace dev                          a whole cluster on this machine, with nothing to install
//	millrace tail shop.orders --from -5m  what happened, decoded, and what happens now
//
// Data goes to stdout and everything else to stderr. The exit code says how it went: 0 done, 1 failed, 2 wrong
// usage, 3 changes are pending, 4 a part failed, 5 refused, 130 interrupted.
//
// This package holds flags, files, environment and texts; what a command does is in the packages it calls.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		<-time.After(250 * time.Millisecond) // timeout(1) and other supervisors send one signal twice
		stop()                               // a second Ctrl-C ends the process at once
	}()
	os.Exit(run(ctx, &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		getenv: os.Getenv, dir: ".", now: time.Now,
	}, os.Args[1:]))
}
