package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/access"
	"github.com/sluicemq/sluice/configs"
)

func newACL() *cobra.Command {
	c := &cobra.Command{Use: "acl", Short: "Ask a configuration's rules", Args: cobra.ArbitraryArgs, RunE: needsSubcommand}
	var user, client string
	var roles []string
	check := &cobra.Command{
		Use:   "check FILE ACTION TOPIC",
		Short: "Say whether somebody may do something, and by which rule",
		Long: `Asks the rules of a configuration what a running broker would answer. ACTION is
publish, subscribe, consume or manage; a queue's topic is $queue/NAME. The exit
code is 0 if it is allowed and 4 if not. Without --user it asks for somebody
who did not log in.`,
		Example: "  sluice acl check sluice.yaml --user alice publish plant/3/temp",
		Args:    usageArgs(cobra.ExactArgs(3)),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := configs.Load(args[0], os.Environ())
			if err != nil {
				return err
			}
			action, err := access.ParseAction(args[1])
			if err != nil {
				return usageError{err}
			}
			a, err := access.New(cfg.Access())
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			if !cfg.Auth.Enabled() {
				fmt.Fprintln(out, "allowed: there are no users and no rules")
				return nil
			}
			allowed, rule, err := a.Explain(user, client, roles, action, args[2])
			if err != nil {
				return usageError{err}
			}
			by := "no rule matches"
			if rule >= 0 {
				by = fmt.Sprintf("by auth.rules[%d] (%s)", rule, cfg.Where(fmt.Sprintf("auth.rules[%d]", rule)))
			} else if allowed {
				by = "it is allowed to everybody"
			}
			if !allowed {
				fmt.Fprintf(out, "denied: %s\n", by)
				return silentError{exitNotAllowed}
			}
			fmt.Fprintf(out, "allowed: %s\n", by)
			return nil
		},
	}
	f := check.Flags()
	f.StringVar(&user, "user", "", "`name` of who asks")
	f.StringVar(&client, "client", "", "client `id` of who asks, for %c")
	f.StringSliceVar(&roles, "role", nil, "`roles` of who asks, instead of those in the users file")
	c.AddCommand(check)
	return c
}
