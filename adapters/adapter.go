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
	"errors"
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
	// OpenConn takes a connection, of which nothing is read yet.
	OpenConn(c net.Conn) Conn
}

// A Conn is a connection that an adapter serves.
type Conn interface {
	// Serve goes on with the connection. It returns when that has ended and is
	// closed, with the reason why, nil where the peer took its leave; or when the
	// connection rests: when there is nothing to do for it until the peer sends
	// something, or its read deadline comes. Then Serve is to be called again, by
	// any goroutine, at the latest when that is so or the read deadline is set.
	//
	// So a connection that rests needs no goroutine, and one goroutine may serve
	// many that mostly rest, one after the other. Serve tells it by [Waits] before
	// it waits, or works for long. Where it does not, reading by the system calls
	// of [syscall.RawConn] does not wait either, and is [ErrRest].
	Serve() (rests bool, err error)
	// Stop has the connection say goodbye and end, as the server shuts down. Any
	// goroutine may call it. It does not block.
	Stop()
}

// ErrRest is what reading is where nothing has come, and the connection is to rest.
var ErrRest = errors.New("nothing has come")

// Waits says that who serves a connection is about to wait, or to work for long, so
// that others are served meanwhile, until the connection rests again. Any goroutine
// may call it, at any time. It does not block.
func Waits(c net.Conn) {
	if s, is := c.(*socket); is {
		s.waits()
	}
}

// ServeConn opens a connection and serves it until it has ended. It is stopped
// when ctx ends.
func ServeConn(ctx context.Context, s ConnServer, c net.Conn) error {
	conn := s.OpenConn(c)
	unhook := context.AfterFunc(ctx, conn.Stop)
	defer unhook()
	for {
		if rests, err := conn.Serve(); !rests {
			return err
		}
	}
}
