package seglog

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/storage/vfs"
)

// A slowFS takes its time to read segments.
type slowFS struct {
	vfs.FS
	took time.Duration
}

func (s slowFS) Open(name string) (vfs.File, error) {
	f, err := s.FS.Open(name)
	if err == nil && strings.HasSuffix(name, segmentSuffix) && strings.Contains(name, "/log/") {
		f = slowFile{f, s.took}
	}
	return f, err
}

type slowFile struct {
	vfs.File
	took time.Duration
}

func (f slowFile) ReadAt(b []byte, at int64) (int, error) {
	time.Sleep(f.took)
	return f.File.ReadAt(b, at)
}

// A recovery that takes longer than a second says each second how far it is; one
// that does not says nothing.
func TestRecoveryTellsItsProgress(t *testing.T) {
	s := newSpecimen(t, false)
	for _, name := range []string{"0000000000000001.index", "0000000000000002.index"} {
		if err := s.fs.Remove("/data/log/" + name); err != nil {
			t.Fatal(err)
		}
	}
	for _, took := range []time.Duration{time.Millisecond, 700 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			l := &Log{fs: slowFS{s.fs.Crash(vfs.CrashKind), took}, dir: "/data/log", log: slog.New(slog.DiscardHandler)}
			var said bytes.Buffer
			stop := l.progress.Tell(slog.New(slog.NewTextHandler(&said, nil)), "log is being recovered")
			if _, err := l.survey(); err != nil {
				t.Fatal(err)
			}
			if err := newRecovery(l).run(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got := l.progress.Percent(); got < 95 {
				t.Errorf("it ended at %d%%", got)
			}
			stop()
			lines := regexp.MustCompile(`step="reading the log" percent=(\d+)`).FindAllStringSubmatch(said.String(), -1)
			if took < time.Second/2 {
				if said.Len() > 0 {
					t.Errorf("it said %s", said.String())
				}
				return
			}
			if len(lines) < 2 || lines[0][1] == lines[len(lines)-1][1] {
				t.Errorf("it said %s", said.String())
			}
		})
	}
}
