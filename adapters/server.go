package adapters

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// An Endpoint is an address to listen on, with TLS where it is set.
type Endpoint struct {
	Address string
	TLS     *tls.Config
}

// A Server accepts the connections of one protocol and serves them: each on a
// goroutine of its own, but for plain TCP connections that rest, which have none
// on Linux. It is an Adapter.
type Server struct {
	name      string
	endpoints []Endpoint
	gate      *Gate
	serve     ConnServer
	log       *slog.Logger

	listeners []net.Listener
	poller    *poller        // of the connections that rest
	closing   chan struct{}  // closed when Close begins
	serving   sync.WaitGroup // acceptors and connections

	mu    sync.Mutex // guards the list of connections
	first *served    // the newest
}

// NewServer makes a server. The gate is shared by all servers of a broker.
func NewServer(name string, endpoints []Endpoint, gate *Gate, serve ConnServer, log *slog.Logger) *Server {
	return &Server{
		name: name, endpoints: endpoints, gate: gate, serve: serve, log: log.With("protocol", name),
		closing: make(chan struct{}),
	}
}

// Start takes the sockets.
func (s *Server) Start(ctx context.Context) (err error) {
	if s.poller, err = newPoller(s); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	for _, e := range s.endpoints {
		l, err := s.listen(ctx, e)
		if err != nil {
			for _, l := range s.listeners {
				l.Close()
			}
			s.poller.close()
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// listen leaves connections without TLS to the poller, where it takes them.
func (s *Server) listen(ctx context.Context, e Endpoint) (net.Listener, error) {
	l, err := listenTCP(ctx, e)
	if err != nil {
		return nil, err
	}
	if e.TLS == nil && hasPoller {
		return s.poller.listen(l)
	}
	return e.gated(l, s.gate), nil
}

// Serve accepts until Close.
func (s *Server) Serve() error {
	for _, l := range s.listeners {
		s.serving.Go(func() { s.accept(l) })
	}
	s.poller.start()
	s.serving.Wait()
	return nil
}

// acceptPause is how long nothing is accepted after that has failed.
const acceptPause = 50 * time.Millisecond

// accept serves what a listener accepts, until that is closed. One that is left to
// the poller accepts nothing.
func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			s.serving.Add(1)
			go s.open(c, nil).serve()
		case errors.Is(err, net.ErrClosed):
			return
		default:
			s.gate.AcceptFailed(s.log, err)
			select {
			case <-time.After(acceptPause):
			case <-s.closing:
			}
		}
	}
}

// Addrs are the addresses that Start took.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Close stops accepting and has every connection say goodbye; what is left when
// ctx ends is cut.
func (s *Server) Close(ctx context.Context) error {
	close(s.closing)
	for _, l := range s.listeners {
		l.Close()
	}
	for _, v := range s.all() {
		v.by.Stop()
	}
	ended := make(chan struct{})
	go func() { s.serving.Wait(); s.poller.close(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for _, v := range s.all() {
		v.conn.Close()
	}
	<-ended
	return ctx.Err()
}

// Listen takes a socket whose connections pass the gate, and speak TLS where
// the endpoint has it. The TLS handshake is done by the first Read or Write,
// on the connection's own goroutine and under its deadline.
func Listen(ctx context.Context, e Endpoint, gate *Gate) (net.Listener, error) {
	l, err := listenTCP(ctx, e)
	if err != nil {
		return nil, err
	}
	return e.gated(l, gate), nil
}

func listenTCP(ctx context.Context, e Endpoint) (net.Listener, error) {
	var lc net.ListenConfig
	inheritOptions(&lc)
	lc.SetMultipathTCP(false) // it makes each connection dearer, also those that do not ask for it
	return lc.Listen(ctx, "tcp", e.Address)
}

func (e Endpoint) gated(l net.Listener, gate *Gate) net.Listener {
	l = &gatedListener{Listener: l, gate: gate}
	if e.TLS != nil {
		l = tls.NewListener(l, e.TLS)
	}
	return l
}
