package vfs

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeAsync is f.WriteAt, of a file opened with O_DIRECT, and syncAsync is
// fdatasync(2), by Linux's asynchronous I/O: no thread waits in a system call. Go
// has a thread look every few ten microseconds for others that do, to give what
// they keep of its processors to others, as long as any is found: a log that always
// writes has that cost as much as a tenth of what it does itself. Here Go's own
// poller is told when it is done. Where the operation could not be begun, as the
// kernel has none of that kind, or this process may have no more of it, the error is
// [errors.ErrUnsupported], and nothing was done. Any other error is the operation's
// own: a sync that has failed must not be tried again, as the kernel tells of what it
// could not write only once.
func writeAsync(f *os.File, b []byte, at int64) (int, error) {
	n := 0
	for {
		some, err := async(f, operation{code: opWrite, bytes: b[n:], at: at + int64(n)})
		n += some
		if err == unix.EINTR {
			continue // as WriteAt does
		}
		if err != nil || n == len(b) {
			return n, err
		}
		if some == 0 {
			return n, io.ErrUnexpectedEOF
		}
	}
}

func syncAsync(f *os.File) error {
	_, err := async(f, operation{code: opSyncData})
	return err
}

// An operation is IOCB_CMD_PWRITE or IOCB_CMD_FDSYNC of io_submit(2).
type operation struct {
	code  uint16
	bytes []byte
	at    int64
}

const (
	opWrite    = 1
	opSyncData = 3
)

// async carries out an operation on a file, which is not closed meanwhile.
func async(f *os.File, o operation) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	l, err := lanes.take()
	if err != nil {
		return 0, errors.ErrUnsupported
	}
	defer lanes.giveBack(l)
	if raw.Control(func(fd uintptr) { n, err = l.carryOut(fd, o) }) != nil {
		return 0, os.ErrClosed
	}
	return n, err
}

// A controlBlock is the kernel's struct iocb, and an event its struct io_event.
type controlBlock struct {
	_       uint64 // what the event has of it
	_       uint64
	code    uint16
	_       int16
	fd      uint32
	bytes   uint64
	length  uint64
	at      int64
	_       uint64
	flags   uint32
	eventFD uint32
}

type event struct {
	_, _   uint64
	result int64
	_      int64
}

// tellEventFD is IOCB_FLAG_RESFD: the end of it is signalled to an eventfd.
const tellEventFD = 1

// A lane carries one operation at a time: a context of the kernel's, and an eventfd
// that Go's poller knows. It is in the heap, as the kernel has its address.
type lane struct {
	context uintptr
	ends    *os.File
	fd      uint32 // of ends
	raw     syscall.RawConn

	bytes []byte // that are written: here they are in the heap, too, and stay there
	block controlBlock
	list  [1]*controlBlock // of block
	event event
	none  unix.Timespec
}

func openLane() (*lane, error) {
	l := new(lane)
	if _, e := l.look(0); e != unix.EINVAL { // which is that there is no context yet
		return nil, e // who confines this process lets it begin, perhaps, and not see the end
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	l.fd, l.ends = uint32(fd), os.NewFile(uintptr(fd), "eventfd")
	if l.raw, err = l.ends.SyscallConn(); err == nil {
		// The last, as to take it back takes tens of milliseconds.
		if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&l.context)), 0); e != 0 {
			err = e
		}
	}
	if err != nil {
		l.ends.Close()
		return nil, err
	}
	return l, nil
}

// carryOut blocks until the operation is done, or was not begun.
func (l *lane) carryOut(fd uintptr, o operation) (n int, err error) {
	l.bytes = o.bytes
	defer func() { l.bytes = nil }()
	l.block = controlBlock{
		code: o.code, fd: uint32(fd), bytes: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(l.bytes)))), length: uint64(len(l.bytes)), at: o.at,
		flags: tellEventFD, eventFD: l.fd,
	}
	submit := unix.Syscall // which may wait for what the disk has to do first
	if o.code == opSyncData {
		submit = unix.RawSyscall
	}
	// Not on the stack: Go knows of no pointer in what is called by a variable.
	l.list[0] = &l.block
	if _, _, e := submit(unix.SYS_IO_SUBMIT, l.context, 1, uintptr(unsafe.Pointer(&l.list))); e != 0 {
		return 0, errors.ErrUnsupported
	}
	if l.raw.Read(func(uintptr) bool { return l.ended() }) != nil {
		for !l.await() {
		}
	}
	if l.event.result < 0 {
		return 0, unix.Errno(-l.event.result)
	}
	return int(l.event.result), nil
}

// ended reports whether the event is there.
func (l *lane) ended() bool {
	n, e := l.look(1)
	return e == 0 && n == 1
}

// look asks for the event, or for none; it does not block.
func (l *lane) look(most uintptr) (uintptr, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, l.context, most, most, uintptr(unsafe.Pointer(&l.event)), uintptr(unsafe.Pointer(&l.none)), 0)
	return n, e
}

// await waits for the event, unless a signal interrupts it.
func (l *lane) await() bool {
	n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, l.context, 1, 1, uintptr(unsafe.Pointer(&l.event)), 0, 0)
	return e == 0 && n == 1
}

// freeLanes are those that carry nothing. There are never more lanes than there
// were operations at once.
type freeLanes struct {
	mu   sync.Mutex // guards free
	free []*lane
}

var lanes freeLanes

func (f *freeLanes) take() (*lane, error) {
	f.mu.Lock()
	if n := len(f.free); n > 0 {
		l := f.free[n-1]
		f.free = f.free[:n-1]
		f.mu.Unlock()
		return l, nil
	}
	f.mu.Unlock()
	return openLane()
}

func (f *freeLanes) giveBack(l *lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, l)
}
