package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluicemq/sluice/core"
)

func newPub() *cobra.Command {
	var to connecting
	var m composing
	var queue string
	var lines bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "pub TOPIC [BODY]",
		Short: "Publish a message",
		Long: `Publishes a message and waits until the broker confirms that it is durable. The
body is the argument, or what is piped in. $exchange/NAME/KEY as TOPIC publishes
to an exchange, and --queue NAME in its place to a queue.

Over ws and http the message's offset is printed.`,
		Example: `  sluice pub hello 'it works'
  sluice pub plant/3/temp 21.5 --retain -H unit:celsius
  tar c . | sluice pub backups/tree --type application/x-tar
  sluice pub --queue orders '{"id": 1}' --via stomp
  journalctl -f | sluice pub logs/host1 --lines`,
		Args: usageArgs(cobra.RangeArgs(0, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			topic := ""
			switch {
			case queue != "":
				topic = core.QueueTopic(queue)
			case len(args) == 0:
				return usageError{errors.New("want a TOPIC, or --queue NAME")}
			default:
				topic, args = args[0], args[1:]
			}
			if len(args) > 1 {
				return usageError{errors.New("want one BODY; in quotes, if it has spaces")}
			}
			if err := core.CheckTopic(topic); err != nil {
				return usageError{err}
			}
			var body []byte
			if !lines {
				var err error
				if body, err = readBody(c, args); err != nil {
					return err
				}
			}
			message, err := m.message(topic, body)
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
			publish := func() error {
				confirming, cancel := withWait(ctx, wait)
				defer cancel()
				offset, err := l.Publish(confirming, message)
				if err != nil {
					return err
				}
				return printOffset(c.OutOrStdout(), offset)
			}
			if !lines {
				return publish()
			}
			in := bufio.NewReaderSize(c.InOrStdin(), 64<<10)
			for {
				line, err := in.ReadBytes('\n')
				if n := len(line); n > 0 && line[n-1] == '\n' {
					line = line[:n-1]
				}
				if len(line) > 0 || err == nil {
					message.Payload = line
					if err := publish(); err != nil {
						return err
					}
				}
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
			}
		},
	}
	f := c.Flags()
	m.flags(f)
	f.BoolVarP(&m.retain, "retain", "r", false, "keep it as the topic's last value")
	f.StringVar(&m.reply, "reply", "", "`topic` for replies")
	f.StringVarP(&queue, "queue", "q", "", "publish to the queue of that `name` instead of a topic")
	f.BoolVarP(&lines, "lines", "l", false, "each line of standard input is a message")
	f.DurationVar(&wait, "wait", 30*time.Second, "how long the confirmation may take")
	to.flags(f, true)
	return c
}

// printOffset tells where a message went, where the protocol told us.
func printOffset(w io.Writer, offset core.Offset) error {
	if offset == 0 {
		return nil
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, err := fmt.Fprintf(w, "offset %d\n", offset)
		return err
	}
	return json.NewEncoder(w).Encode(map[string]core.Offset{"o": offset})
}
