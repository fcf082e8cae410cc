//go:build !linux

package adapters

import "net"

// inheritKeepAlive would set TCP's keep-alive on the listener; Go sets it on each
// connection.
func inheritKeepAlive(*net.ListenConfig) {}
