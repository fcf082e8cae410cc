package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
)

// clientState is a client that is connected.
type clientState struct {
	Protocol  string `json:"protocol"`
	Client    string `json:"client"`
	User      string `json:"user,omitempty"`
	Remote    string `json:"remote,omitempty"`
	Since     int64  `json:"since"` // ms since 1970
	Consumers int    `json:"consumers"`
}

func newClient() *cobra.Command {
	var a administering
	c := &cobra.Command{Use: "client", Short: "List who is connected, and disconnect them", Args: cobra.ArbitraryArgs, RunE: needsSubcommand}

	var protocol, user, sort string
	list := a.outputFlag(a.command(&cobra.Command{
		Use: "list", Short: "List who is connected, over all protocols", Args: cobra.NoArgs,
		Example: "  sluice client list\n  sluice client list --protocol mqtt --sort -since",
	}, func(ctx context.Context, c *cobra.Command, h *link.HTTP, _ []string) error {
		query := url.Values{}
		for name, value := range map[string]string{"protocol": protocol, "user": user, "sort": sort} {
			if value != "" {
				query.Set(name, value)
			}
		}
		clients, err := pages[clientState](ctx, h, "/v1/clients", query)
		if err != nil {
			return err
		}
		return a.show(c.OutOrStdout(), clients, func(w io.Writer) {
			fmt.Fprintln(w, "PROTOCOL\tCLIENT\tUSER\tREMOTE\tSINCE\tCONSUMERS")
			for _, k := range clients {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", k.Protocol, printable(k.Client), printable(k.User), k.Remote, time.UnixMilli(k.Since).Format(time.RFC3339), k.Consumers)
			}
		})
	}))
	list.Flags().StringVar(&protocol, "protocol", "", "only those of a `protocol`: mqtt, stomp, http or ws")
	list.Flags().StringVar(&user, "of", "", "only those of a user of that `name`")
	list.Flags().StringVar(&sort, "sort", "", "by `what`: since, name or consumers, with a minus in front for the largest first; since unless given")

	disconnect := a.command(&cobra.Command{
		Use: "disconnect PROTOCOL CLIENT", Short: "End a client's connections; it is told why, and may come again", Args: cobra.ExactArgs(2),
		Example: "  sluice client disconnect mqtt sensor-7",
	}, func(ctx context.Context, _ *cobra.Command, h *link.HTTP, args []string) error {
		return h.Do(ctx, "DELETE", "/v1/clients/"+url.PathEscape(args[0])+"/"+url.PathEscape(args[1]), nil, nil)
	})
	c.AddCommand(list, disconnect)
	return c
}
