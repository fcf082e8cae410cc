package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// Keys in Pebble: the log's own, and the core's behind a byte.
const (
	stateMeta   = 0x00
	statePrefix = 0x01
)

// appliedKey has the number of the newest commit whose changes are in the
// state, and the offset behind its records.
var appliedKey = []byte{stateMeta, 'a', 'p', 'p', 'l', 'i', 'e', 'd'}

// freedKey has the ranges of segments that retention has freed.
var freedKey = []byte{stateMeta, 'f', 'r', 'e', 'e', 'd'}

// witnessPrefix is that of the witnesses: numbered keys, one in each of the
// files that Pebble collects changes in. What Pebble has moved to its tables is
// known to its manifest alone, and a manifest that has lost its end is to Pebble
// one that never had it: the tables are gone, and only the witness that is then
// missing among the others says so.
var witnessPrefix = []byte{stateMeta, 'w'}

// maxWitnesses is how many are kept, the newest.
const maxWitnesses = 64

const (
	stateMemtable = 4 << 20
	stateCache    = 8 << 20
)

// A state is the view of the state changes in the log, kept in Pebble. It is
// written only after the commit that it belongs to is durable in the log, so it
// never says what the log does not, and its own log is not synced: what a crash
// takes of it is applied again from the log.
type state struct {
	dir     string
	db      *pebble.DB
	cache   *pebble.Cache
	applied uint64      // the newest commit applied; the committer's own
	next    core.Offset // the offset behind it
	freed   []freed     // as noted when it was opened
	noted   bool        // there is a note of what was freed
	value   [16]byte
	witness uint64      // the newest
	begun   atomic.Bool // Pebble has begun a file, which has no witness yet
	shield  *shield
	work    chan func() error // to the goroutine that writes to Pebble
	done    chan error        // from it
	ended   chan struct{}     // closed when it has ended
}

// openState opens the view in a directory, and begins one if there is none. A
// view that cannot be read is core.ErrStorage, and core.ErrCorrupt unless it is
// the disk's doing.
func openState(dir string, f vfs.FS, log *slog.Logger) (*state, error) {
	s := newState(dir, f)
	if err := s.open(stateOptions(log, s.shield)); err != nil {
		return nil, err
	}
	return s, nil
}

// viewState opens the view to be read only; nothing is written.
func viewState(dir string, f vfs.FS, log *slog.Logger) (*state, error) {
	s := newState(dir, f)
	o := stateOptions(log, s.shield)
	o.ReadOnly = true
	if err := s.open(o); err != nil {
		return nil, err
	}
	return s, nil
}

func newState(dir string, f vfs.FS) *state {
	return &state{
		dir:    dir,
		shield: newShield(pebbleFS(f)),
		cache:  pebble.NewCache(stateCache),
		work:   make(chan func() error),
		done:   make(chan error, 1),
		ended:  make(chan struct{}),
	}
}

func (s *state) open(o *pebble.Options) error {
	o.EventListener.WALCreated = func(pebble.WALCreateInfo) { s.begun.Store(true) }
	o.Cache, o.FS = s.cache, s.shield
	err := s.shield.wait(func() (err error) {
		defer recoverPebble(&err)
		if err := s.hideOptions(o); err != nil {
			return err
		}
		if s.db, err = pebble.Open(s.dir, o); err == nil && !o.ReadOnly {
			for _, name := range s.shield.hidden {
				err = errors.Join(err, s.shield.Remove(path.Join(s.dir, name)))
			}
		}
		return err
	})
	if err != nil {
		return errors.Join(s.failure(err), s.shield.release())
	}
	go func() {
		defer close(s.ended)
		for do := range s.work {
			s.done <- do()
		}
	}()
	if err := s.load(); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

// hideOptions hides from Pebble what it has written of its options, where that is
// damaged: it refuses to open then. It keeps them only to compare them with those
// that it is opened with, which are always the same, and writes them anew.
func (s *state) hideOptions(o *pebble.Options) error {
	names, err := s.shield.FS.List(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "OPTIONS-") {
			continue
		}
		f, err := s.shield.FS.Open(path.Join(s.dir, name))
		if err != nil {
			return err
		}
		b, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := o.CheckCompatibility(s.dir, string(b)); err != nil {
			o.Logger.Errorf("%s is damaged; it is not needed, and written anew: %v", name, err)
			s.shield.hidden = append(s.shield.hidden, name)
		}
	}
	return err
}

// stateOptions are Pebble's, but for where its files are.
func stateOptions(log *slog.Logger, sh *shield) *pebble.Options {
	o := &pebble.Options{
		MemTableSize:                stateMemtable,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                64,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      stateLogger{log, sh},
		EventListener: &pebble.EventListener{
			// Whoever reads gets the error.
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				log.Error("state is damaged", "file", i.Path, "err", i.Details)
			},
		},
	}
	o.EnsureDefaults()
	return o
}

