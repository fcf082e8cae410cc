package core

import "unsafe"

// prefetch has the processor fetch the n bytes at p, of which there is at least one,
// to be written. It does not wait, and whatever p is does no harm.
//
//go:noescape
func prefetch(p unsafe.Pointer, n uintptr)
