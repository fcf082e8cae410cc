package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	nethttp "net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// Options say how a Server serves.
type Options struct {
	Limits  adapters.Limits
	Gate    *adapters.Gate
	Metrics *adapters.Metrics
	Logger  *slog.Logger

	// Endpoints to listen on.
	Endpoints []adapters.Endpoint
	// Mount adds handlers of others at their exact paths, such as "/ws". They
	// stand behind the checks of Host and Origin.
	Mount map[string]nethttp.Handler
	// Origins are the origins of other sites that may use the broker, such as
	// "https://example.com"; "*" is every one.
	Origins []string
	// Hosts are the names that the broker may be called by, beside those of
	// the loopback and the address that a connection came to; "*" is every
	// one. A name may carry a port, which is not looked at.
	Hosts []string
}

// A Server is the HTTP door. It is an adapters.Adapter.
type Server struct {
	broker  *core.Broker
	options Options
	limits  adapters.Limits
	gate    *adapters.Gate
	metrics *adapters.ProtocolMetrics
	log     *slog.Logger
	guard   *guard
	mux     *chi.Mux
	http    nethttp.Server

	listeners []net.Listener
	stopping  context.Context // ends when Close begins
	stop      context.CancelFunc
	conns     sync.WaitGroup
	names     atomic.Uint64 // of connections, so far

	mu    sync.Mutex // guards peers
	peers map[net.Conn]*peer
}

// idle is how long a connection may wait for its next request.
const idle = 2 * time.Minute

// New makes a server of a broker.
func New(broker *core.Broker, o Options) *Server {
	s := &Server{
		broker: broker, options: o, limits: o.Limits, gate: o.Gate, metrics: o.Metrics.Protocol("http"),
		log: o.Logger.With("protocol", "http"), guard: newGuard(o.Hosts, o.Origins), peers: make(map[net.Conn]*peer),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.mux = s.routes()
	s.http = nethttp.Server{
		Handler:           nethttp.HandlerFunc(s.serve),
		ReadHeaderTimeout: o.Limits.Handshake,
		IdleTimeout:       min(idle, o.Limits.KeepAlive),
		MaxHeaderBytes:    o.Limits.HTTPHeaderBytes,
		ConnContext:       s.connected,
		ConnState:         s.changed,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s
}

// Start takes the sockets.
func (s *Server) Start(ctx context.Context) error {
	for _, e := range s.options.Endpoints {
		l, err := adapters.Listen(ctx, e, s.limits, s.gate)
		if err != nil {
			for _, l := range s.listeners {
				l.Close()
			}
			return fmt.Errorf("http: %w", err)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// Addrs are the addresses that Start took.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Serve accepts until Close, and returns when the last connection has ended.
// Connections that a mounted handler took over are that handler's.
func (s *Server) Serve() error {
	failed := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { failed <- s.http.Serve(l) }()
	}
	var first error
	for range s.listeners {
		if err := <-failed; !errors.Is(err, nethttp.ErrServerClosed) && first == nil {
			first = fmt.Errorf("http: %w", err)
			s.http.Close() // the other listeners end with it
		}
	}
	s.conns.Wait()
	return first
}

// Close stops accepting, ends streams and waits, lets requests be answered,
// and cuts what is left when ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.stop()
	// A connection that has not sent a byte is not yet idle to net/http.
	s.mu.Lock()
	for c, p := range s.peers {
		if !p.active.Load() {
			c.Close()
		}
	}
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	s.conns.Wait()
	return err
}

// connected makes the peer of a new connection and puts it into the context of
// its requests.
func (s *Server) connected(ctx context.Context, c net.Conn) context.Context {
	p := &peer{server: s, remote: c.RemoteAddr(), name: s.names.Add(1)}
	s.conns.Add(1)
	s.metrics.Connections.Inc()
	s.mu.Lock()
	s.peers[c] = p
	s.mu.Unlock()
	if s.stopping.Err() != nil {
		c.Close() // Close may not have seen it
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// changed follows a connection's states until it is closed, or taken over by a
// mounted handler.
func (s *Server) changed(c net.Conn, state nethttp.ConnState) {
	switch state {
	case nethttp.StateActive, nethttp.StateIdle:
		s.mu.Lock()
		p := s.peers[c]
		s.mu.Unlock()
		if p != nil {
			p.active.Store(true)
		}
	case nethttp.StateClosed, nethttp.StateHijacked:
		s.mu.Lock()
		p := s.peers[c]
		delete(s.peers, c)
		s.mu.Unlock()
		if p != nil {
			p.close()
			s.metrics.Connections.Dec()
			s.conns.Done()
		}
	}
}
