//go:build !linux

package vfs

import "os"

// A direct is nothing where there are no writes past the page cache.
type direct struct{}

func (direct) open(*os.File) *os.File { return nil }
func (direct) close()                 {}
func (direct) rest()                  {}
