//go:build !linux

package bench

import (
	"errors"

	"github.com/spf13/cobra"
)

// Command is `sluice bench`, which measures through /proc and epoll.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:   "bench",
		Short: "Measure brokers (on Linux only)",
		RunE: func(*cobra.Command, []string) error {
			return errors.New("bench reads /proc and uses epoll: it runs on Linux only")
		},
	}
}
