//go:build unix

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// raiseOpenFiles raises the soft limit of open files to the hard one, and
// returns what holds then.
func raiseOpenFiles() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	if r.Cur >= r.Max {
		return uint64(r.Cur), nil
	}
	before := r.Cur
	r.Cur = r.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return uint64(before), err
	}
	return uint64(r.Cur), nil
}

// makeRoomForFiles has the kernel make room for so many file descriptors at once,
// which take 8 bytes each there. Linux doubles their table otherwise while a
// connection is accepted, and makes a process that has threads wait then for as
// long as 20 ms. Where there is no room, nothing is lost but that time.
func makeRoomForFiles(n uint64) {
	if fd, err := unix.FcntlInt(uintptr(syscall.Stderr), unix.F_DUPFD_CLOEXEC, int(n)-1); err == nil {
		_ = unix.Close(fd)
	}
}