// load reads how far the view has come.
func (s *state) load() error {
	if err := s.checkWitnesses(); err != nil {
		return err
	}
	v, err := s.get(freedKey)
	if s.noted = v != nil; err == nil {
		s.freed, err = parseFreed(v)
	}
	if err != nil {
		return s.failure(err)
	}
	v, err = s.get(appliedKey)
	if err != nil || v == nil {
		return err
	}
	if len(v) != 16 {
		return s.failure(fmt.Errorf("%w: how far it has come is %x", core.ErrCorrupt, v))
	}
	s.applied = binary.LittleEndian.Uint64(v)
	s.next = core.Offset(binary.LittleEndian.Uint64(v[8:]))
	return nil
}

// checkWitnesses looks for one that is missing.
func (s *state) checkWitnesses() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: witnessPrefix, UpperBound: prefixEnd(bytes.Clone(witnessPrefix))})
	if err != nil {
		return s.failure(err)
	}
	var first, count uint64
	for ok := it.First(); ok; ok = it.Next() {
		s.witness = binary.BigEndian.Uint64(it.Key()[len(witnessPrefix):])
		if count++; count == 1 {
			first = s.witness
		}
	}
	if want := min(s.witness, maxWitnesses); count != want || count > 0 && first != s.witness-want+1 {
		err = fmt.Errorf("%w: tables are missing: the last %d witnesses are not there, but %d from %d to %d", core.ErrCorrupt, want, count, first, s.witness)
	}
	return s.failure(errors.Join(err, it.Close()))
}

// failure is the error for what Pebble failed with.
func (s *state) failure(err error) error {
	if err == nil || errors.Is(err, core.ErrStorage) {
		return err
	}
	if errors.Is(err, pebble.ErrClosed) {
		return core.ErrClosed
	}
	if !errors.Is(err, core.ErrCorrupt) && !ofTheDisk(err) {
		err = fmt.Errorf("%w: %w", core.ErrCorrupt, err)
	}
	return fmt.Errorf("%w: reading the state in %s: %w", core.ErrStorage, s.dir, err)
}

// ofTheDisk says that an error is the operating system's, and not about what
// stands in a file. A file that is missing is about that.
func ofTheDisk(err error) bool {
	var number syscall.Errno
	return errors.As(err, &number) && !errors.Is(err, fs.ErrNotExist) || errors.Is(err, vfs.ErrLocked)
}

// recoverPebble makes an error of a panic of Pebble's about what it has read. It
// is deferred.
func recoverPebble(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", core.ErrCorrupt, p)
	}
}

// checkStateVersion refuses a view that a newer version wrote. It changes
// nothing.
func checkStateVersion(dir string, f vfs.FS) error {
	names, err := f.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "marker.format-version.") {
			continue
		}
		_, version, _ := strings.Cut(strings.TrimPrefix(name, "marker.format-version."), ".")
		if v, err := strconv.ParseUint(version, 10, 32); err == nil && v > uint64(pebble.FormatNewest) {
			return fmt.Errorf("%s: %w", path.Join(dir, name), errVersion{kind: "state", version: uint32(v), known: uint32(pebble.FormatNewest)})
		}
	}
	return err
}

// apply makes the changes of one commit, whose records begin at base and end
// before next.
func (s *state) apply(section []byte, commit uint64, base, next core.Offset) error {
	b := s.db.NewBatch()
	var key []byte
	err := eachChange(section, base,
		func(k, value []byte) error {
			key = append(append(key[:0], statePrefix), k...)
			return b.Set(key, value, nil)
		},
		func(k []byte) error {
			key = append(append(key[:0], statePrefix), k...)
			return b.Delete(key, nil)
		})
	if err == nil {
		err = s.commit(b, commit, next)
	}
	if err != nil {
		return fmt.Errorf("%w: applying commit %d to the state: %w", core.ErrStorage, commit, err)
	}
	return nil
}

// mark notes that the view has all up to a commit, also where that has no
// changes: the log may lack what comes before, and nothing behind it is missing
// unknown.
func (s *state) mark(commit uint64, next core.Offset) error {
	if commit <= s.applied {
		return nil
	}
	if err := s.commit(s.db.NewBatch(), commit, next); err != nil {
		return fmt.Errorf("%w: marking commit %d in the state: %w", core.ErrStorage, commit, err)
	}
	return nil
}

