package seglog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A Snapshot is the log at one moment, as files that together are a data
// directory: the segments up to the last offset that was durable, their
// indexes, and the state. The log goes on meanwhile; what it frees that the
// snapshot has stays on the disk until Close.
type Snapshot struct {
	// Time is when it was taken, First and End are the log's bounds then.
	Time       time.Time
	First, End core.Offset
	// Files in the order of their names.
	Files []SnapshotFile

	log      *Log
	segments []*segment
	dir      string // where the state's files are until Close
}

// A SnapshotFile is one file of a snapshot.
type SnapshotFile struct {
	// Name is slash-separated, below the data directory.
	Name string
	Size int64
	// ID names the content: two files of the same name and ID, in whatever
	// snapshots of whatever logs, are the same. It is empty where only the
	// content itself says so.
	ID string

	segment *segment // whose file it is
	data    []byte   // or the content, mapped
	path    string   // or where it is
}

const (
	// snapshotPrefix begins the names of directories that hold the state's
	// files for a snapshot. Those of a former process are removed.
	snapshotPrefix = "snapshot-"
	logDir         = "log"
	stateDirName   = "state"
)

// Snapshot takes a snapshot. It blocks for the disk, but appends go on but for
// one sync. It must be closed before the log is.
func (l *Log) Snapshot(ctx context.Context) (_ *Snapshot, err error) {
	// Nothing is freed between the state and the segments that it goes with:
	// what the log holds beyond the state is applied when it is opened.
	l.reclaim.Lock()
	defer l.reclaim.Unlock()
	var name [8]byte
	rand.Read(name[:])
	s := &Snapshot{Time: time.Now().UTC(), log: l, dir: path.Join(l.o.Dir, snapshotPrefix+hex.EncodeToString(name[:]))}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := l.state.checkpoint(s.dir); err != nil {
		return nil, err
	}
	if err := l.request(ctx, func() error { return l.capture(s) }); err != nil {
		return nil, err
	}
	if err := s.addAsides(); err != nil {
		return nil, err
	}
	if err := s.addState(); err != nil {
		return nil, err
	}
	slices.SortFunc(s.Files, func(a, b SnapshotFile) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}

// checkpoint writes the state as it is into a directory that is not there yet.
func (s *state) checkpoint(dir string) error {
	err := s.shield.wait(func() error { return s.db.Checkpoint(dir, pebble.WithFlushedWAL()) })
	if err != nil {
		return fmt.Errorf("%w: copying the state: %w", core.ErrStorage, err)
	}
	return nil
}

// capture takes the segments, between two commits and with everything durable.
func (l *Log) capture(s *Snapshot) error {
	if err := l.sync(); err != nil {
		return err
	}
	s.First, s.End = l.Bounds()
	l.mu.RLock()
	defer l.mu.RUnlock()
	s.segments = slices.Clone(l.segments)
	for _, g := range s.segments {
		g.enter()
		g.snapshots.Add(1)
		v := g.view()
		s.Files = append(s.Files, SnapshotFile{
			Name: path.Join(logDir, g.name), Size: v.size,
			ID: fmt.Sprintf("%016x-%d", g.generation, v.size), segment: g,
		})
		if x := v.index; x != nil {
			// Its header's checksum covers that of the rest.
			s.Files = append(s.Files, SnapshotFile{
				Name: path.Join(logDir, indexName(g.name)), Size: int64(len(x.data)),
				ID: fmt.Sprintf("%016x-%x", g.generation, x.headerCRC), data: x.data,
			})
		}
	}
	return nil
}

// addAsides takes the files of segments that were put aside: that they are
// there tells lost records from removed ones.
func (s *Snapshot) addAsides() error {
	names, err := s.log.fs.List(s.log.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := parseSegmentName(strings.TrimSuffix(name, badSuffix)); !ok || !strings.HasSuffix(name, badSuffix) {
			continue
		}
		at := path.Join(s.log.dir, name)
		info, err := s.log.fs.Stat(at)
		if err != nil {
			return err
		}
		s.Files = append(s.Files, SnapshotFile{Name: path.Join(logDir, name), Size: info.Size, path: at})
	}
	return nil
}

func (s *Snapshot) addState() error {
	names, err := s.log.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		at := path.Join(s.dir, name)
		info, err := s.log.fs.Stat(at)
		if err != nil {
			return err
		}
		if info.Dir {
			return fmt.Errorf("%w: the state has a directory %s", core.ErrStorage, name)
		}
		s.Files = append(s.Files, SnapshotFile{Name: path.Join(stateDirName, name), Size: info.Size, path: at})
	}
	return nil
}

// Copy writes the content of a file of the snapshot to w. It blocks for both.
func (s *Snapshot) Copy(w io.Writer, f *SnapshotFile) (err error) {
	defer faults(faults(true))
	defer guard(&err)
	var from io.ReaderAt
	switch {
	case f.segment != nil:
		from = f.segment.file
	case f.data != nil:
		return copyAll(w, &sliceReader{f.data}, f.Size)
	default:
		file, err := s.log.fs.OpenRead(f.path)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	return copyAll(w, from, f.Size)
}

// A sliceReader reads bytes that are mapped.
type sliceReader struct{ b []byte }

func (r *sliceReader) ReadAt(b []byte, at int64) (int, error) { return copy(b, r.b[at:]), nil }

// snapshotChunk is how much of a file is read at once.
const snapshotChunk = 256 << 10

func copyAll(w io.Writer, from io.ReaderAt, size int64) error {
	buf := make([]byte, min(size, snapshotChunk))
	for at := int64(0); at < size; {
		n, err := from.ReadAt(buf[:min(size-at, snapshotChunk)], at)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// Close frees what the snapshot held.
func (s *Snapshot) Close() error {
	for _, g := range s.segments {
		g.snapshots.Add(-1)
		g.leave()
	}
	s.segments, s.Files = nil, nil
	return pebbleFS(s.log.fs).RemoveAll(s.dir)
}

// removeSnapshots removes what snapshots of a process that died left behind.
func (l *Log) removeSnapshots() error {
	names, err := l.fs.List(l.o.Dir)
	for _, name := range names {
		if strings.HasPrefix(name, snapshotPrefix) {
			err = errors.Join(err, pebbleFS(l.fs).RemoveAll(path.Join(l.o.Dir, name)))
		}
	}
	return err
}

// A restore writes a data directory from a backup. While it does, a file of the
// name RestoringName is there and the directory is not opened; when all of it
// is durable, RestoredName takes its place.
const (
	RestoringName = "RESTORING"
	RestoredName  = "RESTORED"
)

// ErrRestoring says that a data directory is being restored, or was to be.
var ErrRestoring = errors.New("a restore into this directory was not finished; run sluice restore again")

// restoreSkip is how many offsets are left out after a restore. The log that
// the backup was taken of went on, perhaps, and gave offsets that must never
// name other messages; 2^40 of them take it a month at full speed.
const restoreSkip = 1 << 40

// checkRestored says whether the directory was restored from a backup and has
// not been opened since. One that is still being restored is not opened.
func checkRestored(f vfs.FS, dir string) (restored bool, err error) {
	has := func(name string) bool {
		_, e := f.Stat(path.Join(dir, name))
		if e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		return e == nil
	}
	if has(RestoringName) {
		return false, ErrRestoring
	}
	return has(RestoredName), err
}
