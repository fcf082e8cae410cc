package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
)

// An administering is a command that asks a broker's HTTP door under /v1/.
type administering struct {
	connecting
	output string
}

// command finishes a command that does its work by the HTTP door.
func (a *administering) command(c *cobra.Command, do func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error) *cobra.Command {
	a.via = "http"
	a.flags(c.Flags(), false)
	c.Args = usageArgs(c.Args)
	c.RunE = func(c *cobra.Command, args []string) error {
		options, err := a.options()
		if err != nil {
			return err
		}
		ctx, stop := interruptible(c.Context())
		defer stop()
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		return do(ctx, c, link.NewHTTP(options), args)
	}
	return c
}

// plainOutput reports whether people read the output, rather than programs.
func (a *administering) plainOutput(w io.Writer) (bool, error) {
	switch a.output {
	case "text":
		return true, nil
	case "json":
		return false, nil
	case "":
		f, ok := w.(*os.File)
		return ok && term.IsTerminal(int(f.Fd())), nil
	}
	return false, usageError{fmt.Errorf("-o %s: want text or json", a.output)}
}

// show prints a value: as JSON, or as table writes it for people.
func (a *administering) show(w io.Writer, value any, table func(io.Writer)) error {
	plain, err := a.plainOutput(w)
	if err != nil {
		return err
	}
	if !plain {
		text, err := json.MarshalIndent(value, "", "  ")
		if err == nil {
			_, err = w.Write(append(text, '\n'))
		}
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	table(t)
	return t.Flush()
}

func (a *administering) outputFlag(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&a.output, "output", "o", "", "`form`: text or json (default: text on a terminal, else json)")
	return c
}

// queueState is a queue as the broker describes it.
type queueState struct {
	Name      string         `json:"name"`
	Kind      string         `json:"kind,omitempty"`
	Settings  map[string]any `json:"settings"`
	Bindings  []bindingState `json:"bindings"`
	Position  core.Offset    `json:"position"`
	Lag       *int           `json:"lag"`
	Oldest    string         `json:"oldest,omitempty"`
	Seconds   float64        `json:"lag_seconds,omitempty"`
	Held      int            `json:"held"`
	Waiting   int            `json:"waiting"`
	Consumers int            `json:"consumers"`
}

type bindingState struct {
	Filter   string `json:"filter,omitempty"`
	Exchange string `json:"exchange,omitempty"`
	Key      string `json:"key,omitempty"`
	Where    string `json:"where,omitempty"`
}

func (b bindingState) String() string {
	s := b.Filter
	if b.Exchange != "" {
		s = b.Exchange + ":" + b.Key
	}
	if b.Where != "" {
		s += " where " + b.Where
	}
	return s
}

// parseBinding reads a binding of the command line: a filter, or an exchange
// and a key with a colon between them.
func parseBinding(s string) bindingState {
	if exchange, key, ok := strings.Cut(s, ":"); ok {
		return bindingState{Exchange: exchange, Key: key}
	}
	return bindingState{Filter: s}
}

func (q *queueState) lag() string {
	if q.Lag == nil {
		return "?"
	}
	return strconv.Itoa(*q.Lag)
}

// bindings are those that somebody made: that a queue gets what is sent to it
// by name goes without saying.
func (q *queueState) bindings() string {
	var list []string
	for _, b := range q.Bindings {
		if b.Filter != core.QueueTopic(q.Name) {
			list = append(list, b.String())
		}
	}
	return strings.Join(list, ", ")
}

