//go:build unix

package main

import "golang.org/x/sys/unix"

// diskSpace is what is free for the process on a folder's file system, and its
// size; zeros where that is not known.
func diskSpace(dir string) (free, total uint64) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0
	}
	return uint64(s.Bavail) * uint64(s.Bsize), uint64(s.Blocks) * uint64(s.Bsize) // signed on some systems
}
