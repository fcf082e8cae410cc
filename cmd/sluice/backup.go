package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluicemq/sluice/cmd/sluice/internal/backup"
	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A backupSummary is a backup as the command line describes it.
type backupSummary struct {
	Dir   string      `json:"backup"`
	Time  time.Time   `json:"time"`
	First core.Offset `json:"first"`
	End   core.Offset `json:"end"`
	Files int         `json:"files"`
	Bytes int64       `json:"bytes"`
	// Copied are the bytes that came from the broker, Linked those that the
	// backup before had.
	Copied *int64 `json:"copied,omitempty"`
	Linked *int64 `json:"linked,omitempty"`
}

func summaryOf(dir string, m *backup.Manifest) backupSummary {
	return backupSummary{Dir: dir, Time: m.Time, First: m.First, End: m.End, Files: len(m.Files), Bytes: m.Bytes()}
}

func newBackup() *cobra.Command {
	var a administering
	c := a.outputFlag(&cobra.Command{
		Use:   "backup FOLDER",
		Short: "Copy the log of a running broker",
		Long: `Copies the log and the state of a running broker into a new directory of FOLDER,
named by the time: all that was confirmed when it began, in one consistent
state. What the newest backup there has already is not sent again; its files get
a second name. Each backup is whole by itself, so that any can be removed.

Where the broker has users, it takes one who may manage $SYS/backup.`,
		Example: `  sluice backup /backups/sluice
  sluice backup /backups/sluice -b https://broker.example:8443 -u operator
  sluice backup verify /backups/sluice
  sluice restore /backups/sluice /var/lib/sluice`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return a.backup(c, args[0]) },
	})
	a.via = "http"
	a.flags(c.Flags(), false)

	verify := &cobra.Command{
		Use:   "verify BACKUP",
		Short: "Compare a backup with its checksums",
		Long: `Reads every file of a backup and compares it with the checksum that it had when
it was made. BACKUP is one backup's directory, or a folder of them, of which the
newest is taken; with --all, every one.`,
		Args: usageArgs(cobra.ExactArgs(1)),
	}
	var all bool
	verify.Flags().BoolVar(&all, "all", false, "every backup in the folder")
	a.outputFlag(verify)
	verify.RunE = func(c *cobra.Command, args []string) error {
		dirs, err := chooseBackups(args[0], all)
		if err != nil {
			return err
		}
		var done []backupSummary
		var bad []error
		for _, dir := range dirs {
			bar := newBar(c.ErrOrStderr(), "verifying "+filepath.Base(dir))
			m, err := backup.Verify(vfs.OS{}, dir, bar.plan, bar.add)
			bar.end()
			if err != nil {
				bad = append(bad, err)
				continue
			}
			done = append(done, summaryOf(dir, m))
		}
		if len(done) > 0 {
			if err := a.showBackups(c.OutOrStdout(), done); err != nil {
				return err
			}
		}
		return errors.Join(bad...)
	}

	list := &cobra.Command{Use: "list FOLDER", Short: "List the backups in a folder", Args: usageArgs(cobra.ExactArgs(1))}
	a.outputFlag(list)
	list.RunE = func(c *cobra.Command, args []string) error {
		dirs, err := backup.List(vfs.OS{}, args[0])
		if err != nil {
			return err
		}
		all := []backupSummary{}
		var bad []error
		for _, dir := range dirs {
			m, err := backup.Open(vfs.OS{}, dir)
			if err != nil {
				bad = append(bad, err)
				continue
			}
			all = append(all, summaryOf(dir, m))
		}
		return errors.Join(append(bad, a.showBackups(c.OutOrStdout(), all))...)
	}
	c.AddCommand(verify, list)
	return c
}

// chooseBackups are the directories that an argument stands for.
func chooseBackups(at string, all bool) ([]string, error) {
	if all {
		dirs, err := backup.List(vfs.OS{}, at)
		if err == nil && len(dirs) == 0 {
			err = fmt.Errorf("%w: there is no backup in %s", core.ErrNotFound, at)
		}
		return dirs, err
	}
	dir, err := backup.Find(vfs.OS{}, at)
	return []string{dir}, err
}

