package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

func readAhead(f *os.File, at, n int64) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), at, n, unix.FADV_WILLNEED) })
	}
}
