package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// errNothing is the exit code 1 of find --must-match.
var errNothing = coded{errors.New("nothing matches"), codeFailed}

func (a *app) findCommand() *cobra.Command {
	f := readFlags{bounded: true}
	mustMatch := false
	cmd := &cobra.Command{
		Use: "find [TOPIC…]", Short: "Search topics for events, by what they hold",
		Long: `Search topics for events, by what they hold: what was there when the search began, merged by time.

The search is over everything that the topics hold, unless --from, --until, --offset or --partition say less. It ends with a
statement of what was looked at. A value is decoded only where an expression asks for it, and to be shown. --save keeps the
matches as a set: lines that hold each event byte for byte.

Exits 0 whether or not something matches; with --must-match, 1 when nothing does.

--from and --until take  start, end, now, -15m, 2026-11-22T09:00Z, "yesterday 09:00", offset:123, p0=123,p1=456.
` + expressionHelp(),
		Example: `  millrace find shop.orders --key o-17
  millrace find --topics 'shop[.]' --from -1h --where 'value.order_id=="o-17"'
  millrace find --topics shop --from -7d --count-by 'topic+" "+type'
  millrace find shop.orders --from -1d --where 'value.cents<0' --before 2 --after 2 --context-by key
  millrace find --topics shop --key o-17 --save o-17.jsonl --must-match`,
		ValidArgsFunction: a.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			matched, err := a.read(cmd.Context(), args, f)
			if err == nil && mustMatch && matched == 0 {
				return errNothing
			}
			return err
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&mustMatch, "must-match", false, "exit 1 when nothing matches")
	return cmd
}
