package bench

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the loop go past Go's scheduler: to it the loop's thread
// is always running, so no other thread is woken to take over when a call
// blocks, which would cost more than the call. A garbage collection may have to
// wait for a call to end, 10 ms at the most.

func epollWait(epoll int, events []unix.EpollEvent, milliseconds int) (n int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(milliseconds), 0, 0)
	return count(r, errno)
}

func read(fd int, b []byte) (n int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return count(r, errno)
}

func write(fd int, b []byte) (n int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return count(r, errno)
}

// await waits until a socket is ready for what is asked of it, POLLIN or POLLOUT,
// or broken. A signal may end it before.
func await(fd int, events int16, within time.Duration) error {
	p := unix.PollFd{Fd: int32(fd), Events: events}
	t := unix.NsecToTimespec(int64(within))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
	switch {
	case errno == unix.EINTR:
		return nil
	case errno != 0:
		return errno
	case n == 0:
		return os.ErrDeadlineExceeded
	}
	return nil
}

func count(r uintptr, errno unix.Errno) (int, unix.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// nap sleeps, to the microsecond if the thread's timer slack is small.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}