// backup makes a backup of a running broker.
func (a *administering) backup(c *cobra.Command, folder string) (err error) {
	options, err := a.options()
	if err != nil {
		return err
	}
	if _, err := a.plainOutput(c.OutOrStdout()); err != nil {
		return err
	}
	ctx, stop := interruptible(c.Context())
	defer stop()
	f, err := backup.OpenFolder(vfs.OS{}, filepath.Clean(folder))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stream, err := link.NewHTTP(options).Stream(ctx, "POST", backupPath, f.Request())
	if err != nil {
		return err
	}
	defer stream.Close()
	bar := newBar(c.ErrOrStderr(), "copying")
	result, err := f.Receive(stream, bar.plan, bar.add)
	bar.end()
	if err != nil {
		return err
	}
	s := summaryOf(result.Dir, result.Manifest)
	s.Copied, s.Linked = &result.Copied, &result.Kept
	return a.show(c.OutOrStdout(), s, func(w io.Writer) {
		fmt.Fprintf(w, "backup\t%s\noffsets\t%d to %d\nfiles\t%d\nbytes\t%d\ncopied\t%d\nlinked\t%d\n", s.Dir, s.First, s.End, s.Files, s.Bytes, *s.Copied, *s.Linked)
	})
}

func (a *administering) showBackups(w io.Writer, all []backupSummary) error {
	return a.show(w, all, func(w io.Writer) {
		fmt.Fprintln(w, "BACKUP\tTIME\tFIRST\tEND\tFILES\tBYTES")
		for _, b := range all {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\n", b.Dir, b.Time.Format(time.RFC3339), b.First, b.End, b.Files, b.Bytes)
		}
	})
}

func newRestore() *cobra.Command {
	var a administering
	return a.outputFlag(&cobra.Command{
		Use:   "restore BACKUP DATA",
		Short: "Make a data directory of a backup",
		Long: `Writes a backup into DATA, which must be empty or missing, and compares what was
written with the backup's checksums. BACKUP is one backup's directory, or a
folder of them, of which the newest is taken. No broker opens DATA before the
restore has ended; one that was interrupted is begun again by the same command.

Offsets that the backed up broker may have given since are left out: the next
message's is 2^40 further on.`,
		Example: `  sluice restore /backups/sluice /var/lib/sluice
  sluice restore /backups/sluice/20261121T031500.000Z /var/lib/sluice`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			from, err := backup.Find(vfs.OS{}, filepath.Clean(args[0]))
			if err != nil {
				return err
			}
			bar := newBar(c.ErrOrStderr(), "restoring")
			m, err := backup.Restore(vfs.OS{}, from, filepath.Clean(args[1]), bar.plan, bar.add)
			bar.end()
			if err != nil {
				return err
			}
			s := summaryOf(from, m)
			return a.show(c.OutOrStdout(), s, func(w io.Writer) {
				fmt.Fprintf(w, "backup\t%s\noffsets\t%d to %d\nfiles\t%d\nbytes\t%d\n", s.Dir, s.First, s.End, s.Files, s.Bytes)
			})
		},
	})
}

// A bar shows people how far something is; others see nothing.
type bar struct {
	what string
	to   io.Writer
	bar  *progressbar.ProgressBar
}

func newBar(to io.Writer, what string) *bar { return &bar{what: what, to: to} }

// plan says how many bytes there will be.
func (b *bar) plan(bytes int64) {
	f, ok := b.to.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return
	}
	b.bar = progressbar.NewOptions64(bytes,
		progressbar.OptionSetWriter(b.to), progressbar.OptionSetDescription(b.what), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
}

func (b *bar) add(n int) {
	if b.bar != nil {
		b.bar.Add(n)
	}
}

func (b *bar) end() {
	if b.bar != nil {
		b.bar.Finish()
	}
}
