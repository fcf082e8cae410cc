package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// Exit codes, for scripts.
const (
	exitDone         = 0
	exitFailed       = 1
	exitUsage        = 2
	exitNoConnection = 3
	exitNotAllowed   = 4
	exitNotFound     = 5
	exitTimedOut     = 7
)

// A usageError is a command line that does not make sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// A silentError ends with its code, after everything has been said.
type silentError struct{ code int }

func (e silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// A lateError says what did not come in time.
type lateError string

func (e lateError) Error() string        { return string(e) }
func (e lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// exitCode maps an error to the code that scripts see.
func exitCode(err error) int {
	var usage usageError
	var silent silentError
	var dial *net.OpError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &silent):
		return silent.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, core.ErrNotAuthorized), errors.Is(err, core.ErrUnauthenticated):
		return exitNotAllowed
	case errors.Is(err, core.ErrNotFound):
		return exitNotFound
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimedOut
	case errors.As(err, &dial) && dial.Op == "dial", errors.Is(err, syscall.ECONNREFUSED):
		return exitNoConnection
	}
	return exitFailed
}

// unknownCommand says which command is meant most likely.
func unknownCommand(c *cobra.Command, word string) error {
	known := []string{}
	for _, k := range c.Commands() {
		if k.IsAvailableCommand() {
			known = append(known, k.Name())
		}
	}
	if c.Flags().Lookup(word) != nil {
		known = []string{"--" + word}
	}
	return usageError{fmt.Errorf("%w\nsee: %s --help", configs.Unknown(fmt.Sprintf("command %q", word), word, known), c.CommandPath())}
}

// flagError says which flag is meant most likely.
func flagError(c *cobra.Command, err error) error {
	if word, is := strings.CutPrefix(err.Error(), "unknown flag: "); is {
		known := []string{}
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		err = configs.Unknown("flag "+word, strings.TrimLeft(word, "-"), known)
	}
	return usageError{fmt.Errorf("%w\nsee: %s --help", err, c.CommandPath())}
}

// usageArgs makes a check of arguments fail as wrong usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{fmt.Errorf("%w\nusage: %s", err, c.UseLine())}
		}
		return nil
	}
}