// note notes which segments were freed, and that the view has all up to a
// commit.
func (s *state) note(ranges []freed, commit uint64, next core.Offset) error {
	if commit < s.applied {
		commit, next = s.applied, s.next
	}
	b := s.db.NewBatch()
	err := b.Set(freedKey, encodeFreed(ranges), nil)
	if err == nil {
		err = s.commit(b, commit, next)
	}
	if err != nil {
		return fmt.Errorf("%w: noting freed segments in the state: %w", core.ErrStorage, err)
	}
	return nil
}

// commit writes a batch, which brings the view to a commit.
func (s *state) commit(b *pebble.Batch, commit uint64, next core.Offset) error {
	binary.LittleEndian.PutUint64(s.value[:], commit)
	binary.LittleEndian.PutUint64(s.value[8:], uint64(next))
	if err := b.Set(appliedKey, s.value[:], nil); err != nil {
		return err
	}
	for {
		if s.begun.Swap(false) {
			if err := s.addWitness(b); err != nil {
				return err
			}
		}
		if err := s.do(func() error { return b.Commit(pebble.NoSync) }); err != nil {
			return err
		}
		s.applied, s.next = commit, next
		if !s.begun.Load() {
			return nil
		}
		b = s.db.NewBatch()
	}
}

// addWitness adds the next witness to a batch.
func (s *state) addWitness(b *pebble.Batch) error {
	s.witness++
	key := func(n uint64) []byte { return binary.BigEndian.AppendUint64(bytes.Clone(witnessPrefix), n) }
	if s.witness > maxWitnesses {
		if err := b.Delete(key(s.witness-maxWitnesses), nil); err != nil {
			return err
		}
	}
	return b.Set(key(s.witness), nil, nil)
}

// do runs what writes to Pebble, which stops for good where it fails.
func (s *state) do(write func() error) error {
	select {
	case s.work <- write:
	case <-s.shield.failed:
		return s.shield.err
	}
	select {
	case err := <-s.done:
		return err
	case <-s.shield.failed:
		return s.shield.err
	}
}

// sync makes durable all that was applied. It may be called beside apply.
func (s *state) sync() error {
	if err := s.shield.wait(func() error { return s.db.LogData(nil, pebble.Sync) }); err != nil {
		return fmt.Errorf("%w: syncing the state: %w", core.ErrStorage, err)
	}
	return nil
}

func (s *state) get(key []byte) ([]byte, error) {
	v, c, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, s.failure(err)
	}
	own := make([]byte, len(v))
	copy(own, v)
	return own, c.Close()
}

func (s *state) close() error {
	close(s.work)
	close(s.shield.closing)
	err := s.shield.wait(func() error {
		<-s.ended
		return s.db.Close()
	})
	if err != nil {
		return errors.Join(fmt.Errorf("%w: closing the state: %w", core.ErrStorage, err), s.shield.release())
	}
	s.cache.Unref()
	return nil
}

// Get implements core.Engine.
func (l *Log) Get(key string) ([]byte, error) {
	var room [128]byte
	return l.state.get(append(append(room[:0], statePrefix), key...))
}

// State implements core.Engine.
func (l *Log) State(prefix, from string) iter.Seq2[core.Entry, error] {
	return func(yield func(core.Entry, error) bool) {
		fail := func(err error) { yield(core.Entry{}, l.state.failure(err)) }
		lower := append([]byte{statePrefix}, max(prefix, from)...)
		it, err := l.state.db.NewIter(&pebble.IterOptions{
			LowerBound: lower,
			UpperBound: prefixEnd(append([]byte{statePrefix}, prefix...)),
		})
		if err != nil {
			fail(err)
			return
		}
		for ok := it.First(); ok; ok = it.Next() {
			v, err := it.ValueAndErr()
			if err != nil {
				_ = it.Close()
				fail(err)
				return
			}
			if !yield(core.Entry{Key: string(it.Key()[1:]), Value: v}, nil) {
				_ = it.Close()
				return
			}
		}
		if err := it.Close(); err != nil {
			fail(err)
		}
	}
}

// prefixEnd is the first key behind those with a prefix, which it overwrites.
func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i]++; prefix[i] != 0 {
			return prefix[:i+1]
		}
	}
	return nil
}

// stateLogger hands on what Pebble has to say. Pebble asks it to end the process
// where something is beyond repair; the shield stops just Pebble.
type stateLogger struct {
	log    *slog.Logger
	shield *shield
}

func (l stateLogger) Infof(string, ...any) {}

func (l stateLogger) Errorf(format string, args ...any) {
	l.log.Error("state", "err", fmt.Sprintf(format, args...))
}

func (l stateLogger) Fatalf(format string, args ...any) {
	l.shield.stop(fmt.Errorf(format, args...))
}
