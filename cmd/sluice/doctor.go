package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A diagnosis is what doctor has found and done, as the command line prints it.
type diagnosis struct {
	Dir     string `json:"dir"`
	Healthy bool   `json:"healthy"`
	seglog.Examination
	// Mended is what was done, one step a line.
	Mended []string `json:"mended,omitempty"`
}

func newDoctor() *cobra.Command {
	var a administering
	var mend bool
	var discard []string
	c := a.outputFlag(&cobra.Command{
		Use:   "doctor DATA",
		Short: "Say what is wrong with a data directory, and mend it",
		Long: `Reads all of a data directory that no broker has open, compares every checksum,
and says what is wrong: in which file, at which bytes, which offsets are
concerned and what follows from it. Nothing is changed. The exit code is 0 if
nothing has to be mended and 1 if something has.

With --mend it mends what it finds. Damaged bytes of the log are never given up
by that: they stay where they are, and are copied to DATA/quarantine before
anything is written over them. What cannot be mended without giving something up
is named, and is only given up by naming it with --discard.`,
		Example: `  sluice doctor /var/lib/sluice
  sluice doctor /var/lib/sluice --mend
  sluice doctor /var/lib/sluice --mend --discard state`,
		Args: usageArgs(cobra.ExactArgs(1)),
	})
	c.Flags().BoolVar(&mend, "mend", false, "mend what is found")
	c.Flags().StringSliceVar(&discard, "discard", nil, "give up `what` a finding names, for the rest to be mended")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(discard) > 0 && !mend {
			return usageError{errors.New("--discard says what --mend may give up; add --mend")}
		}
		plain, err := a.plainOutput(c.OutOrStdout())
		if err != nil {
			return err
		}
		ctx, stop := interruptible(c.Context())
		defer stop()
		d := diagnosis{Dir: filepath.Clean(args[0])}
		o := seglog.Options{Dir: d.Dir}
		run := func(what string, do func(seglog.Progress) error) error {
			bar := newBar(c.ErrOrStderr(), what)
			defer bar.end()
			err := do(seglog.Progress{Plan: bar.plan, Add: bar.add})
			switch {
			case errors.Is(err, core.ErrInvalid):
				return usageError{err}
			case errors.Is(err, fs.ErrNotExist):
				return fmt.Errorf("%w: %s is no data directory: %w", core.ErrNotFound, d.Dir, err)
			}
			return explain(d.Dir, err)
		}
		if mend {
			err := run("mending", func(p seglog.Progress) (err error) {
				d.Mended, err = seglog.Mend(ctx, o, discard, p)
				return err
			})
			if err != nil {
				return err
			}
		}
		err = run("reading", func(p seglog.Progress) error {
			x, err := seglog.Examine(ctx, o, p)
			if err == nil {
				d.Examination, d.Healthy = *x, x.Healthy()
			}
			return err
		})
		if err != nil {
			return err
		}
		if plain {
			d.print(c.OutOrStdout(), mend)
		} else if err := a.show(c.OutOrStdout(), d, nil); err != nil {
			return err
		}
		if !d.Healthy {
			return silentError{exitFailed}
		}
		return nil
	}
	return c
}

// explain says what to do about an error about a data directory.
func explain(dir string, err error) error {
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return fmt.Errorf("%w: a broker or another command is running with %s; stop it first", err, dir)
	case errors.Is(err, core.ErrCorrupt):
		return fmt.Errorf("%w\nto see what is wrong and what can be mended: sluice doctor %s", err, dir)
	}
	return err
}

// print writes a diagnosis for people.
func (d *diagnosis) print(w io.Writer, mend bool) {
	state := "closed"
	if !d.Closed {
		state = "not closed"
	}
	if d.Records == 0 {
		fmt.Fprintf(w, "%s: no records, %s, %s\n", d.Dir, count(d.Segments, "segment"), state)
	} else {
		fmt.Fprintf(w, "%s: offsets %d to %d, %s in %s, %s\n", d.Dir, d.First, d.End-1, count(int(d.Records), "record"), count(d.Segments, "segment"), state)
	}
	for _, done := range d.Mended {
		fmt.Fprintf(w, "mended  %s\n", done)
	}
	discards := make(map[string]bool)
	for _, f := range d.Findings {
		fmt.Fprintf(w, "\n%-7s %s", f.Severity, f.File)
		if f.At < f.To {
			fmt.Fprintf(w, ", bytes %d to %d", f.At, f.To-1)
		} else if f.At > 0 {
			fmt.Fprintf(w, ", byte %d", f.At)
		}
		switch {
		case f.First+1 == f.End:
			fmt.Fprintf(w, ": offset %d", f.First)
		case f.First < f.End:
			fmt.Fprintf(w, ": offsets %d to %d", f.First, f.End-1)
		}
		fmt.Fprintf(w, "\n        %s\n        %s\n", sentence(f.What), sentence(f.Consequence))
		if f.Mend != "" && f.Severity != seglog.Note {
			flag := "--mend"
			if f.Discard != "" {
				flag += " --discard " + f.Discard
				discards[f.Discard] = true
			}
			fmt.Fprintf(w, "        %s: %s.\n", flag, f.Mend)
		}
	}
	n := d.Problems()
	switch {
	case n == 0:
		fmt.Fprintln(w, "\nNothing has to be mended.")
	case !mend:
		fmt.Fprintf(w, "\n%s. To mend what can be mended: sluice doctor %s --mend\n", count(n, "problem"), d.Dir)
	case len(discards) > 0:
		fmt.Fprintf(w, "\n%s left, which cannot be mended without giving something up: see --discard above.\n", count(n, "problem"))
	default:
		fmt.Fprintf(w, "\n%s left.\n", count(n, "problem"))
	}
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}

// sentence makes a sentence of what begins in lower case.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
