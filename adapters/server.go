package adapters

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluicemq/sluice/core"
)

// An Endpoint is an address to listen on, with TLS where it is set.
type Endpoint struct {
	Address string
	TLS     *tls.Config
}

// A Server accepts the connections of one protocol, and serves each on a
// goroutine of its own. It is an Adapter.
type Server struct {
	name      string
	endpoints []Endpoint
	limits    Limits
	gate      *Gate
	serve     ConnServer
	log       *slog.Logger

	listeners []net.Listener
	ctx       context.Context // ends when Close begins
	stop      context.CancelFunc
	serving   sync.WaitGroup // acceptors and connections

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

// NewServer makes a server. The gate is shared by all servers of a broker.
func NewServer(name string, endpoints []Endpoint, limits Limits, gate *Gate, serve ConnServer, log *slog.Logger) *Server {
	ctx, stop := context.WithCancel(context.Background())
	return &Server{
		name: name, endpoints: endpoints, limits: limits, gate: gate, serve: serve, log: log.With("protocol", name),
		ctx: ctx, stop: stop, conns: make(map[net.Conn]struct{}),
	}
}

// Start takes the sockets.
func (s *Server) Start(ctx context.Context) error {
	for _, e := range s.endpoints {
		l, err := Listen(ctx, e, s.limits, s.gate)
		if err != nil {
			for _, l := range s.listeners {
				l.Close()
			}
			return fmt.Errorf("%s: %w", s.name, err)
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

// Serve accepts until Close.
func (s *Server) Serve() error {
	for _, l := range s.listeners {
		a := &acceptor{server: s, listener: l, turn: make(chan struct{}, 1)}
		a.another()
		a.turn <- struct{}{}
	}
	s.serving.Wait()
	return nil
}

// An acceptor takes the connections of one listener. One of its goroutines after
// the other has the turn: it waits for a connection, passes the turn on, opens the
// connection and waits for the turn again. So the peer that has just come is not
// kept waiting until somebody stands ready for the next one, and a handshake that
// takes its time holds up nobody.
type acceptor struct {
	server   *Server
	listener net.Listener
	turn     chan struct{} // holds the turn while nobody has it; closed with the listener
	// waiting is how many goroutines wait for the turn, or are about to. Only who
	// has the turn makes it less.
	waiting atomic.Int32
}

// keepAcceptors is how many goroutines an acceptor keeps for the next
// connections, with the stacks that they have grown.
const keepAcceptors = 4

// another starts a goroutine that waits for the turn.
func (a *acceptor) another() {
	a.waiting.Add(1)
	a.server.serving.Go(a.run)
}

func (a *acceptor) run() {
	for {
		if _, open := <-a.turn; !open {
			return
		}
		a.waiting.Add(-1)
		c := a.accept()
		if c == nil {
			close(a.turn)
			return
		}
		if a.waiting.Load() == 0 {
			a.another()
		}
		a.turn <- struct{}{}
		a.server.open(c)
		if !a.stay() {
			return
		}
	}
}

// stay counts a goroutine as waiting again, unless enough are. It never counts
// one that then leaves: who has the turn would rely on it.
func (a *acceptor) stay() bool {
	for {
		n := a.waiting.Load()
		if n >= keepAcceptors {
			return false
		}
		if a.waiting.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// accept waits for a connection; nil is the listener's end.
func (a *acceptor) accept() net.Conn {
	for {
		c, err := a.listener.Accept()
		if err == nil {
			return c
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		a.server.log.Warn("accept failed", "err", err)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-a.server.ctx.Done():
		}
	}
}

// open opens a connection and has a goroutine serve it.
func (s *Server) open(c net.Conn) {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	serve := s.serve.OpenConn(s.ctx, c)
	s.serving.Go(func() {
		err := serve()
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		if err != nil {
			s.log.Debug("connection ended", "remote", c.RemoteAddr().String(), "err", err)
		}
	})
}

// Close stops accepting and ends the context of every connection, whose
// ConnServer says goodbye; what is left when ctx ends is cut.
func (s *Server) Close(ctx context.Context) error {
	for _, l := range s.listeners {
		l.Close()
	}
	s.stop()
	ended := make(chan struct{})
	go func() { s.serving.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	<-ended
	return ctx.Err()
}

// Listen takes a socket whose connections pass the gate, and speak TLS where
// the endpoint has it. The TLS handshake is done by the first Read or Write,
// on the connection's own goroutine and under its deadline.
func Listen(ctx context.Context, e Endpoint, limits Limits, gate *Gate) (net.Listener, error) {
	var lc net.ListenConfig
	inheritKeepAlive(&lc)
	l, err := lc.Listen(ctx, "tcp", e.Address)
	if err != nil {
		return nil, err
	}
	l = &gatedListener{Listener: l, gate: gate}
	if e.TLS != nil {
		l = tls.NewListener(l, e.TLS)
	}
	return l, nil
}

// A Gate bounds what one remote address may do, over all listeners: how many
// connections it has, how many a second are new, how many logins a minute
// fail. The IPv6 addresses of one network, of 64 bits, are one address: any host
// there has them all. Loopback addresses are not bounded in the number and rate of their
// connections.
type Gate struct {
	limits   Limits
	accepted atomic.Uint64

	mu    sync.Mutex // guards what follows
	addrs map[netip.Addr]*gateEntry
	swept time.Time // when addrs was last rid of what is gone
}

type gateEntry struct {
	conns    int
	arrivals *rate.Limiter
	failures *rate.Limiter
	seen     time.Time
}

// gateAddresses is how many addresses the gate remembers before it forgets
// those without a connection that were not seen for a minute.
const gateAddresses = 10_000

// NewGate makes a gate.
func NewGate(limits Limits) *Gate {
	return &Gate{limits: limits, addrs: make(map[netip.Addr]*gateEntry)}
}

func (g *Gate) entry(a netip.Addr) *gateEntry {
	now := time.Now()
	e := g.addrs[a]
	if e == nil {
		if len(g.addrs) >= gateAddresses && now.Sub(g.swept) > time.Second {
			g.swept = now
			for a, e := range g.addrs {
				if e.conns == 0 && now.Sub(e.seen) > time.Minute {
					delete(g.addrs, a)
				}
			}
		}
		e = &gateEntry{
			arrivals: rate.NewLimiter(rate.Limit(g.limits.ConnRatePerAddress), max(1, int(5*g.limits.ConnRatePerAddress))),
			failures: rate.NewLimiter(rate.Limit(float64(g.limits.LoginFailuresPerAddress)/60), g.limits.LoginFailuresPerAddress),
		}
		g.addrs[a] = e
	}
	e.seen = now
	return e
}

func addrOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := t.AddrPort().Addr().Unmap()
	if ip.Is6() && !ip.IsLoopback() {
		return netip.PrefixFrom(ip, 64).Masked().Addr() // without its zone
	}
	return ip
}

// enter counts a new connection, or refuses it.
func (g *Gate) enter(a net.Addr) bool {
	ip := addrOf(a)
	if ip.IsLoopback() {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.entry(ip)
	if e.conns >= g.limits.ConnsPerAddress || !e.arrivals.Allow() {
		return false
	}
	e.conns++
	return true
}

func (g *Gate) leave(a net.Addr) {
	ip := addrOf(a)
	if ip.IsLoopback() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.addrs[ip]; e != nil {
		e.conns--
	}
}

// LoginFailed counts a failed login from an address.
func (g *Gate) LoginFailed(a net.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entry(addrOf(a)).failures.Allow()
}

// ErrLogins is what an address gets of which too many logins have failed.
var ErrLogins = errors.New("too many failed logins")

// Login is [core.Broker.Connect] for an address of which not too many logins have
// failed; otherwise it is ErrLogins. It is that, too, for one that succeeds after
// others, which were on their way with it, have used them up: else who guesses
// could try as many at once as there are connections. Who shows neither a user
// nor a password nor a token guesses nothing.
func (g *Gate) Login(ctx context.Context, b *core.Broker, cr core.Credentials, confirm core.Confirmer) (*core.Client, error) {
	if cr.User == "" && len(cr.Password) == 0 && cr.Token == "" {
		return b.Connect(ctx, cr, confirm)
	}
	if !g.MayLogin(cr.Remote) {
		return nil, ErrLogins
	}
	client, err := b.Connect(ctx, cr, confirm)
	switch {
	case errors.Is(err, core.ErrUnauthenticated):
		g.LoginFailed(cr.Remote)
	case err == nil && !g.MayLogin(cr.Remote):
		client.Close()
		return nil, ErrLogins
	}
	return client, err
}

// Accepted is how many connections peers have opened, those included that were
// closed at once.
func (g *Gate) Accepted() uint64 { return g.accepted.Load() }

// MayLogin reports whether an address has failed logins left. Who checks
// credentials without Login asks before, and again where they were right.
func (g *Gate) MayLogin(a net.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.addrs[addrOf(a)]
	return e == nil || e.failures.Tokens() >= 1
}

type gatedListener struct {
	net.Listener
	gate *Gate
}

func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.gate.accepted.Add(1)
		if l.gate.enter(c.RemoteAddr()) {
			return &gatedConn{Conn: c, gate: l.gate}, nil
		}
		c.Close()
	}
}

// A gatedConn leaves the gate once, when it is closed. Its SyscallConn is the
// socket's, for readers that wait without a buffer.
type gatedConn struct {
	net.Conn
	gate *Gate
	once sync.Once
}

// CloseWrite ends what is sent, so that the peer reads it to its end.
func (c *gatedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { c.gate.leave(c.RemoteAddr()) })
	return c.Conn.Close()
}

func (c *gatedConn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}
