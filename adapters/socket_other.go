//go:build !linux

package adapters

import "net"

// A socket would be a connection that can be parked; there is none here.
type socket struct{ net.Conn }

func (*socket) waits()       {}
func (*socket) park(*served) {}

// A poller would wait for them.
const hasPoller = false

type poller struct{}

func newPoller(*Server) (*poller, error) { return &poller{}, nil }

func (*poller) listen(l net.Listener) (net.Listener, error) { return l, nil }
func (*poller) start()                                      {}
func (*poller) close()                                      {}
