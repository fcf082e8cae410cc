package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/core"
)

func newRequest() *cobra.Command {
	var to connecting
	var m composing
	var show printing
	var wait time.Duration
	c := &cobra.Command{
		Use:   "request TOPIC [BODY]",
		Short: "Publish a message and print the reply",
		Long: `Publishes a message whose reply-to is an inbox of its own, and prints the first
reply that comes there. The code is 7 if none comes in time.`,
		Example: `  sluice request math/square 12 --wait 2s -f %p`,
		Args:    usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := core.CheckTopic(args[0]); err != nil {
				return usageError{err}
			}
			body, err := readBody(c, args[1:])
			if err != nil {
				return err
			}
			message, err := m.message(args[0], body)
			if err != nil {
				return err
			}
			print, err := show.printer(c.OutOrStdout())
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			l, err := to.dial(ctx)
			if err != nil {
				return err
			}
			defer l.Close()
			waiting, cancel := withWait(ctx, wait)
			defer cancel()
			reply, err := l.Request(waiting, message)
			if errors.Is(err, context.DeadlineExceeded) {
				return lateError(fmt.Sprintf("no reply came within %v", wait))
			}
			if err != nil {
				return err
			}
			return print(reply)
		},
	}
	f := c.Flags()
	m.flags(f)
	f.DurationVarP(&wait, "wait", "w", 5*time.Second, "how long a reply may take")
	show.flags(f)
	to.flags(f, true)
	return c
}
