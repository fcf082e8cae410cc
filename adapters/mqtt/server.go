package mqtt

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// Options of a Server. All fields are needed.
type Options struct {
	Limits  adapters.Limits
	Gate    *adapters.Gate
	Metrics *adapters.Metrics
	Logger  *slog.Logger
}

// A Server serves MQTT connections. It is an adapters.ConnServer.
type Server struct {
	broker  *core.Broker
	limits  adapters.Limits
	gate    *adapters.Gate
	metrics *adapters.ProtocolMetrics
	log     *slog.Logger
	// maxPacket is the largest packet that is taken after CONNECT.
	maxPacket int
	// bursts are the packets of QoS 0 that go to many subscribers.
	bursts adapters.Bursts

	mu    sync.Mutex // guards what follows
	conns map[string]*conn
	kept  map[string]*keptIDs // packet ids of sessions without a connection
}

// packetOverhead is how much larger than its payload a packet may be.
const packetOverhead = 64 << 10

// supersedeTime is how long what a client had sent on its former connection may
// take to be handled.
const supersedeTime = time.Second

// protocol is the adapter's name in the core and in metrics.
const protocol = "mqtt"

// New makes a server.
func New(broker *core.Broker, o Options) *Server {
	return &Server{
		broker: broker, limits: o.Limits, gate: o.Gate, metrics: o.Metrics.Protocol(protocol), log: o.Logger.With("protocol", protocol),
		maxPacket: o.Limits.MessageBytes + packetOverhead,
		conns:     make(map[string]*conn), kept: make(map[string]*keptIDs),
	}
}

// OpenConn takes a connection. It rests once CONNECT is answered, and whenever it
// was sent nothing but subscriptions and pings.
func (s *Server) OpenConn(nc net.Conn) adapters.Conn {
	s.metrics.Connections.Inc()
	return newConn(s, nc)
}

// enter registers a connection under its client id. Another connection that has
// the id is ended first ([MQTT-3.1.4-3] of 5.0, [MQTT-3.1.4-2] of 3.1.1): what the
// client sent on it before is handled, as far as that takes no longer than
// supersedeTime. Who comes meanwhile ends this one in turn, so the last of several
// stays. It is not ended if it is another principal's: who knows a client id may
// not end others' sessions. One that has not got the session yet is waited for
// then: it may be refused.
func (s *Server) enter(ctx context.Context, c *conn) error {
	for {
		s.mu.Lock()
		old := s.conns[c.id]
		same := old == nil || old.client.Principal().Name == c.client.Principal().Name
		has := old != nil && old.hasSession
		if same {
			s.conns[c.id] = c
		}
		s.mu.Unlock()
		switch {
		case old == nil:
			return nil
		case same:
			old.endFor(ctx)
			return ctx.Err()
		case has:
			return errForeign
		}
		select {
		case <-old.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endFor ends the connection for another one of its client, and returns when it
// has ended, also where ctx, the other one's, is over before: a third one waits for
// that one, and so for both.
func (c *conn) endFor(ctx context.Context) {
	c.supersede()
	select {
	case <-c.done:
		return
	case <-time.After(supersedeTime):
	case <-ctx.Done():
	}
	c.stop(errTakenOver)
	<-c.done
}

// opened notes that a connection has got its session.
func (s *Server) opened(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.hasSession = true
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.id] == c {
		delete(s.conns, c.id)
	}
}

// refused counts a refusal and returns it.
func (s *Server) refused(f *fault) *fault {
	s.metrics.Refused(f.reason)
	return f
}
