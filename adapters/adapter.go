// Package adapters holds what the protocol adapters share: their lifecycle, the
// listeners with TLS and limits per address, the table of limits, and the
// outbox that turns deliveries into few writes.
//
// An adapter is a folder beside this file. It translates between its protocol
// and core.Envelope, and decides nothing else: routing, redelivery and
// authorization are the core's.
package adapters

import (
	"context"
	"net"
)

// An Adapter is one protocol's door. The three steps come once each, in order.
type Adapter interface {
	// Start takes the sockets, so that a bad address fails first.
	Start(ctx context.Context) error
	// Serve accepts connections and returns when the last connection's last
	// goroutine has: after Close, or with the error that stopped it.
	Serve() error
	// Close stops accepting, says goodbye to the peers in the protocol's own
	// words, and cuts the connections that are left when ctx ends.
	Close(ctx context.Context) error
}

// A ConnServer serves one connection of its protocol, whatever carries it. It
// is how a WebSocket carries MQTT and STOMP. ServeConn closes the connection
// and returns when it has ended; ctx ends when the server shuts down.
type ConnServer interface {
	ServeConn(ctx context.Context, c net.Conn) error
}
