package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// quarantineDir, in the data directory, gets a copy of bytes that are damaged.
const quarantineDir = "quarantine"

// Mend mends what Examine finds in a data directory, and says what it did. No
// bytes of the log are given up: those that are damaged stay where they are, or
// are copied before they are written over. What is beyond that must be named in
// discard, as the finding's Discard says it. It blocks for the disk, and fails
// where Examine does.
func Mend(ctx context.Context, o Options, discard []string, p Progress) (done []string, err error) {
	x, err := newExaminer(o, p)
	finished := false
	if err == nil {
		if finished, err = finishSwap(x.log.o.FS, o.Dir); err == nil {
			err = x.run(ctx)
		}
	}
	if finished {
		done = append(done, stateDirName+": the mending that was interrupted is finished")
	}
	if err != nil {
		if x != nil {
			err = errors.Join(err, x.log.abandon())
		}
		return done, fmt.Errorf("examining %s: %w", o.Dir, err)
	}
	for _, d := range discard {
		if !slices.ContainsFunc(x.Findings, func(f Finding) bool { return f.Discard == d }) {
			return nil, errors.Join(fmt.Errorf("%w: there is nothing to discard that is called %q", core.ErrInvalid, d), x.log.abandon())
		}
	}
	if x.Healthy() {
		return done, x.log.abandon()
	}
	m := mender{examiner: x, fs: x.log.o.FS, done: done}
	err = m.files(ctx, discard)
	// The lock is let go of for the log to be opened.
	if err = errors.Join(err, x.log.abandon()); err == nil {
		err = m.open(ctx, o)
	}
	if err != nil {
		return m.done, fmt.Errorf("mending %s: %w", o.Dir, err)
	}
	return m.done, nil
}

// A mender is one run of Mend.
type mender struct {
	*examiner
	fs   vfs.FS
	done []string
	// holed are the names of segments that have a hole, which their indexes are
	// to account for.
	holed []string
	stop  bool // the log cannot be opened
}

func (m *mender) did(format string, args ...any) {
	m.done = append(m.done, fmt.Sprintf(format, args...))
}

