package seglog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/sluicemq/sluice/core"
)

// fullRetry is how long to wait before a write that found no room is tried
// again.
const fullRetry = 100 * time.Millisecond

// A shield stands between Pebble and its files. Pebble ends the process, on a
// goroutine of its own, when it cannot write; readers and consumers are to go
// on. So what fails never comes back to Pebble: its goroutine is stopped for
// good, and whoever waits for it learns it from failed. Where only room is
// lacking, it waits until there is some; but not while the log is being opened,
// for then somebody waits for that.
type shield struct {
	pebblevfs.FS
	closing chan struct{} // closed when nobody waits for room any more
	failed  chan struct{} // closed after err was set
	once    sync.Once
	err     error
	waiting atomic.Int32 // how many writes wait for room
	patient atomic.Bool  // they do: the log is open
	hidden  []string     // names that List leaves out; set before Pebble begins

	mu    sync.Mutex // guards locks
	locks []io.Closer
}

func newShield(fs pebblevfs.FS) *shield {
	return &shield{FS: fs, closing: make(chan struct{}), failed: make(chan struct{})}
}

// full says that a write waits for room.
func (s *shield) full() bool { return s.waiting.Load() > 0 }

// stop records why the state has failed and does not return.
func (s *shield) stop(err error) {
	s.once.Do(func() {
		s.err = fmt.Errorf("%w: the state: %w", core.ErrStorage, err)
		close(s.failed)
	})
	select {}
}

// wait runs what may be stopped and returns its error, or why it was.
func (s *shield) wait(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-s.failed:
		return s.err
	}
}

// release gives back the locks that Pebble cannot give back any more.
func (s *shield) release() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.locks {
		err = errors.Join(err, l.Close())
	}
	s.locks = nil
	return err
}

// change runs a call that changes files until it does not lack room. Names that
// are there or not are Pebble's to judge.
func (s *shield) change(do func() error) error {
	for {
		err := do()
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist):
			return err
		case isFull(err) && s.patient.Load():
			s.waiting.Add(1)
			select {
			case <-time.After(fullRetry):
				s.waiting.Add(-1)
				continue
			case <-s.closing:
			case <-s.failed:
			}
		}
		s.stop(err)
	}
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (s *shield) open(do func() (pebblevfs.File, error)) (f pebblevfs.File, err error) {
	err = s.change(func() (err error) { f, err = do(); return err })
	if err != nil {
		return nil, err
	}
	return &shieldedFile{f, s}, nil
}

func (s *shield) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return s.open(func() (pebblevfs.File, error) { return s.FS.Create(name, c) })
}

func (s *shield) OpenReadWrite(name string, c pebblevfs.DiskWriteCategory, o ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	return s.open(func() (pebblevfs.File, error) { return s.FS.OpenReadWrite(name, c, o...) })
}

func (s *shield) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return s.open(func() (pebblevfs.File, error) { return s.FS.ReuseForWrite(from, to, c) })
}

func (s *shield) OpenDir(name string) (pebblevfs.File, error) {
	return s.open(func() (pebblevfs.File, error) { return s.FS.OpenDir(name) })
}

func (s *shield) Link(from, to string) error {
	return s.change(func() error { return s.FS.Link(from, to) })
}

func (s *shield) Rename(from, to string) error {
	return s.change(func() error { return s.FS.Rename(from, to) })
}

func (s *shield) Remove(name string) error {
	return s.change(func() error { return s.FS.Remove(name) })
}

func (s *shield) RemoveAll(name string) error {
	return s.change(func() error { return s.FS.RemoveAll(name) })
}

func (s *shield) MkdirAll(dir string, mode os.FileMode) error {
	return s.change(func() error { return s.FS.MkdirAll(dir, mode) })
}

func (s *shield) Lock(name string) (io.Closer, error) {
	l, err := s.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	held := &heldLock{Closer: l}
	s.locks = append(s.locks, held)
	return held, nil
}

// A heldLock is given back by Pebble, or else by release: Pebble panics where it
// is done twice.
type heldLock struct {
	io.Closer
	once sync.Once
	err  error
}

func (l *heldLock) Close() error {
	l.once.Do(func() { l.err = l.Closer.Close() })
	return l.err
}

func (s *shield) List(dir string) ([]string, error) {
	names, err := s.FS.List(dir)
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(s.hidden, n) }), err
}

func (s *shield) Unwrap() pebblevfs.FS { return s.FS }

// A shieldedFile is a file that Pebble writes.
type shieldedFile struct {
	pebblevfs.File
	s *shield
}

// Preallocate does nothing: what little the state writes is not to take
// megabytes of the disk.
func (f *shieldedFile) Preallocate(int64, int64) error { return nil }

func (f *shieldedFile) Write(b []byte) (int, error) {
	n := 0
	err := f.s.change(func() error {
		k, err := f.File.Write(b[n:])
		n += k
		return err
	})
	return n, err
}

func (f *shieldedFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.s.change(func() error { n, err = f.File.WriteAt(b, at); return err })
	return n, err
}

// What could not be synced is never synced again, whatever the reason.

func (f *shieldedFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		f.s.stop(err)
	}
	return nil
}

func (f *shieldedFile) SyncData() error {
	if err := f.File.SyncData(); err != nil {
		f.s.stop(err)
	}
	return nil
}

func (f *shieldedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	if err != nil {
		f.s.stop(err)
	}
	return full, nil
}
