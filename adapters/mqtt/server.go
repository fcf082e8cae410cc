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

	mu     sync.Mutex // guards what follows
	conns  map[string]*conn
	kept   map[string]*keptIDs // packet ids of sessions without a connection
	wills  map[string]*pendingWill
	closed bool
}

// packetOverhead is how much larger than its payload a packet may be.
const packetOverhead = 64 << 10

// protocol is the adapter's name in the core and in metrics.
const protocol = "mqtt"

// New makes a server.
func New(broker *core.Broker, o Options) *Server {
	return &Server{
		broker: broker, limits: o.Limits, gate: o.Gate, metrics: o.Metrics.Protocol(protocol), log: o.Logger.With("protocol", protocol),
		maxPacket: o.Limits.MessageBytes + packetOverhead,
		conns:     make(map[string]*conn), kept: make(map[string]*keptIDs), wills: make(map[string]*pendingWill),
	}
}

// ServeConn serves one connection and closes it. It returns why it ended, nil
// where the peer took its leave.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) error {
	s.metrics.Connections.Inc()
	defer s.metrics.Connections.Dec()
	return newConn(s, nc).serve(ctx)
}

// Close publishes the wills that still wait for their delay, so that none is
// lost, and waits until that is done. It is called after the last ServeConn
// has returned and before the broker is closed.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	wills := s.wills
	s.wills = nil
	s.mu.Unlock()
	for _, w := range wills {
		w.timer.Stop()
		w.publish(ctx)
	}
	return nil
}

// enter registers a connection under its client id. Another connection that has
// the id is ended first ([MQTT-3.1.4-3] of 5.0, [MQTT-3.1.4-2] of 3.1.1), unless
// it is another principal's: who knows a client id may not end others' sessions.
func (s *Server) enter(ctx context.Context, c *conn) error {
	for {
		s.mu.Lock()
		old := s.conns[c.id]
		if old == nil {
			s.conns[c.id] = c
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		if old.client.Principal().Name != c.client.Principal().Name {
			return errForeign
		}
		old.stop(errTakenOver)
		select {
		case <-old.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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

// A pendingWill waits for its delay to pass ([MQTT-3.1.3-9]).
type pendingWill struct {
	s        *Server
	id       string
	client   *core.Client
	envelope *core.Envelope
	timer    *time.Timer
}

// delayWill publishes a will later, unless a connection of the client id comes
// first. The client is closed then.
func (s *Server) delayWill(id string, client *core.Client, e *core.Envelope, delay time.Duration) {
	w := &pendingWill{s: s, id: id, client: client, envelope: e}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		w.publish(context.Background())
		return
	}
	old := s.wills[id]
	s.wills[id] = w
	w.timer = time.AfterFunc(delay, w.fire)
	s.mu.Unlock()
	if old != nil && old.timer.Stop() {
		old.publish(context.Background())
	}
}

func (w *pendingWill) fire() {
	w.s.mu.Lock()
	mine := w.s.wills[w.id] == w
	if mine {
		delete(w.s.wills, w.id)
	}
	w.s.mu.Unlock()
	if mine {
		w.publish(context.Background())
	}
}

func (w *pendingWill) publish(ctx context.Context) {
	w.s.publishWill(ctx, w.client, w.envelope)
	w.client.Close()
}

func (s *Server) publishWill(ctx context.Context, client *core.Client, e *core.Envelope) {
	if err := client.Publish(ctx, e, 0); err != nil {
		_, reason := reasonOf(err, typePuback)
		s.metrics.Refused(reason)
		s.log.Info("will refused", "err", err)
	}
}

// takeWill takes the will that waits for a client id. A connection that goes on
// with the session cancels it; one that begins anew ends the session, which is
// when the will is due at the latest.
func (s *Server) takeWill(id string, resumed bool) {
	s.mu.Lock()
	w := s.wills[id]
	delete(s.wills, id)
	s.mu.Unlock()
	if w == nil || !w.timer.Stop() {
		return
	}
	if resumed {
		w.client.Close()
		return
	}
	w.publish(context.Background())
}
