package vfs

import (
	"io"
	"sync"
)

// An Op is one call that changes a file system.
type Op struct {
	Index int // from 1, in the order of the calls
	Kind  Kind
	Name  string
	Bytes int // of a write
}

// A Kind is what an Op does.
type Kind uint8

// The kinds of calls.
const (
	KindCreate Kind = iota
	KindRename
	KindLink
	KindRemove
	KindMkdir
	KindSyncDir
	KindWrite
	KindSync
	KindTruncate
)

// String is the kind's name.
func (k Kind) String() string {
	return [...]string{"create", "rename", "link", "remove", "mkdir", "syncdir", "write", "sync", "truncate"}[k]
}

// A Fault is how a call fails.
type Fault struct {
	Err error
	// Short is how many bytes of a write are written.
	Short int
	// Drop, of a sync, says that what was written since the last one never gets
	// to the disk, though it can be read and later syncs succeed: so the Linux
	// kernel does it where it cannot write. It takes a [Memory] below.
	Drop bool
}

// Faulty is another file system in which calls fail as Inject says. Inject is
// called before each Op, by one goroutine at a time; nil lets it pass.
type Faulty struct {
	FS
	Inject func(Op) *Fault
	// Read, where it is set, is likewise called before each read at a place of
	// a file; of its Fault only Err counts.
	Read func(name string, at int64) *Fault

	mu sync.Mutex // guards n, and that Inject or Read is called once at a time
	n  int
}

func (f *Faulty) op(kind Kind, name string, bytes int) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return f.Inject(Op{Index: f.n, Kind: kind, Name: name, Bytes: bytes})
}

func (f *Faulty) try(kind Kind, name string, do func() error) error {
	if fault := f.op(kind, name, 0); fault != nil {
		return fault.Err
	}
	return do()
}

// Create makes a file, or fails.
func (f *Faulty) Create(name string) (File, error) {
	if fault := f.op(KindCreate, name, 0); fault != nil {
		return nil, fault.Err
	}
	return f.wrap(name)(f.FS.Create(name))
}

// Open opens a file.
func (f *Faulty) Open(name string) (File, error) { return f.wrap(name)(f.FS.Open(name)) }

func (f *Faulty) wrap(name string) func(File, error) (File, error) {
	return func(file File, err error) (File, error) {
		if err != nil {
			return nil, err
		}
		return &faultyFile{file, f, name}, nil
	}
}

// Rename renames, or fails.
func (f *Faulty) Rename(from, to string) error {
	return f.try(KindRename, to, func() error { return f.FS.Rename(from, to) })
}

// Link links, or fails.
func (f *Faulty) Link(from, to string) error {
	return f.try(KindLink, to, func() error { return f.FS.Link(from, to) })
}

// Remove removes, or fails.
func (f *Faulty) Remove(name string) error {
	return f.try(KindRemove, name, func() error { return f.FS.Remove(name) })
}

// MkdirAll makes directories, or fails.
func (f *Faulty) MkdirAll(dir string) error {
	return f.try(KindMkdir, dir, func() error { return f.FS.MkdirAll(dir) })
}

// SyncDir syncs, or fails.
func (f *Faulty) SyncDir(dir string) error {
	return f.try(KindSyncDir, dir, func() error { return f.FS.SyncDir(dir) })
}

// Lock takes a lock.
func (f *Faulty) Lock(name string) (io.Closer, error) { return f.FS.Lock(name) }

type faultyFile struct {
	File
	f    *Faulty
	name string
}

func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) { return f.write(f.File.WriteAt, b, at) }

func (f *faultyFile) WriteDirect(b []byte, at int64) (int, error) {
	return f.write(f.File.WriteDirect, b, at)
}

func (f *faultyFile) write(do func(b []byte, at int64) (int, error), b []byte, at int64) (int, error) {
	if fault := f.f.op(KindWrite, f.name, len(b)); fault != nil {
		n := min(fault.Short, len(b))
		if n > 0 {
			if n, err := f.File.WriteAt(b[:n], at); err != nil {
				return n, err
			}
		}
		return n, fault.Err
	}
	return do(b, at)
}

func (f *faultyFile) ReadAt(b []byte, at int64) (int, error) {
	if f.f.Read != nil {
		f.f.mu.Lock()
		fault := f.f.Read(f.name, at)
		f.f.mu.Unlock()
		if fault != nil {
			return 0, fault.Err
		}
	}
	return f.File.ReadAt(b, at)
}

func (f *faultyFile) Sync() error { return f.sync(f.File.Sync) }

func (f *faultyFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *faultyFile) sync(do func() error) error {
	fault := f.f.op(KindSync, f.name, 0)
	if fault == nil {
		return do()
	}
	if m, ok := f.File.(*memoryFile); ok && fault.Drop {
		m.drop()
	}
	return fault.Err
}

func (f *faultyFile) Truncate(size int64) error {
	return f.f.try(KindTruncate, f.name, func() error { return f.File.Truncate(size) })
}
