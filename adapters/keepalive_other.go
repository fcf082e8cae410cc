//go:build !linux

package adapters

import "net"

// inheritOptions would set them on the listener; Go sets them on each connection.
func inheritOptions(*net.ListenConfig) {}