func newQueue() *cobra.Command {
	var a administering
	c := &cobra.Command{Use: "queue", Short: "List, show and change queues", Args: cobra.ArbitraryArgs, RunE: needsSubcommand}

	var prefix, kind string
	list := a.outputFlag(a.command(&cobra.Command{Use: "list", Short: "List queues", Args: cobra.NoArgs},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, _ []string) error {
			query := url.Values{}
			for name, value := range map[string]string{"prefix": prefix, "kind": kind} {
				if value != "" {
					query.Set(name, value)
				}
			}
			queues, err := pages[queueState](ctx, h, "/v1/queues", query)
			if err != nil {
				return err
			}
			return a.show(c.OutOrStdout(), queues, func(w io.Writer) {
				fmt.Fprintln(w, "QUEUE\tKIND\tLAG\tHELD\tWAITING\tCONSUMERS\tBINDINGS")
				for _, q := range queues {
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", q.Name, orElse(q.Kind, "queue"), q.lag(), q.Held, q.Waiting, q.Consumers, q.bindings())
				}
			})
		}))
	list.Flags().StringVar(&prefix, "prefix", "", "only those whose names begin with `it`")
	list.Flags().StringVar(&kind, "kind", "", "only those of a `kind`: queue, group or session")

	show := a.outputFlag(a.command(&cobra.Command{Use: "show NAME", Short: "Describe one queue", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
			return a.showQueue(ctx, c.OutOrStdout(), h, "GET", args[0], nil)
		}))

	var bindings, settings []string
	var from string
	declare := a.outputFlag(a.command(&cobra.Command{
		Use: "declare NAME", Short: "Make a queue, or say that it is there with the same settings", Args: cobra.ExactArgs(1),
		Example: `  sluice queue declare orders --bind shop/orders --set max_attempts=5 --set lease=1m
  sluice queue declare mail --bind 'mail:*.out' --set overflow=drop-oldest --set max_length=1000`,
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
		body := map[string]any{}
		if from != "" {
			body["from"] = from
		}
		var list []bindingState
		for _, b := range bindings {
			list = append(list, parseBinding(b))
		}
		if list != nil {
			body["bindings"] = list
		}
		set := map[string]any{}
		for _, s := range settings {
			name, value, ok := strings.Cut(s, "=")
			if !ok {
				return usageError{fmt.Errorf("--set %q: want name=value", s)}
			}
			set[name] = settingOf(value)
		}
		body["settings"] = set
		return a.showQueue(ctx, c.OutOrStdout(), h, "PUT", args[0], body)
	}))
	declare.Flags().StringArrayVar(&bindings, "bind", nil, "a `filter`, or exchange:key; may be repeated")
	declare.Flags().StringArrayVar(&settings, "set", nil, "a setting, `name=value`; may be repeated")
	declare.Flags().StringVar(&from, "from", "", "`where` the bindings begin (default latest)")

	remove := a.command(&cobra.Command{Use: "delete NAME", Short: "Delete a queue, with what waits in it", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
			return h.Do(ctx, "DELETE", "/v1/queues/"+url.PathEscape(args[0]), nil, nil)
		})
	var where string
	bind := a.command(&cobra.Command{Use: "bind NAME BINDING", Short: "Lead a filter, or exchange:key, to a queue", Args: cobra.ExactArgs(2)},
		func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
			b := parseBinding(args[1])
			b.Where = where
			return h.Do(ctx, "POST", "/v1/queues/"+url.PathEscape(args[0])+"/bindings", b, nil)
		})
	bind.Flags().StringVar(&where, "where", "", "a `selector` that a message must fulfil besides")
	unbind := a.command(&cobra.Command{Use: "unbind NAME BINDING", Short: "End a binding", Args: cobra.ExactArgs(2)},
		func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
			return h.Do(ctx, "DELETE", "/v1/queues/"+url.PathEscape(args[0])+"/bindings?"+bindingQuery(args[1], where).Encode(), nil, nil)
		})
	unbind.Flags().StringVar(&where, "where", "", "the binding's `selector`")

	var messages printing
	var limit int
	var whereBrowsed string
	browse := a.command(&cobra.Command{Use: "browse NAME", Short: "Print what a queue has not settled, and change nothing", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if whereBrowsed != "" {
				query.Set("where", whereBrowsed)
			}
			return a.printPage(ctx, c, h, "/q/"+url.PathEscape(args[0])+"?"+query.Encode(), &messages)
		})
	browse.Flags().StringVar(&whereBrowsed, "where", "", "only what a `selector` lets pass")
	messages.flags(browse.Flags())
	browse.Flags().IntVarP(&limit, "count", "n", 100, "at most so many `messages`")

	c.AddCommand(list, show, declare, remove, bind, unbind, browse, a.rewind(), a.purge(),
		a.transfer("move NAME", "Move messages to another place", "/move", true),
		a.transfer("copy NAME", "Copy messages to another place", "/copy", true),
		a.transfer("requeue NAME", "Move dead letters back to where they came from", "/requeue", false))
	return c
}

// bindingQuery names a binding in a query.
func bindingQuery(binding, where string) url.Values {
	query := url.Values{}
	if b := parseBinding(binding); b.Exchange != "" {
		query.Set("exchange", b.Exchange)
		query.Set("key", b.Key)
	} else {
		query.Set("filter", b.Filter)
	}
	if where != "" {
		query.Set("where", where)
	}
	return query
}

// settingOf is a setting's value as JSON wants it.
func settingOf(value string) any {
	if value == "true" || value == "false" {
		return value == "true"
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return n
	}
	return value
}

func (a *administering) showQueue(ctx context.Context, w io.Writer, h *link.HTTP, method, name string, body any) error {
	var q queueState
	if err := h.Do(ctx, method, "/v1/queues/"+url.PathEscape(name), body, &q); err != nil {
		return err
	}
	return a.show(w, q, func(w io.Writer) {
		fmt.Fprintf(w, "queue\t%s\nkind\t%s\nposition\t%d\nlag\t%s\nlag seconds\t%g\nheld\t%d\nwaiting\t%d\nconsumers\t%d\nbindings\t%s\n",
			q.Name, orElse(q.Kind, "queue"), q.Position, q.lag(), q.Seconds, q.Held, q.Waiting, q.Consumers, q.bindings())
		settings, _ := json.Marshal(q.Settings)
		fmt.Fprintf(w, "settings\t%s\n", settings)
	})
}

