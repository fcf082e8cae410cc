// Package vfs is the file system as storage engines see it: small enough to be
// replaced whole.
//
//   - [OS] is the real one.
//   - [Memory] forgets: [Memory.Crash] is what would be left of it after a
//     power cut, where what was not synced is gone, or there in part, or there
//     out of order.
//   - [Faulty] wraps another one and fails where it is told to.
//
// The rules are POSIX's at their strictest. What was written is there after a
// crash only once File.Sync or File.SyncData has returned; a name that was
// created, renamed or removed is so only once SyncDir of its directory has
// returned. A rename is atomic. After an error of Sync nothing is known of what
// was written since the last one that succeeded.
package vfs

import (
	"io"
	"unsafe"
)

// An FS is a tree of files. Names are slash-separated paths. All methods may be
// called from several goroutines at once. Errors satisfy errors.Is with the
// values of io/fs and of syscall.
type FS interface {
	// Create makes an empty file and opens it for reading and writing. A file
	// that has the name already loses it, but goes on for who has it open.
	Create(name string) (File, error)
	// Open opens a file that exists for reading and writing.
	Open(name string) (File, error)
	// OpenRead opens a file that exists for reading.
	OpenRead(name string) (File, error)
	// Rename gives a file another name, in place of one that has it.
	Rename(from, to string) error
	// Link gives a file a second name.
	Link(from, to string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// MkdirAll makes a directory and those above it that are missing.
	MkdirAll(dir string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// Stat describes a file or directory.
	Stat(name string) (Info, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock takes a file, which it makes if need be, for this process and this
	// call alone, until the closer is closed. Where somebody has it, the error
	// is ErrLocked.
	Lock(name string) (io.Closer, error)
	// Space says how much room there is.
	Space(dir string) (Space, error)
}

// A File is an open file. ReadAt and WriteAt may be called from several
// goroutines at once.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// ReadAhead says that n bytes will soon be read, so that the disk brings them
	// meanwhile, where the operating system has such a thing. It may wait for the
	// disk to take that in, and not for the bytes.
	ReadAhead(at, n int64)
	// WriteDirect is WriteAt for what is large and not soon read again: where
	// that can be, it leaves no copy in the operating system's memory. Both at
	// and the length are multiples of [Page]. It costs least where the bytes
	// come from [MakePages]. As of WriteAt, nothing is durable before Sync. While
	// it runs, nobody else may write to the file.
	WriteDirect(b []byte, at int64) (int, error)
	// EndDirect gives back what the file keeps open for the next WriteDirect.
	EndDirect()
	// Sync makes the file's bytes and its size durable, and SyncData does,
	// without the times and other attributes.
	Sync() error
	SyncData() error
	Size() (int64, error)
	Truncate(size int64) error
	// Map returns the file's first size bytes to be read, as they are now.
	Map(size int) (Mapping, error)
}

// Page is what the operating system reads and writes at once, in bytes.
const Page = 4096

// MakePages makes a slice of so many pages, or a few more, that begins with one.
func MakePages(n int) []byte {
	b := make([]byte, (n+1)*Page)
	return b[-int(uintptr(unsafe.Pointer(&b[0])))&(Page-1):]
}

// inPages reports whether a slice begins with a page of memory.
func inPages(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Page == 0 }

// A Mapping is a part of a file that can be read like memory. Touching its data
// may fault (see runtime/debug.SetPanicOnFault) where the disk fails.
type Mapping struct {
	Data []byte
	// Unmap must be called when the data is not needed any more.
	Unmap func()
	// Forget gives back the memory that what was touched of the data takes,
	// until it is touched again. It may be called beside a reader.
	Forget func()
}

// Info describes a file.
type Info struct {
	Size int64
	Dir  bool
}

// Space is how much room a file system has, in bytes.
type Space struct{ Free, Total uint64 }
