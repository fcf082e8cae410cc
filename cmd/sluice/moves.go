package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
)

// A picking is the flags that pick messages of a queue.
type picking struct {
	where   string
	filters []string
	offsets []int64
	limit   int64
	dry     bool
}

func (p *picking) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.where, "where", "", "only what a `selector` lets pass")
	c.Flags().StringArrayVar(&p.filters, "topic", nil, "only of the topics that a `filter` matches; may be repeated")
	c.Flags().Int64SliceVar(&p.offsets, "offset", nil, "only these `offsets`")
	c.Flags().Int64VarP(&p.limit, "count", "n", 0, "at most so many `messages`, the oldest (default all)")
	c.Flags().BoolVar(&p.dry, "dry-run", false, "only count")
}

func (p *picking) body() map[string]any {
	return map[string]any{"where": p.where, "filters": p.filters, "offsets": p.offsets, "limit": p.limit, "dry_run": p.dry}
}

// siftedState is what the broker says of a selection.
type siftedState struct {
	Messages int64  `json:"messages"`
	Bytes    int64  `json:"bytes"`
	DryRun   bool   `json:"dry_run"`
	Error    string `json:"error,omitempty"`
}

// sift has the broker do something with what is picked, and prints how many
// messages that were. An offset that is named and was not picked is an error,
// with where it may be instead.
func (a *administering) sift(ctx context.Context, c *cobra.Command, h *link.HTTP, path string, p *picking, body map[string]any, elsewhere string) error {
	var got siftedState
	if err := h.Do(ctx, "POST", path, body, &got); err != nil {
		return err
	}
	err := a.show(c.OutOrStdout(), got, func(w io.Writer) {
		fmt.Fprintf(w, "messages\t%d\nbytes\t%d\n", got.Messages, got.Bytes)
		if got.DryRun {
			fmt.Fprintln(w, "nothing was changed")
		}
	})
	if err == nil && got.Error != "" {
		err = fmt.Errorf("ended early: %s", got.Error)
	}
	if named := p.named(); err == nil && got.Messages < int64(named) {
		err = fmt.Errorf("%w: of %d that were named %d are there: %s", core.ErrNotFound, named, got.Messages, elsewhere)
	}
	return err
}

// named is how many messages are picked by their offsets and nothing else.
func (p *picking) named() int {
	if p.where != "" || len(p.filters) > 0 || p.limit > 0 {
		return 0
	}
	offsets := slices.Clone(p.offsets)
	slices.Sort(offsets)
	return len(slices.Compact(offsets))
}

// elsewhereQueued is where a message may be that a queue does not give away.
const elsewhereQueued = "the others are held by a consumer, or settled, or never were in the queue"

func (a *administering) purge() *cobra.Command {
	var p picking
	c := a.outputFlag(a.command(&cobra.Command{
		Use: "purge NAME", Short: "Settle what nobody holds", Args: cobra.ExactArgs(1),
		Example: "  sluice queue purge orders --dry-run\n  sluice queue purge orders --where \"color = 'red'\"",
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
		return a.sift(ctx, c, h, "/v1/queues/"+url.PathEscape(args[0])+"/purge", &p, p.body(), elsewhereQueued)
	}))
	p.flags(c)
	return c
}

// transfer makes the command of what goes from a queue to another place.
func (a *administering) transfer(use, short, verb string, must bool) *cobra.Command {
	var p picking
	var queue, topic, exchange string
	var rate float64
	c := a.outputFlag(a.command(&cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
			body := p.body()
			body["rate"] = rate
			n := 0
			set := func(name, value string) {
				if value != "" {
					body[name] = value
					n++
				}
			}
			set("queue", queue)
			set("topic", topic)
			name, key, _ := strings.Cut(exchange, ":")
			if set("exchange", name); name != "" {
				body["key"] = key
			}
			if n > 1 || n == 0 && must {
				return usageError{fmt.Errorf("say where to: --to-queue, --to-topic or --to-exchange")}
			}
			return a.sift(ctx, c, h, "/v1/queues/"+url.PathEscape(args[0])+verb, &p, body, elsewhereQueued)
		}))
	p.flags(c)
	c.Flags().StringVar(&queue, "to-queue", "", "the `queue` they go to")
	c.Flags().StringVar(&topic, "to-topic", "", "the `topic` they go to")
	c.Flags().StringVar(&exchange, "to-exchange", "", "the `exchange:key` they go to")
	c.Flags().Float64Var(&rate, "rate", 0, "at most so many `messages` a second (default as fast as it goes)")
	return c
}

func (a *administering) rewind() *cobra.Command {
	var dry bool
	c := a.outputFlag(a.command(&cobra.Command{
		Use: "rewind NAME TO", Short: "Deliver again from a place in the log, or skip to it", Args: cobra.ExactArgs(2),
		Long:    "Deliver again from a place in the log, or skip to it: earliest, latest, an offset, the last n (last:100),\na time ago (@2h) or a moment (@2026-11-01T08:00:00Z). A group is named $share/<group>/<filter>.",
		Example: "  sluice queue rewind orders @2h --dry-run\n  sluice queue rewind '$share/billing/shop/orders' last:100",
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
		to := args[1]
		if n, ok := strings.CutPrefix(to, "last:"); ok {
			to = "-" + n
		}
		var got struct {
			From    core.Offset `json:"from"`
			To      core.Offset `json:"to"`
			Again   int64       `json:"again"`
			Skipped int64       `json:"skipped"`
			DryRun  bool        `json:"dry_run"`
		}
		if err := h.Do(ctx, "POST", "/v1/queues/"+url.PathEscape(args[0])+"/rewind", map[string]any{"to": to, "dry_run": dry}, &got); err != nil {
			return err
		}
		return a.show(c.OutOrStdout(), got, func(w io.Writer) {
			fmt.Fprintf(w, "from\t%d\nto\t%d\nagain\t%d\nskipped\t%d\n", got.From, got.To, got.Again, got.Skipped)
			if got.DryRun {
				fmt.Fprintln(w, "nothing was changed")
			}
		})
	}))
	c.Flags().BoolVar(&dry, "dry-run", false, "only count")
	return c
}
