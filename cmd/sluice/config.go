package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/access"
	"github.com/sluicemq/sluice/configs"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check and show configurations", Args: cobra.ArbitraryArgs, RunE: needsSubcommand}
	c.AddCommand(
		&cobra.Command{
			Use:   "check FILE",
			Short: "Say what is wrong with a configuration, and with the users it names",
			Args:  usageArgs(cobra.ExactArgs(1)),
			RunE: func(c *cobra.Command, args []string) error {
				cfg, err := configs.Load(args[0], os.Environ())
				if err != nil {
					return err
				}
				if err := refuseOpen(cfg); err != nil {
					return err
				}
				if _, err := access.New(cfg.Access()); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "%s is fine\n", args[0])
				return nil
			},
		},
		&cobra.Command{
			Use:   "show [FILE]",
			Short: "Print what would be in force: the defaults, the file, the environment",
			Args:  usageArgs(cobra.MaximumNArgs(1)),
			RunE: func(c *cobra.Command, args []string) error {
				file := ""
				if len(args) > 0 {
					file = args[0]
				}
				cfg, err := configs.Load(file, os.Environ())
				if err != nil {
					return err
				}
				_, err = c.OutOrStdout().Write(cfg.YAML())
				return err
			},
		},
		&cobra.Command{
			Use:   "example",
			Short: "Print a configuration that names every key with its default",
			Args:  usageArgs(cobra.NoArgs),
			RunE: func(c *cobra.Command, _ []string) error {
				_, err := c.OutOrStdout().Write(configs.Template())
				return err
			},
		},
		&cobra.Command{
			Use:   "schema",
			Short: "Print the JSON Schema of configurations, for editors",
			Args:  usageArgs(cobra.NoArgs),
			RunE: func(c *cobra.Command, _ []string) error {
				_, err := c.OutOrStdout().Write(configs.Schema())
				return err
			},
		},
	)
	return c
}

// needsSubcommand is what a command does that is only a name for others.
func needsSubcommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return unknownCommand(c, args[0])
}
