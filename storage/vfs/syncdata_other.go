//go:build !linux

package vfs

import "os"

// syncData syncs everything, where there is no call for less.
func syncData(f *os.File) error { return f.Sync() }
