package seglog

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/sluicemq/sluice/storage/vfs"
)

// pebbleFS is a file system as Pebble wants it, so that what is done to the log
// in tests is done to the state as well. On the operating system's, Pebble has
// its own.
func pebbleFS(fs vfs.FS) pebblevfs.FS {
	if _, ok := fs.(vfs.OS); ok {
		return pebblevfs.Default
	}
	return stateFS{fs}
}

type stateFS struct{ fs vfs.FS }

var _ pebblevfs.FS = stateFS{}

func (s stateFS) Create(name string, _ pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return s.file(name)(s.fs.Create(name))
}

func (s stateFS) Open(name string, opts ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	f, err := s.file(name)(s.fs.OpenRead(name))
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

func (s stateFS) OpenReadWrite(name string, c pebblevfs.DiskWriteCategory, _ ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	f, err := s.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.Create(name, c)
	}
	return s.file(name)(f, err)
}

func (s stateFS) file(name string) func(vfs.File, error) (pebblevfs.File, error) {
	return func(f vfs.File, err error) (pebblevfs.File, error) {
		if err != nil {
			return nil, err
		}
		return &stateFile{File: f, name: name}, nil
	}
}

func (s stateFS) OpenDir(name string) (pebblevfs.File, error) {
	if _, err := s.fs.Stat(name); err != nil {
		return nil, err
	}
	return &stateFile{File: stateDir{s.fs, name}, name: name}, nil
}

func (s stateFS) Link(from, to string) error             { return s.fs.Link(from, to) }
func (s stateFS) Remove(name string) error               { return s.fs.Remove(name) }
func (s stateFS) Rename(from, to string) error           { return s.fs.Rename(from, to) }
func (s stateFS) MkdirAll(d string, _ os.FileMode) error { return s.fs.MkdirAll(d) }
func (s stateFS) Lock(name string) (io.Closer, error)    { return s.fs.Lock(name) }
func (s stateFS) List(dir string) ([]string, error)      { return s.fs.List(dir) }
func (s stateFS) PathBase(p string) string               { return path.Base(p) }
func (s stateFS) PathJoin(elem ...string) string         { return path.Join(elem...) }
func (s stateFS) PathDir(p string) string                { return path.Dir(p) }
func (s stateFS) Unwrap() pebblevfs.FS                   { return nil }

func (s stateFS) RemoveAll(name string) error {
	i, err := s.fs.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !i.Dir {
		return errors.Join(err, s.fs.Remove(name))
	}
	names, err := s.fs.List(name)
	for _, n := range names {
		err = errors.Join(err, s.RemoveAll(path.Join(name, n)))
	}
	return errors.Join(err, s.fs.Remove(name))
}

func (s stateFS) ReuseForWrite(from, to string, _ pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	if err := s.fs.Rename(from, to); err != nil {
		return nil, err
	}
	return s.file(to)(s.fs.Open(to))
}

func (s stateFS) Stat(name string) (pebblevfs.FileInfo, error) {
	i, err := s.fs.Stat(name)
	if err != nil {
		return nil, err
	}
	return stateInfo{i, path.Base(name)}, nil
}

func (s stateFS) GetDiskUsage(dir string) (pebblevfs.DiskUsage, error) {
	u, err := s.fs.Space(dir)
	return pebblevfs.DiskUsage{AvailBytes: u.Free, TotalBytes: u.Total, UsedBytes: u.Total - u.Free}, err
}

// A stateFile is a file that is read and written from its beginning on.
type stateFile struct {
	vfs.File
	name    string
	read    int64
	written int64
}

func (f *stateFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.read)
	f.read += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *stateFile) Write(b []byte) (int, error) {
	n, err := f.WriteAt(b, f.written)
	f.written += int64(n)
	return n, err
}

func (f *stateFile) Preallocate(int64, int64) error { return nil }
func (f *stateFile) SyncTo(int64) (bool, error)     { return false, nil }
func (f *stateFile) Prefetch(int64, int64) error    { return nil }
func (f *stateFile) Fd() uintptr                    { return pebblevfs.InvalidFd }

func (f *stateFile) Stat() (pebblevfs.FileInfo, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return stateInfo{vfs.Info{Size: size}, path.Base(f.name)}, nil
}

// A stateDir is a directory, which can be synced and nothing else.
type stateDir struct {
	fs   vfs.FS
	name string
}

var errDir = errors.New("is a directory")

func (d stateDir) Sync() error                            { return d.fs.SyncDir(d.name) }
func (d stateDir) SyncData() error                        { return d.fs.SyncDir(d.name) }
func (d stateDir) Close() error                           { return nil }
func (d stateDir) Size() (int64, error)                   { return 0, nil }
func (d stateDir) ReadAt([]byte, int64) (int, error)      { return 0, errDir }
func (d stateDir) ReadAhead(int64, int64)                 {}
func (d stateDir) WriteAt([]byte, int64) (int, error)     { return 0, errDir }
func (d stateDir) WriteDirect([]byte, int64) (int, error) { return 0, errDir }
func (d stateDir) EndDirect()                             {}
func (d stateDir) Truncate(int64) error                   { return errDir }
func (d stateDir) Map(int) (vfs.Mapping, error)           { return vfs.Mapping{}, errDir }

type stateInfo struct {
	vfs.Info
	name string
}

func (i stateInfo) Name() string                 { return i.name }
func (i stateInfo) Size() int64                  { return i.Info.Size }
func (i stateInfo) ModTime() time.Time           { return time.Time{} }
func (i stateInfo) IsDir() bool                  { return i.Dir }
func (i stateInfo) Sys() any                     { return nil }
func (i stateInfo) DeviceID() pebblevfs.DeviceID { return pebblevfs.DeviceID{} }

func (i stateInfo) Mode() os.FileMode {
	if i.Dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
