//go:build !amd64

package core

import "unsafe"

// prefetch is of use where it was measured.
func prefetch(unsafe.Pointer, uintptr) {}
