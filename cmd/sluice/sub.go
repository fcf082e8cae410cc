package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
)

// subCredit is how many messages of a queue may be under way to us.
const subCredit = 32

func newSub() *cobra.Command {
	var to connecting
	var show printing
	var s link.Subscription
	var qos, count int
	var wait time.Duration
	var quiet bool
	c := &cobra.Command{
		Use:   "sub FILTER…",
		Short: "Print what comes",
		Long: `Prints the messages of topics, or those of a queue, which it acknowledges one by
one once they are printed, until it is interrupted. + in a filter is one level,
a final # the rest.`,
		Example: `  sluice sub 'plant/+/temp' 'alarms/#'
  sluice sub '#' --from -100 -n 100
  sluice sub logs/# --from @2h --via stomp -f '%d %t %p'
  sluice sub --queue orders
  sluice sub jobs/# --group workers`,
		Args: usageArgs(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, args []string) error {
			s.Filters = args
			if err := checkSubscription(&s); err != nil {
				return err
			}
			guarantee, err := guaranteeOf(qos)
			if err != nil {
				return err
			}
			s.Guarantee, s.Credit = guarantee, subCredit
			if count < 0 {
				return usageError{fmt.Errorf("-n %d: want a number of messages; left out is no end", count)}
			}
			if count > 0 {
				s.Credit = min(s.Credit, count)
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
			s.Ready = func() {
				if !quiet {
					fmt.Fprintln(c.ErrOrStderr(), "subscribed")
				}
			}
			waiting, cancel := withWait(ctx, wait)
			defer cancel()
			seen := 0
			err = l.Subscribe(waiting, s, func(m *link.Message) error {
				if err := print(m); err != nil {
					return err
				}
				if seen++; seen == count {
					return link.ErrStop
				}
				return nil
			})
			switch {
			case errors.Is(err, link.ErrStop), ctx.Err() != nil:
				return nil
			case errors.Is(err, context.DeadlineExceeded) && waiting.Err() != nil:
				if count == 0 {
					return nil
				}
				return lateError(fmt.Sprintf("%d of %d messages came within %v", seen, count, wait))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVarP(&s.Queue, "queue", "q", "", "the messages of the queue of that `name`, instead of topics")
	f.StringVarP(&s.Group, "group", "g", "", "share the messages with the others of the group of that `name`")
	f.BoolVar(&s.Ordered, "ordered", false, "have the group, if this makes it, hand out one message of a key at a time")
	f.StringVar(&s.From, "from", "", "`where` to begin: earliest, latest, an offset (1042), the last n (-100), a time ago (@2h) or a moment (@2026-11-01T08:00:00Z)")
	f.IntVar(&qos, "qos", 1, "the most that is asked for, over mqtt")
	f.BoolVar(&s.SkipRetained, "no-retained", false, "leave out the topics' last values")
	f.IntVarP(&count, "count", "n", 0, "end after so many `messages`")
	f.DurationVarP(&wait, "wait", "w", 0, "end after so long; with -n, code 7 if not all came")
	f.BoolVar(&quiet, "quiet", false, "do not say when the subscription holds")
	show.flags(f)
	to.flags(f, true)
	return c
}

// checkSubscription says what does not make sense before anybody is asked.
func checkSubscription(s *link.Subscription) error {
	switch {
	case s.Queue != "" && (len(s.Filters) > 0 || s.Group != ""):
		return usageError{errors.New("--queue stands alone: leave out filters and --group")}
	case s.Queue == "" && len(s.Filters) == 0:
		return usageError{errors.New("want a FILTER, such as '#' for everything, or --queue NAME")}
	case s.Group != "" && len(s.Filters) != 1:
		return usageError{errors.New("--group goes with one FILTER")}
	case s.Ordered && s.Group == "":
		return usageError{errors.New("--ordered goes with --group; a queue is declared as ordered")}
	}
	for _, f := range s.Filters {
		if _, err := core.ParseFilter(f); err != nil {
			return usageError{err}
		}
	}
	if s.From != "" {
		if _, err := core.ParseFrom(s.From, time.Now()); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// withWait is a context that ends after a time, if there is one.
func withWait(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if wait <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, wait)
}
