package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync/atomic"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// ErrLocked says that somebody else holds a lock.
var ErrLocked = errors.New("locked by another process")

// OS is the operating system's file system.
type OS struct{}

var _ FS = OS{}

// Create opens a new file for reading and writing.
func (OS) Create(name string) (File, error) {
	// A file of that name may be open elsewhere, so it is replaced and not
	// emptied.
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			return &osFile{File: f}, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

// Open opens a file that exists for reading and writing.
func (OS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

// OpenRead opens a file that exists for reading.
func (OS) OpenRead(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f, readOnly: true}, nil
}

// Rename is rename(2).
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Link is link(2).
func (OS) Link(from, to string) error { return os.Link(from, to) }

// Remove removes a file or an empty directory.
func (OS) Remove(name string) error { return os.Remove(name) }

// MkdirAll makes a directory that only its owner may change.
func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o755) }

// List returns the names in a directory, sorted.
func (OS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

// Stat describes a file or directory.
func (OS) Stat(name string) (Info, error) {
	i, err := os.Stat(name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: i.Size(), Dir: i.IsDir()}, nil
}

// SyncDir is fsync(2) of a directory.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock is flock(2), which ends with the process.
func (OS) Lock(name string) (io.Closer, error) {
	l := flock.New(name)
	held, err := l.TryLock()
	if err != nil {
		return nil, err
	}
	if !held {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	return l, nil
}

// Space is statfs(2): what is free is what this user may use.
func (OS) Space(dir string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Space{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return Space{Free: uint64(s.Bavail) * uint64(s.Bsize), Total: uint64(s.Blocks) * uint64(s.Bsize)}, nil
}

type osFile struct {
	*os.File
	readOnly bool // the second opening would not be
	direct   direct
	// busy says that a large write came since the last sync, so that whoever syncs is
	// not alone.
	busy atomic.Bool
}

// largeWrite is from how many bytes on a write is a large one: some hundred small
// messages, which hardly come from one that waits for each.
const largeWrite = 32 << 10

// Close closes the file.
func (f *osFile) Close() error {
	f.direct.close()
	return f.File.Close()
}

func (f *osFile) ReadAhead(at, n int64) { readAhead(f.File, at, n) }

func (f *osFile) WriteAt(b []byte, at int64) (int, error) {
	if len(b) >= largeWrite {
		f.busy.Store(true)
	}
	return f.File.WriteAt(b, at)
}

func (f *osFile) WriteDirect(b []byte, at int64) (int, error) {
	f.busy.Store(true)
	if f.readOnly || !inPages(b) {
		return f.WriteAt(b, at)
	}
	if d := f.direct.open(f.File); d != nil {
		n, err := writeAsync(d, b, at)
		if err == errors.ErrUnsupported {
			var more int
			more, err = d.WriteAt(b[n:], at+int64(n))
			n += more
		} else if err != nil {
			err = &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
			return n, err
		}
		f.direct.close() // refused by this file system, or by this disk for its size of a block
	}
	return f.WriteAt(b, at)
}

func (f *osFile) EndDirect() { f.direct.rest() }

// SyncData is fdatasync(2). Behind a large write it is asynchronous, as syncAsync
// says; otherwise the thread waits, as the kernel's answer then comes by way of one of
// its own threads: on a machine that sleeps meanwhile, that is 50 us later or more.
func (f *osFile) SyncData() error {
	err := errors.ErrUnsupported
	if f.busy.Swap(false) {
		err = syncAsync(f.File)
	}
	if err == errors.ErrUnsupported {
		err = syncData(f.File)
	}
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func (f *osFile) Size() (int64, error) {
	i, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return i.Size(), nil
}

func (f *osFile) Map(size int) (Mapping, error) {
	if size == 0 {
		return Mapping{Unmap: func() {}, Forget: func() {}}, nil
	}
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return Mapping{}, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return Mapping{
		Data:   data,
		Unmap:  func() { _ = unix.Munmap(data) },
		Forget: func() { _ = unix.Madvise(data, unix.MADV_DONTNEED) },
	}, nil
}