func newExchange() *cobra.Command {
	var a administering
	c := &cobra.Command{Use: "exchange", Short: "List, show and change exchanges", Args: cobra.ArbitraryArgs, RunE: needsSubcommand}
	list := a.outputFlag(a.command(&cobra.Command{Use: "list", Short: "List exchanges", Args: cobra.NoArgs},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, _ []string) error {
			all, err := pages[core.ExchangeDefinition](ctx, h, "/v1/exchanges", url.Values{})
			if err != nil {
				return err
			}
			return a.show(c.OutOrStdout(), all, func(w io.Writer) {
				fmt.Fprintln(w, "EXCHANGE\tKIND")
				for _, x := range all {
					fmt.Fprintf(w, "%s\t%s\n", x.Name, x.Kind)
				}
			})
		}))
	var alternate, where string
	one := func(method string) func(context.Context, *cobra.Command, *link.HTTP, []string) error {
		return func(ctx context.Context, c *cobra.Command, h *link.HTTP, args []string) error {
			var body any
			if len(args) > 1 {
				body = map[string]string{"kind": args[1], "alternate": alternate}
			}
			var x core.ExchangeDefinition
			if err := h.Do(ctx, method, "/v1/exchanges/"+url.PathEscape(args[0]), body, &x); err != nil {
				return err
			}
			return a.show(c.OutOrStdout(), x, func(w io.Writer) {
				fmt.Fprintf(w, "exchange\t%s\nkind\t%s\nalternate\t%s\n", x.Name, x.Kind, x.Alternate)
			})
		}
	}
	declare := a.outputFlag(a.command(&cobra.Command{Use: "declare NAME KIND", Short: "Make an exchange: direct, fanout, topic or headers", Args: cobra.ExactArgs(2)}, one("PUT")))
	declare.Flags().StringVar(&alternate, "alternate", "", "the `exchange` that gets what no binding matches")
	bind := a.command(&cobra.Command{Use: "bind NAME FROM[:KEY]", Short: "Lead what reaches another exchange to this one", Args: cobra.ExactArgs(2)},
		func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
			from, key, _ := strings.Cut(args[1], ":")
			return h.Do(ctx, "POST", "/v1/bindings", map[string]string{"exchange": from, "key": key, "where": where, "to": args[0]}, nil)
		})
	bind.Flags().StringVar(&where, "where", "", "a `selector` that a message must fulfil besides")
	unbind := a.command(&cobra.Command{Use: "unbind NAME FROM[:KEY]", Short: "End a binding between exchanges", Args: cobra.ExactArgs(2)},
		func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
			from, key, _ := strings.Cut(args[1], ":")
			query := url.Values{"exchange": {from}, "key": {key}, "to": {args[0]}}
			if where != "" {
				query.Set("where", where)
			}
			return h.Do(ctx, "DELETE", "/v1/bindings?"+query.Encode(), nil, nil)
		})
	unbind.Flags().StringVar(&where, "where", "", "the binding's `selector`")
	bindings := a.outputFlag(a.command(&cobra.Command{Use: "bindings", Short: "List the bindings of queues and between exchanges", Args: cobra.NoArgs},
		func(ctx context.Context, c *cobra.Command, h *link.HTTP, _ []string) error {
			all, err := pages[routeState](ctx, h, "/v1/bindings", url.Values{})
			if err != nil {
				return err
			}
			return a.show(c.OutOrStdout(), all, func(w io.Writer) {
				fmt.Fprintln(w, "FROM\tTO")
				for _, r := range all {
					to := "queue " + r.Queue
					if r.Queue == "" {
						to = "exchange " + r.To
					}
					fmt.Fprintf(w, "%s\t%s\n", r.bindingState, to)
				}
			})
		}))
	c.AddCommand(list, bind, unbind, bindings, declare,
		a.outputFlag(a.command(&cobra.Command{Use: "show NAME", Short: "Describe one exchange", Args: cobra.ExactArgs(1)}, one("GET"))),
		a.command(&cobra.Command{Use: "delete NAME", Short: "Delete an exchange", Args: cobra.ExactArgs(1)},
			func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
				return h.Do(ctx, "DELETE", "/v1/exchanges/"+url.PathEscape(args[0]), nil, nil)
			}),
	)
	return c
}

// routeState is a binding with what it leads to.
type routeState struct {
	bindingState
	Queue string `json:"queue,omitempty"`
	To    string `json:"to,omitempty"`
}

// printPage prints the messages of a finite read.
func (a *administering) printPage(ctx context.Context, c *cobra.Command, h *link.HTTP, path string, messages *printing) error {
	print, err := messages.printer(c.OutOrStdout())
	if err != nil {
		return err
	}
	return h.Messages(ctx, path, print)
}

// pages reads a whole list, page by page.
func pages[T any](ctx context.Context, h *link.HTTP, path string, query url.Values) ([]T, error) {
	all := []T{}
	query.Set("limit", "1000") // the longest page
	for {
		var page struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}
		if err := h.Do(ctx, "GET", path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			return all, nil
		}
		if page.Next == query.Get("after") {
			return nil, errors.New("the broker's list does not go on")
		}
		query.Set("after", page.Next)
	}
}

// printable is what a peer has named something, for a terminal: quoted where it
// would do more there than be read.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
