package bench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Command is `sluice bench`.
func Command() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure brokers: throughput, processor time, memory, restart",
		Args:  cobra.NoArgs,
	}
	c.AddCommand(listCommand(), suiteCommand(), runCommand())
	return c
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the scenarios", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, s := range scenarios() {
				fmt.Fprintf(c.OutOrStdout(), "%-25s %s\n", s.name, s.about)
			}
			return nil
		},
	}
}

// flags are those of suite and run.
type flags struct {
	short    bool
	runs     int
	measure  time.Duration
	warm     time.Duration
	size     int
	pause    time.Duration
	output   string
	sluice   string
	only     string
	dir      string
	profiles string
	check    bool
	at       addresses
	pid      int
}

func (f *flags) common(c *cobra.Command) {
	c.Flags().BoolVar(&f.short, "short", false, "one quick run: 1 s each, a fiftieth of what is counted")
	c.Flags().DurationVar(&f.measure, "for", 5*time.Second, "how long to measure")
	c.Flags().DurationVar(&f.warm, "warm", time.Second, "how long to run before measuring")
	c.Flags().IntVar(&f.size, "size", 100, "bytes of a payload")
	c.Flags().DurationVar(&f.pause, "pause", 2*time.Millisecond, "longest pause between the generator's turns")
	c.Flags().StringVarP(&f.output, "output", "o", "table", "table or json")
}

func (f *flags) fit() (span, float64) {
	if f.short {
		f.runs = 1
		return span{warm: 500 * time.Millisecond, measure: time.Second}, 0.02
	}
	return span{warm: f.warm, measure: f.measure}, 1
}

func suiteCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "suite [SCENARIO...]",
		Short: "Start Sluice and other brokers in turn, measure them, print the ratios",
		Long: `Starts Sluice and another broker in turn, each run on a fresh one, drives both
with the same load, and prints the medians of the runs and their ratios. The
other is mosquitto for MQTT, and RabbitMQ and ActiveMQ for STOMP, where Debian's
packages of these two are installed; their services need not run. What the
servers write goes below the folder given by --dir, which should be on the disk
that is to be measured. Without scenarios it runs all but those that are mqtt-q*, which have to be
named; see bench list.`,
		RunE: func(c *cobra.Command, args []string) error { return f.suite(c, args) },
	}
	f.common(c)
	c.Flags().IntVar(&f.runs, "runs", 3, "runs of each scenario on each server")
	c.Flags().StringVar(&f.sluice, "sluice", "", "the Sluice program to measure (default: this one)")
	c.Flags().StringVar(&f.only, "only", "", "measure only `BROKER`: sluice, mosquitto, rabbitmq or activemq")
	c.Flags().StringVar(&f.dir, "dir", "bench-out", "folder for the servers' data")
	c.Flags().StringVar(&f.profiles, "profiles", "", "folder for CPU profiles of Sluice, one for each scenario")
	c.Flags().BoolVar(&f.check, "check", false, "fail if a goal is missed or a message was lost")
	return c
}

func (f *flags) suite(c *cobra.Command, args []string) error {
	chosen, err := choose(args)
	if err != nil {
		return err
	}
	program := f.sluice
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	s := &suite{scenarios: chosen, size: f.size, pause: f.pause, dir: dir, profiles: f.profiles, progress: c.ErrOrStderr()}
	s.span, s.scale = f.fit()
	s.runs = max(1, f.runs)
	if f.only == "" || f.only == sluiceName {
		s.kinds = append(s.kinds, sluice(program))
	}
	for _, name := range serverNames[1:] {
		needed := slices.ContainsFunc(chosen, func(sc scenario) bool { return slices.Contains(sc.rivals, name) })
		if !needed || f.only != "" && f.only != name {
			continue
		}
		k, err := rivalKinds[name]()
		if errors.Is(err, errNotInstalled) && name != mosquittoName && f.only == "" {
			fmt.Fprintln(s.progress, "measured without it:", err)
			continue
		}
		if err != nil {
			return err
		}
		s.kinds = append(s.kinds, k)
	}
	if len(s.kinds) == 0 {
		return fmt.Errorf("--only %q: none of %s that does any of the scenarios", f.only, strings.Join(serverNames, ", "))
	}
	o, err := s.run(c.Context())
	if err != nil {
		return err
	}
	if err := f.print(c.OutOrStdout(), o); err != nil {
		return err
	}
	if missed := o.missed(); f.check && len(missed) > 0 {
		return fmt.Errorf("not reached:\n  %s", strings.Join(missed, "\n  "))
	}
	return nil
}

// rivalKinds are the brokers to compare with.
var rivalKinds = map[string]func() (kind, error){mosquittoName: mosquitto, rabbitmqName: rabbitmq, activemqName: activemq}

func runCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "run SCENARIO...",
		Short: "Measure a broker that is running",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			chosen, err := choose(args)
			if err != nil {
				return err
			}
			o := &outcome{Machine: thisMachine(), Runs: 1, Size: f.size}
			var s span
			s, o.Scale = f.fit()
			o.Measure = s.measure.Seconds()
			for _, sc := range chosen {
				if sc.inProcess {
					return fmt.Errorf("%s needs no broker: use bench suite %s", sc.name, sc.name)
				}
				if sc.starts {
					return fmt.Errorf("%s starts and kills its server: use bench suite %s", sc.name, sc.name)
				}
				r := &rig{server: &server{kind: kind{name: sluiceName}, addresses: f.at, external: f.pid}, dialer: &dialer{},
					span: s, scale: o.Scale, size: f.size, pause: f.pause, settle: 500 * time.Millisecond}
				measured, err := sc.run(c.Context(), r)
				if err != nil {
					return fmt.Errorf("%s: %w", sc.name, err)
				}
				o.Sets = append(o.Sets, set{Name: sc.name, About: sc.about, Results: map[string]result{sluiceName: measured}})
			}
			return f.print(c.OutOrStdout(), o)
		},
	}
	f.common(c)
	c.Flags().StringVar(&f.at.mqtt, "mqtt", "127.0.0.1:1883", "where the broker listens for MQTT")
	c.Flags().StringVar(&f.at.stomp, "stomp", "127.0.0.1:61613", "where the broker listens for STOMP")
	c.Flags().StringVar(&f.at.http, "http", "127.0.0.1:8080", "where the broker listens for HTTP")
	c.Flags().IntVar(&f.pid, "pid", 0, "the broker's process, for its processor time and memory")
	c.MarkFlagRequired("pid")
	return c
}

func (f *flags) print(w io.Writer, o *outcome) error {
	switch f.output {
	case "json":
		return o.writeJSON(w)
	case "table":
		return o.writeTable(w)
	}
	return fmt.Errorf("--output %q: table or json", f.output)
}

// choose finds scenarios by name; a name that ends in * stands for all that
// begin so, and none for all.
func choose(names []string) ([]scenario, error) {
	all := scenarios()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(s scenario) bool { return s.named }), nil
	}
	var chosen []scenario
	for _, name := range names {
		prefix, wild := strings.CutSuffix(name, "*")
		some := slices.DeleteFunc(slices.Clone(all), func(s scenario) bool {
			return s.name != name && !(wild && strings.HasPrefix(s.name, prefix))
		})
		if len(some) == 0 {
			return nil, fmt.Errorf("no scenario %q; see bench list", name)
		}
		chosen = append(chosen, some...)
	}
	return chosen, nil
}
