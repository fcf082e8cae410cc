//go:build !race

package adapters

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
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

// epollNow is epoll_wait(2) that does not wait.
func epollNow(fd int, events []unix.EpollEvent) int {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}
