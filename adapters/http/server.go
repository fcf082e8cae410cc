package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/netip"
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
	// Mount adds handlers of others by method and exact path, such as "GET /ws",
	// with which HEAD goes. They stand behind the checks of Host and Origin, and
	// refuse by Refuse. The description says "x-mounted" of them.
	Mount map[string]nethttp.Handler
	// Ports tells, by protocol, where others are spoken, for the page /try; nil
	// is none.
	Ports func() map[string]Port
	// Origins are the origins of other sites that may use the broker, such as
	// "https://example.com"; "*" is every one.
	Origins []string
	// Hosts are the names that the broker may be called by, beside those of
	// the loopback and the address that a connection came to; "*" is every
	// one. A name may carry a port, which is not looked at.
	Hosts []string
	// Webhooks of the configuration, by queue.
	Webhooks map[string]adapters.Webhook
	// Allow are the networks that webhooks may call though they are not
	// public.
	Allow []netip.Prefix
	// Operator are the credentials that webhooks consume by.
	Operator core.Credentials
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
	hooks   *hooks
	http    nethttp.Server

	clock clock

	// The events of streams, by their form.
	texts, topicTexts, objects events

	listeners []net.Listener
	stopping  context.Context // ends when Close begins
	stop      context.CancelFunc
	accepting sync.WaitGroup
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
	s.texts.init(eventEncoder{})
	s.topicTexts.init(eventEncoder{topics: true})
	s.objects.init(eventEncoder{json: true})
	s.hooks = newHooks(s, o.Metrics, o.Allow)
	s.mux = s.routes()
	s.http = nethttp.Server{
		Handler:           nethttp.HandlerFunc(s.serve),
		ReadHeaderTimeout: o.Limits.Handshake,
		IdleTimeout:       min(idle, o.Limits.KeepAlive),
		MaxHeaderBytes:    o.Limits.HTTPHeaderBytes,
		ConnContext:       s.connected,
		ConnState:         s.changed,
		// OPTIONS * is a request like others.
		DisableGeneralOptionsHandler: true,

		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s
}

// Start takes the sockets.
func (s *Server) Start(ctx context.Context) error {
	for _, e := range s.options.Endpoints {
		l, err := adapters.Listen(ctx, e, s.gate)
		if err != nil {
			for _, l := range s.listeners {
				l.Close()
			}
			return fmt.Errorf("http: %w", err)
		}
		s.listeners = append(s.listeners, l)
	}
	if err := s.hooks.start(ctx); err != nil {
		for _, l := range s.listeners {
			l.Close()
		}
		return err
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
		h := &handover{Listener: l, conns: make(chan net.Conn), closed: make(chan struct{})}
		s.accepting.Go(func() { s.accept(h) })
		go func() { failed <- s.http.Serve(h) }()
	}
	var first error
	for range s.listeners {
		if err := <-failed; !errors.Is(err, nethttp.ErrServerClosed) && first == nil {
			first = fmt.Errorf("http: %w", err)
			s.http.Close() // the other listeners end with it
		}
	}
	s.accepting.Wait()
	s.conns.Wait()
	return first
}

// accept gives each connection a goroutine, which begins with TLS where the
// endpoint has it, and then a lane.
func (s *Server) accept(h *handover) {
	for {
		c, err := h.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			h.Close()
			return
		}
		if err != nil {
			s.gate.AcceptFailed(s.log, err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.stopping.Done():
			}
			continue
		}
		p := s.enter(c)
		if t, secured := c.(*tls.Conn); secured {
			go s.secure(t, p, h)
			continue
		}
		go s.carry(c, p, h, time.Now())
	}
}

