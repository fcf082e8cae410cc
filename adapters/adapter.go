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

// A ConnServer serves connections of its protocol, whatever carries them. It is
// how a WebSocket carries MQTT and STOMP.
type ConnServer interface {
	// OpenConn begins to serve a connection, which may take as long as its
	// handshake. serve goes on with it: it is to be called once, by any
	// goroutine, closes the connection and returns when that has ended. ctx ends
	// when the server shuts down.
	//
	// They are two, as a handshake needs far more stack than an open connection
	// that waits: who opens one connection after the other has it already, and
	// the goroutine that serves one need never have it.
	OpenConn(ctx context.Context, c net.Conn) (serve func() error)
}
