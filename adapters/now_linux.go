//go:build !race

package adapters

import (
	"syscall"
	"unsafe"
)

// ReadNow is read(2) of a socket that does not block, and errors are of
// [syscall.Errno]. Go's scheduler is not told of the call, which is over at once: to
// tell it costs more than a short read, and has it wake a thread that looks whether
// the call is over.
func ReadNow(fd int, b []byte) (int, error) { return now(syscall.SYS_READ, fd, b) }

// writeNow is write(2) likewise.
func writeNow(fd int, b []byte) (int, error) { return now(syscall.SYS_WRITE, fd, b) }

func now(call uintptr, fd int, b []byte) (int, error) {
	n, _, e := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}