// files mends the files, before the log is opened.
func (m *mender) files(ctx context.Context, discard []string) error {
	l := m.log
	written := slices.Index(l.segments, m.lastWritten())
	for i, s := range l.segments {
		name := path.Join(logDir, s.name)
		holed := false
		for _, f := range m.Findings {
			if f.File != name || f.Severity == Note {
				continue
			}
			switch {
			case f.At == f.To && f.At < segmentHeaderSize:
				if err := m.putSegmentAside(s, i > written); err != nil {
					return err
				}
			case s.headerDamage != nil && f.At < segmentHeaderUsed:
				if err := m.rewrite(s, f, s.encode()[:segmentHeaderSize], 0); err != nil {
					return err
				}
				m.did("%s: header written anew", name)
			case slices.Contains(m.unended, f):
				if err := m.end(s, f); err != nil {
					return err
				}
			case slices.Contains(m.pads, f):
				if err := m.rewrite(s, f, make([]byte, f.To-f.At), f.At); err != nil {
					return err
				}
				m.did("%s: bytes %d to %d set to zero", name, f.At, f.To)
			case s.span.size == segmentHeaderSize:
				// Nothing in it can be read but the header.
				if err := m.putSegmentAside(s, i > written); err != nil {
					return err
				}
			default:
				if err := m.quarantine(s, f); err != nil {
					return err
				}
				holed = true
			}
		}
		if holed {
			m.holed = append(m.holed, s.name)
		}
		bad := slices.ContainsFunc(m.Findings, func(f Finding) bool {
			return f.File == path.Join(logDir, indexName(s.name)) && f.Severity != Note
		})
		if bad || holed {
			if err := m.fs.Remove(path.Join(l.dir, indexName(s.name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			m.did("%s: index built again", name)
		}
	}
	return m.mendState(ctx, discard)
}

// putSegmentAside takes away a file in which there is no frame.
func (m *mender) putSegmentAside(s *segment, unused bool) error {
	name := path.Join(m.log.dir, s.name)
	if unused {
		err := m.fs.Remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		m.did("%s: removed, nothing had been written to it", path.Join(logDir, s.name))
		return err
	}
	err := m.fs.Rename(name, name+badSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // for another finding
	}
	m.did("%s: put aside as %s", path.Join(logDir, s.name), s.name+badSuffix)
	return err
}

// end writes the last frame of a copied segment anew: it ends where the log goes
// on behind it. If that is further than its last record, what is missing is lost,
// and the frame does not follow the one before directly, which says so.
func (m *mender) end(s *segment, f Finding) error {
	h := frameHeader{generation: s.generation, commit: s.span.lastCommit, base: s.span.next, time: s.span.lastTime, flags: flagClosed}
	var with []byte
	for _, l := range m.recovery.losses {
		behind := slices.Index(m.log.segments, l.at) - 1
		if l.before == s || l.front && behind >= 0 && m.log.segments[behind] == s && l.gap.From == s.span.next {
			h.commit, h.base = max(h.commit, l.last), max(h.base, l.gap.To)
			with = make([]byte, frameAlign)
		}
	}
	var p packer
	if err := m.rewrite(s, f, p.appendFrame(with, &h, nil, false), f.At); err != nil {
		return err
	}
	m.did("%s: last frame written anew", f.File)
	if err := m.fs.Remove(path.Join(m.log.dir, indexName(s.name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// rewrite writes bytes over others of a segment, after copying them.
func (m *mender) rewrite(s *segment, f Finding, with []byte, at int64) error {
	if err := m.copy(s, f.At, f.To); err != nil {
		return err
	}
	file, err := m.fs.Open(path.Join(m.log.dir, s.name))
	if err != nil {
		return err
	}
	_, err = file.WriteAt(with, at)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// quarantine copies damaged bytes of a segment. They stay there, too: a frame
// that is none is never read.
func (m *mender) quarantine(s *segment, f Finding) error {
	if f.At < f.To {
		if err := m.copy(s, f.At, f.To); err != nil {
			return err
		}
		m.did("%s: bytes %d to %d copied to %s", f.File, f.At, f.To, quarantineDir)
	}
	if f.First < f.End {
		m.did("%s: offsets %d to %d noted as lost", f.File, f.First, f.End-1)
	}
	return nil
}

func quarantineName(s *segment, f Finding) string {
	return fmt.Sprintf("%s.%016x.%d-%d", s.name, s.generation, f.At, f.To)
}

func (m *mender) copy(s *segment, at, to int64) error {
	dir := path.Join(m.log.o.Dir, quarantineDir)
	if err := m.fs.MkdirAll(dir); err != nil {
		return err
	}
	name := path.Join(dir, quarantineName(s, Finding{At: at, To: to}))
	if _, err := m.fs.Stat(name); err == nil {
		return nil // another run has done it
	}
	content := make([]byte, to-at)
	n, err := readFull(s.file, content, at)
	if err != nil {
		return err
	}
	if err := writeFile(m.fs, name, content[:n]); err != nil {
		return err
	}
	return m.fs.SyncDir(m.log.o.Dir)
}

// mendState makes a state that can be opened, where the log cannot and it was
// said that it may.
func (m *mender) mendState(ctx context.Context, discard []string) error {
	if m.stateDamage == nil {
		return nil
	}
	if m.whole {
		// A table's damage may show itself only later; it is made anew now.
		if err := m.putAside(); err != nil {
			return err
		}
		m.did("%s: made again of the log; the old files are put aside", stateDirName)
		return nil
	}
	if !slices.Contains(discard, stateDirName) {
		m.stop = true
		return nil
	}
	return m.salvage(ctx)
}

// putAside moves the state's files aside, for which the directory is opened to
// be written.
func (m *mender) putAside() error {
	l := &Log{o: m.log.o, fs: m.fs, dir: m.log.dir, log: m.log.log}
	if s := m.log.state; s != nil {
		m.log.state = nil
		if err := s.close(); err != nil {
			return err
		}
	}
	return l.putStateAside()
}

// open opens the log, which brings the rest in order, and closes it again.
func (m *mender) open(ctx context.Context, o Options) error {
	if m.stop {
		return nil
	}
	l, err := Open(ctx, o)
	if err != nil {
		return err
	}
	err = m.settle(ctx, l)
	return errors.Join(err, l.Close(context.WithoutCancel(ctx)))
}

func (m *mender) settle(ctx context.Context, l *Log) error {
	if slices.Contains(m.holed, l.active().name) {
		if err := l.request(ctx, l.seal); err != nil {
			return err
		}
	}
	segments := l.segmentsNow()
	for _, s := range segments[:len(segments)-1] {
		if err := l.ensureIndex(s); err != nil {
			return err
		}
	}
	for _, f := range m.recovery.lostFiles() {
		if f.loss != nil {
			m.did("%s: noted as lost in %s", path.Join(logDir, f.files()), f.name()+badSuffix)
		}
	}
	for _, name := range m.bad {
		m.did("%s: put aside as %s", path.Join(logDir, name), name+badSuffix)
	}
	return nil
}
