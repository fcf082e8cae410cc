//go:build unix

package main

import "golang.org/x/sys/unix"

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
