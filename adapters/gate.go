package adapters

import (
	"context"
	"errors"
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

// A Gate bounds what one remote address may do, over all listeners: how many
// connections it has, how many a second are new, how many logins a minute
// fail. The IPv6 addresses of one network, of 64 bits, are one address: any host
// there has them all. Loopback addresses are not bounded in the number and rate of their
// connections.
type Gate struct {
	limits   Limits
	accepted atomic.Uint64
	unheard  rate.Sometimes // when accepting has failed

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
	return &Gate{limits: limits, unheard: rate.Sometimes{Interval: 10 * time.Second}, addrs: make(map[netip.Addr]*gateEntry)}
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
	g.accepted.Add(1)
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

// AcceptFailed tells the log that a connection could not be accepted, as a rule for
// want of file descriptors: every ten seconds, however often it is called.
func (g *Gate) AcceptFailed(log *slog.Logger, err error) {
	g.unheard.Do(func() { log.Warn("accept failed", "err", err) })
}

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
