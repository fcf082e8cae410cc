// Package loopback finds addresses for processes that tests and benchmarks
// start and that have to know their addresses beforehand.
package loopback

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

// The ports lie below those that systems give to outgoing connections (on
// Linux from 32768 on), one of which could otherwise take a port between its
// choice and its use. Processes that run at the same time begin far apart.
const (
	firstPort = 10_000
	ports     = 20_000
)

var next atomic.Uint32

// FreeAddress is an address of this machine alone, host:port, on which nothing
// listens. No two calls of a process give the same one until all ports have had
// their turn. Anyone may call it.
func FreeAddress() (string, error) {
	next.CompareAndSwap(0, uint32(os.Getpid())*7919)
	for range ports {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+next.Add(1)%ports)
		if l, err := net.Listen("tcp4", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("loopback: no port is free")
}
