package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluicemq/sluice/cmd/sluice/internal/access"
	"github.com/sluicemq/sluice/core"
)

func newUser() *cobra.Command {
	c := &cobra.Command{
		Use:   "user",
		Short: "Change a users file",
		Long: `Changes a file of users, which a configuration names as auth.users. A running
broker reads it again on SIGHUP. Passwords are asked for on a terminal and read
as one line from standard input elsewhere; only their argon2id hashes and the
keys that SCRAM-SHA-256 derives from them are kept.`,
		Args: cobra.ArbitraryArgs, RunE: needsSubcommand,
	}
	var roles []string
	var locked bool
	add := &cobra.Command{
		Use:     "add FILE NAME",
		Short:   "Add a user; the file is made if it is not there",
		Example: "  sluice user add users.yaml alice --role operator",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := access.OpenUsers(args[0], true)
			if err != nil {
				return err
			}
			u := access.User{Name: args[1], Roles: roles}
			if err := f.Add(u); err != nil {
				return err
			}
			if !locked {
				if err := newPassword(c, f, u.Name); err != nil {
					return err
				}
			}
			return f.Save()
		},
	}
	add.Flags().StringSliceVar(&roles, "role", nil, "`roles` that rules speak of")
	add.Flags().BoolVar(&locked, "no-password", false, "for a user who logs in by a certificate only")
	c.AddCommand(add,
		&cobra.Command{
			Use:   "passwd FILE NAME",
			Short: "Give a user another password",
			Args:  usageArgs(cobra.ExactArgs(2)),
			RunE: func(c *cobra.Command, args []string) error {
				f, err := access.OpenUsers(args[0], false)
				if err != nil {
					return err
				}
				if !f.Has(args[1]) { // before anybody is asked
					return fmt.Errorf("user %q: %w", args[1], core.ErrNotFound)
				}
				if err := newPassword(c, f, args[1]); err != nil {
					return err
				}
				return f.Save()
			},
		},
		&cobra.Command{
			Use:   "list FILE",
			Short: "List users, roles, and who has a password",
			Args:  usageArgs(cobra.ExactArgs(1)),
			RunE: func(c *cobra.Command, args []string) error {
				f, err := access.OpenUsers(args[0], false)
				if err != nil {
					return err
				}
				users, err := f.Users()
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "USER\tPASSWORD\tROLES")
				for _, u := range users {
					fmt.Fprintf(w, "%s\t%s\t%s\n", u.Name, map[bool]string{true: "none", false: "set"}[u.Hash == ""], strings.Join(u.Roles, ", "))
				}
				return w.Flush()
			},
		},
		&cobra.Command{
			Use:   "remove FILE NAME",
			Short: "Remove a user",
			Args:  usageArgs(cobra.ExactArgs(2)),
			RunE: func(c *cobra.Command, args []string) error {
				f, err := access.OpenUsers(args[0], false)
				if err != nil {
					return err
				}
				if err := f.Remove(args[1]); err != nil {
					return err
				}
				return f.Save()
			},
		},
	)
	return c
}

// newPassword asks for a password and keeps what proves it.
func newPassword(c *cobra.Command, f *access.UsersFile, user string) error {
	password, err := askPassword(c, user)
	if err != nil {
		return err
	}
	if len(password) == 0 {
		return errors.New("the password is empty")
	}
	scram, err := access.SCRAMKeys(password)
	if err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "%v: %s cannot log in by MQTT's enhanced authentication\n", err, user)
	}
	return f.SetPassword(user, access.HashPassword(password), scram)
}

func askPassword(c *cobra.Command, user string) ([]byte, error) {
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(c.InOrStdin()).ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return bytes.TrimRight(line, "\r\n"), nil
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(c.ErrOrStderr(), prompt)
		defer fmt.Fprintln(c.ErrOrStderr())
		return term.ReadPassword(int(in.Fd()))
	}
	first, err := ask(fmt.Sprintf("Password for %s: ", user))
	if err != nil {
		return nil, err
	}
	second, err := ask("Again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two are not the same")
	}
	return first, nil
}
