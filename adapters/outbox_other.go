//go:build !unix

package adapters

import "syscall"

// writeSome would write as much as a socket takes at once.
func writeSome(syscall.Conn, []byte) int { return 0 }
