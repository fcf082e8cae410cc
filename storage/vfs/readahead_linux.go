package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// readAheadBytes is how much the kernel is asked for at once: of more it begins
// only what the disk takes as one piece.
const readAheadBytes = 512 << 10

func readAhead(f *os.File, at, n int64) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for end := at + n; at < end; at += readAheadBytes {
			_ = unix.Fadvise(int(fd), at, min(end-at, readAheadBytes), unix.FADV_WILLNEED)
		}
	})
}
