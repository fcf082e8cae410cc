package http

import (
	"context"
	"errors"
	"net"
	nethttp "net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/sluicemq/sluice/core"
)

// A peer is one connection.
type peer struct {
	server *Server
	remote net.Addr
	name   uint64
	active atomic.Bool // a byte of a request has come
	// answering says that a handler has begun to answer a request: what goes to
	// the peer is the handler's, not net/http's own.
	answering atomic.Bool
	// streams says that the connection is taken over by a stream.
	streams atomic.Bool
	// taken says that the connection is not net/http's any more.
	taken    atomic.Bool
	follower follower
	served   atomic.Uint64 // requests that net/http has handed to its handler

	mu     sync.Mutex // guards what follows
	hold   *hold      // the client of requests without credentials
	closed bool
}

type peerKey struct{}

func peerOf(r *nethttp.Request) *peer { return r.Context().Value(peerKey{}).(*peer) }

// let leaves the connection's client to whoever has it.
func (p *peer) let() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = nil
}

// close ends the connection's client.
func (p *peer) close() {
	p.mu.Lock()
	h := p.hold
	p.hold, p.closed = nil, true
	p.mu.Unlock()
	if h != nil {
		h.client.Close()
	}
}

// A hold is a client of the core with those who wait for its confirmations. It
// is a core.Confirmer.
type hold struct {
	client *core.Client
	// own says that it was made for one request's credentials.
	own bool

	// publishing is held during each publish: over HTTP/2 a connection has
	// several requests at once, and a client's publishes must not overlap.
	publishing sync.Mutex

	mu    sync.Mutex // guards what follows, and the waits' confirmations
	next  core.Receipt
	waits []*wait
}

// release frees a hold that was made for one request.
func (h *hold) release() {
	if h.own {
		h.client.Close()
	}
}

// A wait is a request that waits for confirmations.
type wait struct {
	hold  *hold
	first core.Receipt
	// came gets a signal when there are confirmations to take.
	came chan struct{}

	got []core.Confirmation // guarded by the hold
}

// waitReceipts is how many receipts each wait has to itself.
const waitReceipts = 1 << 32

var waits = sync.Pool{New: func() any { return &wait{came: make(chan struct{}, 1)} }}

// wait begins to wait for confirmations; its receipts count up from first.
func (h *hold) wait() *wait {
	w := waits.Get().(*wait)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next += waitReceipts
	w.hold, w.first = h, h.next
	h.waits = append(h.waits, w)
	return w
}

// end ends a wait. Confirmations that are still to come go nowhere.
func (w *wait) end() {
	h := w.hold
	h.mu.Lock()
	for i := range h.waits {
		if h.waits[i] == w {
			last := len(h.waits) - 1
			h.waits[i], h.waits[last] = h.waits[last], nil
			h.waits = h.waits[:last]
			break
		}
	}
	h.mu.Unlock()
	select {
	case <-w.came:
	default:
	}
	w.hold, w.got = nil, w.got[:0]
	waits.Put(w)
}

// take swaps what has come for an empty buffer.
func (w *wait) take(buf []core.Confirmation) []core.Confirmation {
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	got := w.got
	w.got = buf[:0]
	return got
}

// one waits for the only confirmation.
func (w *wait) one(ctx context.Context) (core.Confirmation, error) {
	select {
	case <-w.came:
	case <-ctx.Done():
		return core.Confirmation{}, ctx.Err()
	}
	w.hold.mu.Lock()
	defer w.hold.mu.Unlock()
	return w.got[0], nil
}

// Confirm hands confirmations to the requests that wait for them.
func (h *hold) Confirm(cs []core.Confirmation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range cs {
		for _, w := range h.waits {
			if c.Receipt-w.first < waitReceipts {
				w.got = append(w.got, c)
				select {
				case w.came <- struct{}{}:
				default:
				}
				break
			}
		}
	}
}

// publishAndWait publishes and returns once the message is durable.
func (h *hold) publishAndWait(ctx context.Context, e *core.Envelope) (core.Confirmation, error) {
	wait := h.wait()
	defer wait.end()
	if err := h.publish(ctx, e, wait.first); err != nil {
		return core.Confirmation{}, err
	}
	c, err := wait.one(ctx)
	if err == nil {
		err = c.Err
	}
	return c, err
}

// publish hands an envelope in, in the order of the hold's publishes.
func (h *hold) publish(ctx context.Context, e *core.Envelope, r core.Receipt) error {
	h.publishing.Lock()
	defer h.publishing.Unlock()
	return h.client.Publish(ctx, e, r)
}

// connect returns the client of a request: one for its credentials, or else
// the connection's own. Credentials are not kept: the authorizer remembers
// what it has verified. The caller releases the hold.
func (s *Server) connect(r *nethttp.Request) (*hold, error) {
	p := peerOf(r)
	authorization := r.Header["Authorization"]
	if len(authorization) == 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.hold != nil {
			return p.hold, nil
		}
		h, err := s.attach(r, p, core.Credentials{})
		if err == nil && !p.closed {
			p.hold = h
		} else if err == nil {
			h.own = true
		}
		return h, err
	}
	c, err := parseAuthorization(authorization)
	if err != nil {
		return nil, err
	}
	h, err := s.attach(r, p, c)
	if err == nil {
		h.own = true
	}
	return h, err
}

// begin ends what every request begins with: it refuses what is wrong with its
// path and query, and returns its client, which the caller releases.
func (s *Server) begin(r *nethttp.Request, q *query) (*hold, error) {
	if q.err != nil {
		return nil, q.err
	}
	return s.connect(r)
}

// attach connects a client for a request.
func (s *Server) attach(r *nethttp.Request, p *peer, c core.Credentials) (*hold, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c.Certificate = r.TLS.VerifiedChains[0][0]
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.Handshake)
	defer cancel()
	h := new(hold)
	var err error
	h.client, err = s.login(ctx, p, c, h)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// login connects a client to the broker.
func (s *Server) login(ctx context.Context, p *peer, c core.Credentials, confirm core.Confirmer) (*core.Client, error) {
	c.Protocol, c.Client, c.Remote = "http", "http-"+strconv.FormatUint(p.name, 36), p.remote
	client, err := s.gate.Login(ctx, s.broker, c, confirm)
	if err != nil {
		return nil, loginError(err)
	}
	client.WhenExpired(func(why error) {
		// Streams are told, and end by themselves.
		if (errors.Is(why, core.ErrDisconnected) || errors.Is(why, core.ErrShed)) && !p.streams.Load() {
			s.cut(func(q *peer) bool { return q == p })
		}
	})
	s.metrics.Connects.Inc()
	return client, nil
}
