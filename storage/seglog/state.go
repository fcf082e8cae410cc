package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"

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

const (
	stateMemtable = 4 << 20
	stateCache    = 8 << 20
)

// A state is the view of the state changes in the log, kept in Pebble. It is
// written only after the commit that it belongs to is durable in the log, so it
// never says what the log does not, and its own log is not synced: what a crash
// takes of it is applied again from the log.
type state struct {
	db      *pebble.DB
	cache   *pebble.Cache
	applied uint64      // the newest commit applied; the committer's own
	next    core.Offset // the offset behind it
	value   [16]byte
	shield  *shield
	work    chan func() error // to the goroutine that writes to Pebble
	done    chan error        // from it
	ended   chan struct{}     // closed when it has ended
}

// openState opens the view in a directory. A view that cannot be read is
// core.ErrStorage.
func openState(dir string, fs vfs.FS, log *slog.Logger) (*state, error) {
	s := &state{
		shield: newShield(pebbleFS(fs)),
		cache:  pebble.NewCache(stateCache),
		work:   make(chan func() error),
		done:   make(chan error, 1),
		ended:  make(chan struct{}),
	}
	o := &pebble.Options{
		Cache:                       s.cache,
		FS:                          s.shield,
		MemTableSize:                stateMemtable,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                64,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      stateLogger{log, s.shield},
	}
	o.EnsureDefaults()
	err := s.shield.wait(func() (err error) {
		s.db, err = pebble.Open(dir, o)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: opening the state: %w", core.ErrStorage, err), s.shield.release())
	}
	go func() {
		defer close(s.ended)
		for do := range s.work {
			s.done <- do()
		}
	}()
	v, err := s.get(appliedKey)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	if len(v) == 16 {
		s.applied = binary.LittleEndian.Uint64(v)
		s.next = core.Offset(binary.LittleEndian.Uint64(v[8:]))
	}
	return s, nil
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
		binary.LittleEndian.PutUint64(s.value[:], commit)
		binary.LittleEndian.PutUint64(s.value[8:], uint64(next))
		err = b.Set(appliedKey, s.value[:], nil)
	}
	if err == nil {
		err = s.do(func() error { return b.Commit(pebble.NoSync) })
	}
	if err != nil {
		return fmt.Errorf("%w: applying commit %d to the state: %w", core.ErrStorage, commit, err)
	}
	s.applied, s.next = commit, next
	return nil
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
		return nil, fmt.Errorf("%w: reading the state: %w", core.ErrStorage, err)
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

// State implements core.Engine. A failure to read ends the sequence, and is
// logged.
func (l *Log) State(prefix, from string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		lower := append([]byte{statePrefix}, max(prefix, from)...)
		it, err := l.state.db.NewIter(&pebble.IterOptions{
			LowerBound: lower,
			UpperBound: prefixEnd(append([]byte{statePrefix}, prefix...)),
		})
		if err != nil {
			l.log.Error("state cannot be read", "prefix", prefix, "err", err)
			return
		}
		for ok := it.First(); ok; ok = it.Next() {
			v, err := it.ValueAndErr()
			if err != nil {
				break
			}
			if !yield(string(it.Key()[1:]), v) {
				break
			}
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			l.log.Error("state cannot be read", "prefix", prefix, "err", err)
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
