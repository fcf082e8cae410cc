package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
)

// topicState is what the log holds of a topic.
type topicState struct {
	Topic    string      `json:"topic"`
	Messages int64       `json:"messages"`
	Bytes    int64       `json:"bytes"`
	Last     core.Offset `json:"last"`
}

func newTopic() *cobra.Command {
	var a administering
	var messages printing
	c := &cobra.Command{Use: "topic", Short: "List topics, and read what they hold", Args: cobra.ArbitraryArgs, RunE: needsSubcommand}

	list := a.outputFlag(a.command(&cobra.Command{
		Use: "list [FILTER]", Short: "List the topics that the log holds messages of", Args: cobra.MaximumNArgs(1),
		Example: "  sluice topic list\n  sluice topic list 'plant/#'",
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
		query := url.Values{}
		if len(args) == 1 {
			if _, err := core.ParseFilter(args[0]); err != nil {
				return usageError{err}
			}
			query.Set("filter", args[0])
		}
		topics, err := pages[topicState](ctx, h, "/v1/topics", query)
		if err != nil {
			return err
		}
		return a.show(c.OutOrStdout(), topics, func(w io.Writer) {
			fmt.Fprintln(w, "TOPIC\tMESSAGES\tBYTES\tLAST")
			for _, t := range topics {
				fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", printable(t.Topic), t.Messages, t.Bytes, t.Last)
			}
		})
	}))

	var from string
	var limit int
	read := a.command(&cobra.Command{
		Use: "read FILTER", Short: "Print what the log holds, and end", Args: cobra.ExactArgs(1),
		Example: "  sluice topic read plant/+/temp -n 5\n  sluice topic read '#' --from earliest",
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
		if _, err := core.ParseFilter(args[0]); err != nil {
			return usageError{err}
		}
		query := url.Values{"limit": {strconv.Itoa(limit)}}
		if from != "" {
			query.Set("from", from)
		}
		return a.printPage(ctx, c, h, "/t/"+link.EscapeTopic(args[0])+"?"+query.Encode(), &messages)
	})
	messages.flags(read.Flags())
	read.Flags().StringVar(&from, "from", "", "`where` to begin (default: the last ones)")
	read.Flags().IntVarP(&limit, "count", "n", 20, "at most so many `messages`")

	retained := a.command(&cobra.Command{Use: "retained FILTER", Short: "Print the retained values of topics", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
			if _, err := core.ParseFilter(args[0]); err != nil {
				return usageError{err}
			}
			return a.printPage(ctx, c, h, "/last/"+link.EscapeTopic(args[0])+"?format=ndjson", &messages)
		})
	messages.flags(retained.Flags())
	forget := a.command(&cobra.Command{Use: "clear TOPIC", Short: "Remove a topic's retained value", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
			if err := core.CheckTopic(args[0]); err != nil {
				return usageError{err}
			}
			return h.Do(ctx, "DELETE", "/last/"+link.EscapeTopic(args[0]), nil, nil)
		})
	c.AddCommand(list, read, retained, forget)
	return c
}