// secure does the handshake of TLS. HTTP/2 is net/http's, which must see the
// connection as what it is; HTTP/1.1 is carried like any other.
func (s *Server) secure(c *tls.Conn, p *peer, h *handover) {
	began := time.Now()
	ctx, cancel := context.WithDeadline(s.stopping, began.Add(s.limits.Handshake))
	err := c.HandshakeContext(ctx)
	cancel()
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader[:]):
		s.refusePlain(plain.Conn, began)
		s.leave(c)
	case err != nil:
		s.metrics.Refused("tls")
		s.log.Debug("no TLS", "remote", c.RemoteAddr().String(), "err", err)
		s.leave(c)
	case c.ConnectionState().NegotiatedProtocol == "h2":
		if !h.give(c) {
			s.leave(c)
		}
	case len(c.ConnectionState().VerifiedChains) > 0:
		s.handOver(c, p, h, nil, began) // a lane shows no credentials
	default:
		s.carry(c, p, h, began)
	}
}

// carry serves a connection by a lane, and then hands it over. began is since
// when the first header is waited for.
func (s *Server) carry(c net.Conn, p *peer, h *handover, began time.Time) {
	p.active.Store(true) // a lane ends by itself
	l := &lane{s: s, c: c, p: p, came: began}
	rest, on := l.serve()
	if !on {
		s.leave(c)
		return
	}
	p.active.Store(false)
	s.handOver(c, p, h, rest, l.came)
}

// handOver gives a connection to net/http, with what was read of the request
// that it waits for since a time.
func (s *Server) handOver(c net.Conn, p *peer, h *handover, rest []byte, since time.Time) {
	plain := &carried{Conn: c, peer: p, head: rest, until: since.Add(s.limits.Handshake)}
	next := net.Conn(plain)
	if t, ok := c.(*tls.Conn); ok {
		next = &secured{plain, t}
	}
	s.mu.Lock()
	delete(s.peers, c)
	s.peers[next] = p
	s.mu.Unlock()
	if s.stopping.Err() != nil || !h.give(next) {
		s.leave(next)
	}
}

// Close stops accepting, ends streams and waits, lets requests be answered,
// and cuts what is left when ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.stop()
	// A connection that has not sent a byte is not yet idle to net/http.
	s.cut(func(p *peer) bool { return !p.active.Load() })
	hooked := make(chan struct{})
	go func() { s.hooks.close(ctx); close(hooked) }()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	ended := make(chan struct{})
	go func() { s.accepting.Wait(); s.conns.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		s.cut(func(*peer) bool { return true })
		<-ended
	}
	<-hooked
	return err
}

// cut closes connections.
func (s *Server) cut(which func(*peer) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, p := range s.peers {
		if which(p) {
			c.Close()
		}
	}
}

// enter counts a new connection and makes its peer.
func (s *Server) enter(c net.Conn) *peer {
	p := &peer{server: s, remote: c.RemoteAddr(), name: s.names.Add(1)}
	s.conns.Add(1)
	s.metrics.Connections.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers[c] = p
	return p
}

// leave ends a connection's peer, and closes it.
func (s *Server) leave(c net.Conn) {
	c.Close()
	s.gone(c)
}

// gone ends the peer of a connection that is closed, or somebody else's.
func (s *Server) gone(c net.Conn) {
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

// connected puts the peer of a connection into the context of its requests.
func (s *Server) connected(ctx context.Context, c net.Conn) context.Context {
	if s.stopping.Err() != nil {
		c.Close() // Close may not have seen it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return context.WithValue(ctx, peerKey{}, s.peers[c])
}

// changed follows a connection's states until it is closed, or taken over by a
// mounted handler. A stream's connection stays the server's.
func (s *Server) changed(c net.Conn, state nethttp.ConnState) {
	switch state {
	case nethttp.StateActive, nethttp.StateIdle:
		s.mu.Lock()
		p := s.peers[c]
		s.mu.Unlock()
		if p != nil {
			p.active.Store(true)
			if state == nethttp.StateIdle {
				p.answering.Store(false)
			}
		}
	case nethttp.StateHijacked:
		s.mu.Lock()
		p := s.peers[c]
		s.mu.Unlock()
		if p != nil {
			p.taken.Store(true)
		}
		if p == nil || !p.streams.Load() {
			s.gone(c)
		}
	case nethttp.StateClosed:
		s.gone(c)
	}
}
