package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/examples/shop"
	"github.com/millrace/millrace/internal/devbroker"
	"github.com/millrace/millrace/service"
)

// shopCommand runs one service of the demo shop; millrace dev --demo runs each as a child process.
func (a *app) shopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "shop SERVICE", Short: "One service of the demo shop, as a child of millrace dev --demo", Hidden: true,
		DisableFlagParsing: true, // the service has flags of its own
		RunE: func(cmd *cobra.Command, args []string) error {
			known := strings.Join(slices.Sorted(maps.Keys(shop.Services)), ", ")
			if len(args) == 0 {
				return usage(fmt.Errorf("name a service: %s", known))
			}
			wire, ok := shop.Services[args[0]]
			if !ok {
				return usage(fmt.Errorf("there is no service %q: there are %s", args[0], known))
			}
			ctx := cmd.Context()
			if a.getenv(service.StatusEnv) != "" {
				var cancel func()
				ctx, cancel = devbroker.WithLifeline(ctx, a.in)
				defer cancel()
			}
			if code := service.Run(ctx, args[0], args[1:], a.getenv, a.err, wire); code != 0 {
				return coded{errSaid, code}
			}
			return nil
		},
	}
}

// errSaid is an error that was logged already.
var errSaid = errors.New("the service ended with an error")
