package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
)

// delayedState is a delayed message as the broker describes it.
type delayedState struct {
	Offset    core.Offset     `json:"offset"`
	Topic     string          `json:"topic"`
	Due       int64           `json:"due"`
	Time      int64           `json:"time"`
	Bytes     int             `json:"bytes"`
	Type      string          `json:"type,omitempty"`
	Key       string          `json:"key,omitempty"`
	ID        string          `json:"id,omitempty"`
	Publisher json.RawMessage `json:"publisher,omitempty"`
	Again     *againState     `json:"again,omitempty"`
	Message   json.RawMessage `json:"message,omitempty"`
}

type againState struct {
	Cron   string `json:"cron,omitempty"`
	Delay  string `json:"delay,omitempty"`
	Period string `json:"period,omitempty"`
	Repeat int    `json:"repeat"`
	Left   int    `json:"left"`
}

// String says how a message comes again, for people.
func (a *againState) String() string {
	if a == nil {
		return ""
	}
	var parts []string
	if a.Cron != "" {
		parts = append(parts, "cron "+a.Cron)
	}
	switch {
	case a.Repeat == core.Unlimited:
		parts = append(parts, "every "+a.Period)
	case a.Repeat > 0:
		parts = append(parts, fmt.Sprintf("%d more, every %s", a.Left, a.Period))
	}
	return strings.Join(parts, ", ")
}

// due is a moment in ms since 1970, for people.
func due(ms int64) string { return time.UnixMilli(ms).Format(time.RFC3339) }

func newDelayed() *cobra.Command {
	var a administering
	c := &cobra.Command{Use: "delayed", Short: "List, show and cancel messages that wait for their time", Args: cobra.ArbitraryArgs, RunE: needsSubcommand}

	var filter, where string
	list := a.outputFlag(a.command(&cobra.Command{
		Use: "list", Short: "List what waits for its time, what is due first first", Args: cobra.NoArgs,
		Example: "  sluice delayed list\n  sluice delayed list --topic 'shop/#'\n  sluice delayed list --topic '$queue/orders' --where 'priority > 5'",
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, _ []string) error {
		query := url.Values{}
		for name, value := range map[string]string{"filter": filter, "where": where} {
			if value != "" {
				query.Set(name, value)
			}
		}
		all, err := pages[delayedState](ctx, h, "/v1/delayed", query)
		if err != nil {
			return err
		}
		return a.show(c.OutOrStdout(), all, func(w io.Writer) {
			fmt.Fprintln(w, "OFFSET\tDUE\tTOPIC\tBYTES\tAGAIN")
			for _, m := range all {
				fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\n", m.Offset, due(m.Due), m.Topic, m.Bytes, m.Again)
			}
		})
	}))
	list.Flags().StringVar(&filter, "topic", "", "only of the topics that a `filter` matches; $queue/NAME is a queue")
	list.Flags().StringVar(&where, "where", "", "only what a `selector` lets pass")

	show := a.outputFlag(a.command(&cobra.Command{Use: "show OFFSET", Short: "Describe one, with its payload", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
			at, err := parseOffset(args[0])
			if err != nil {
				return err
			}
			var m delayedState
			if err := h.Do(ctx, "GET", fmt.Sprintf("/v1/delayed/%d", at), nil, &m); err != nil {
				return err
			}
			return a.show(c.OutOrStdout(), m, func(w io.Writer) {
				fmt.Fprintf(w, "offset\t%d\ndue\t%s\npublished\t%s\ntopic\t%s\nagain\t%s\nmessage\t%s\n", m.Offset, due(m.Due), due(m.Time), m.Topic, m.Again, m.Message)
			})
		}))

	var p picking
	cancel := a.outputFlag(a.command(&cobra.Command{
		Use: "cancel [OFFSET…]", Short: "Take delayed messages out: they are never published, and do not come again", Args: cobra.ArbitraryArgs,
		Long:    "Take delayed messages out: they are never published, and do not come again. Say which: by their offsets, by\n--topic or --where, or --all.",
		Example: "  sluice delayed cancel 1042\n  sluice delayed cancel --topic 'shop/#' --dry-run",
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
		all, err := c.Flags().GetBool("all")
		if err != nil {
			return err
		}
		for _, arg := range args {
			at, err := parseOffset(arg)
			if err != nil {
				return err
			}
			p.offsets = append(p.offsets, at)
		}
		if len(p.offsets) == 0 && len(p.filters) == 0 && p.where == "" && !all {
			return usageError{fmt.Errorf("say which: offsets, --topic, --where or --all")}
		}
		return a.sift(ctx, c, h, "/v1/delayed/cancel", &p, p.body(), "the others have been published, or cancelled, or come again under another offset")
	}))
	p.flags(cancel)
	cancel.Flags().Lookup("count").Usage = "at most so many `messages`, those that are due first (default all)"
	cancel.Flags().Bool("all", false, "all that there are")

	c.AddCommand(list, show, cancel)
	return c
}

func parseOffset(s string) (int64, error) {
	at, err := strconv.ParseInt(s, 10, 64)
	if err != nil || at <= 0 {
		return 0, usageError{fmt.Errorf("%q is not an offset", s)}
	}
	return at, nil
}
