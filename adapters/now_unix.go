//go:build unix && (!linux || race)

package adapters

import "syscall"

// ReadNow is read(2) of a socket that does not block, and errors are of
// [syscall.Errno]. The race detector learns from it what comes before what.
func ReadNow(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

// writeNow is write(2) likewise.
func writeNow(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
