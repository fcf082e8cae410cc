// Command sluice is the broker and its command line.
//
// serve.go runs the broker: gateway.go ties the log, the core and the adapters
// together and is the only place that names every one of them. The other
// commands are clients of a running broker (pub.go, sub.go, request.go,
// admin.go) or work on files (config.go, user.go, acl.go, doctor.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/bench"
	"github.com/sluicemq/sluice/core"
)

// version is set by the Makefile's linker flags.
var version = ""

func main() { os.Exit(run()) }

// run runs the command line and returns the exit code.
func run() int {
	root := newRoot()
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitDone
	}
	var silent silentError
	if !errors.As(err, &silent) {
		fmt.Fprintf(os.Stderr, "sluice: %v\n", err)
		if errors.Is(err, core.ErrUnauthenticated) {
			fmt.Fprintln(os.Stderr, "log in with --user NAME and the password in SLUICE_PASSWORD")
		}
	}
	return exitCode(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "A gateway broker: MQTT, STOMP, HTTP and WebSocket over one durable log",
		Long: `Sluice takes messages over MQTT, STOMP, HTTP and WebSocket, appends them to one
durable log, and hands them out over any of the four: live, from queues with
acknowledgement, or replayed from any offset.

Start with:  sluice serve`,
		Version:       versionString(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          needsSubcommand,
	}
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: "broker", Title: "The broker:"},
		&cobra.Group{ID: "messages", Title: "Messages:"},
		&cobra.Group{ID: "admin", Title: "Looking after a running broker:"},
		&cobra.Group{ID: "files", Title: "Files:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"broker":   {newServe(), bench.Command()},
		"messages": {newPub(), newSub(), newRequest()},
		"admin":    {newQueue(), newExchange(), newTopic(), newClient(), newDelayed(), newBackup(), newExport(), newImport()},
		"files":    {newConfig(), newUser(), newACL(), newRestore(), newDoctor()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	return root
}

// versionString is the version that was linked in, or the module's.
func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
