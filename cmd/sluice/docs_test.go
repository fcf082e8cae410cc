package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

const cliHead = `# Command line

This page is made from the program itself: what it says is what ` + "`sluice COMMAND --help`" + ` says.

Messages and tables go to standard output, everything else to standard error. Where the output is not a terminal it is JSON, unless ` + "`-o`" + ` or ` + "`-f`" + ` says otherwise. ` + "`pub`, `sub` and `request`" + ` do the same over every protocol: ` + "`--via ws`" + ` (the default: it tells the most), ` + "`http`, `mqtt`, `stomp`" + `.

The environment holds what you do not want to repeat: ` + "`SLUICE_BROKER`, `SLUICE_VIA`, `SLUICE_USER`, `SLUICE_PASSWORD`" + `.

| exit code | |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the command line makes no sense |
| 3 | no broker answers |
| 4 | not allowed, or the login is missing or wrong |
| 5 | there is no such thing |
| 7 | not in time |
`

// TestCommandLinePage holds docs/cli.md to the commands; go test ./cmd/sluice
// -update writes it.
func TestCommandLinePage(t *testing.T) {
	for _, name := range []string{"SLUICE_BROKER", "SLUICE_VIA", "SLUICE_USER"} {
		t.Setenv(name, "")
	}
	var b strings.Builder
	b.WriteString(cliHead)
	describe(&b, newRoot(), "##")
	const page = "../../docs/cli.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("%s is not what the commands say: run go test ./cmd/sluice -run CommandLinePage -update", page)
	}
}

func describe(b *strings.Builder, c *cobra.Command, heading string) {
	for _, sub := range c.Commands() {
		if sub.Name() == "help" || sub.Name() == "completion" || sub.Hidden {
			continue
		}
		fmt.Fprintf(b, "\n%s %s\n\n", heading, sub.CommandPath())
		if sub.Long != "" {
			b.WriteString(sub.Long + "\n")
		} else {
			b.WriteString(sub.Short + ".\n")
		}
		if sub.Name() == "bench" {
			b.WriteString("\nIt is for those who change Sluice; see `sluice bench --help`.\n")
			continue
		}
		if !sub.HasSubCommands() {
			fmt.Fprintf(b, "\n```\n%s\n```\n", sub.UseLine())
		}
		if sub.Example != "" {
			fmt.Fprintf(b, "\n```sh\n%s\n```\n", sub.Example)
		}
		if flags := sub.NonInheritedFlags(); flags.HasAvailableFlags() {
			if usages := strings.TrimRight(flags.FlagUsages(), "\n"); usages != "" {
				fmt.Fprintf(b, "\n```\n%s\n```\n", usages)
			}
		}
		describe(b, sub, heading+"#")
	}
}
