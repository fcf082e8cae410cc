package ws

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// Options are what a Server needs.
type Options struct {
	Limits  adapters.Limits
	Gate    *adapters.Gate
	Metrics *adapters.Metrics
	Logger  *slog.Logger
	// MQTT and STOMP serve the WebSockets that carry them; one that is nil is
	// not offered.
	MQTT, STOMP adapters.ConnServer
	// Origins that pages may come from beside the broker's own host, such as
	// "https://app.example.com"; "*" is any.
	Origins []string
	// Ping is about how long a peer may be silent before it is sent a ping;
	// one that is silent for twice as long again is cut. 0 is 30 seconds.
	Ping time.Duration
}

// DefaultPing is Options.Ping unless set: shorter than the minute after which
// proxies usually drop a silent connection.
const DefaultPing = 30 * time.Second

// A Server is the WebSocket door, an http.Handler for the paths /ws, /mqtt and
// /stomp; the path's last element counts.
type Server struct {
	broker *core.Broker
	Options
	count *adapters.ProtocolMetrics
	own   [2][]byte // the limits in a welcome, by coding

	bodies [2]adapters.Bodies // by coding
	bursts adapters.Bursts

	// frames are buffers for one frame each, which is written in one call, as
	// two would be two packets; scratches are what decoding one message needs;
	// nothing is ever taken from unused.
	frames, scratches, unused sync.Pool

	// carrying ends when Close begins, hard when what is left is cut.
	carrying, hard     context.Context
	endCarrying, cutIt context.CancelFunc
	conns              sync.WaitGroup

	mu      sync.Mutex // guards what follows
	open    map[live]struct{}
	tickets map[string]holder
	closing bool
}

// A live connection.
type live interface {
	// depart says goodbye and lets the connection end by itself.
	depart()
	// cut ends it at once.
	cut()
}

// New makes a server. It takes no sockets: an HTTP server hands it requests.
func New(broker *core.Broker, o Options) *Server {
	if o.Ping == 0 {
		o.Ping = DefaultPing
	}
	o.Logger = o.Logger.With("protocol", protocol)
	s := &Server{broker: broker, Options: o, count: o.Metrics.Protocol(protocol), open: make(map[live]struct{}), tickets: make(map[string]holder)}
	s.carrying, s.endCarrying = context.WithCancel(context.Background())
	s.hard, s.cutIt = context.WithCancel(context.Background())
	s.frames.New = func() any { return new([]byte) }
	s.scratches.New = func() any { return s.newScratch() }
	for _, k := range []coding{codingJSON, codingCBOR} {
		s.own[k] = s.appendLimits(nil, k)
		s.bodies[k].Encode = k.appendDelivery
	}
	return s
}

// protocol is the adapter's name.
const protocol = "ws"

// ServeHTTP upgrades a request and returns: the connection goes on by itself.
// A request that is not a WebSocket's, or is refused, is answered in HTTP, with
// a problem (RFC 9457).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		s.refuse(w, http.StatusUpgradeRequired, "not_websocket", "this path speaks WebSocket, see docs/websocket.md")
		return
	}
	if !s.originAllowed(r) {
		s.refuse(w, http.StatusForbidden, "origin", fmt.Sprintf("pages of %.200q may not connect: add it to the allowed origins", r.Header.Get("Origin")))
		return
	}
	if !s.admit() {
		s.refuse(w, http.StatusServiceUnavailable, codeClosing, "the broker stops")
		return
	}
	defer s.conns.Done()
	sub, err := s.negotiate(r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, "subprotocol", err.Error())
		return
	}
	if serve := sub.serve(s); serve != nil {
		s.carry(w, r, sub, serve)
	} else {
		s.speak(w, r, sub)
	}
}

// speak serves the native protocol.
func (s *Server) speak(w http.ResponseWriter, r *http.Request, sub subprotocol) {
	c := newConn(s)
	c.coding = sub.coding
	credentials, shown, err := credentialsOf(r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, "malformed", err.Error())
		return
	}
	c.certificate = credentials.Certificate
	if status, code, text := c.enter(credentials, shown); status != 0 {
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice", Basic realm="sluice"`)
		}
		s.refuse(w, status, code, text)
		return
	}
	c.ws = s.upgrade(w, r, sub, &c.wire, func(conn net.Conn) net.Conn {
		c.init(conn, &s.Limits)
		return &c.outlet
	})
	if c.ws == nil {
		c.leave()
		return
	}
	s.start(c, c.serve)
}

// carry lets another adapter serve the connection.
func (s *Server) carry(w http.ResponseWriter, r *http.Request, sub subprotocol, serve adapters.ConnServer) {
	c := &carrier{srv: s, tls: r.TLS, text: sub.text}
	c.ws = s.upgrade(w, r, sub, &c.wire, func(conn net.Conn) net.Conn {
		c.wire.Conn = conn
		return carrierWire{c}
	})
	if c.ws == nil {
		return
	}
	s.start(c, func() {
		c.keepAlive(s.Ping, func() { c.writeControl(framePing, "") })
		c.ws.SetCloseHandler(func(code int, _ string) error {
			return c.writeFrame(appendClose(nil, c.answerOf(code), ""), false)
		})
		if err := adapters.ServeConn(s.carrying, serve, c); err != nil {
			s.Logger.Debug("carried connection ended", "remote", c.RemoteAddr().String(), "err", err)
		}
		c.finish()
	})
}

// upgrade answers the handshake, or refuses it and returns nil. wrap is given
// the connection and returns what the library reads and writes instead, by wire.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, sub subprotocol, wire *wire, wrap func(net.Conn) net.Conn) *websocket.Conn {
	// Frames are not written by the library's writer; with a pool, it has no
	// buffer of its own. It reads with the one that the hijacker hands out.
	u := websocket.Upgrader{
		WriteBufferSize: 1024, WriteBufferPool: &s.unused,
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			w.Header().Set("Sec-WebSocket-Version", "13")
			s.refuse(w, status, "handshake", reason.Error())
		},
	}
	if sub.name != "" {
		u.Subprotocols = []string{sub.name}
		r.Header.Set("Sec-WebSocket-Protocol", sub.name)
	}
	ws, err := u.Upgrade(hijacker{w, wrap, wire}, r, nil)
	if err != nil {
		s.Logger.Debug("handshake failed", "remote", r.RemoteAddr, "err", err)
		return nil
	}
	return ws
}

// A hijacker hands out a wrapped connection.
type hijacker struct {
	http.ResponseWriter
	wrap func(net.Conn) net.Conn
	wire *wire
}

// admit lets a request in, unless Close has begun, which then waits for it.
func (s *Server) admit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.conns.Add(1)
	return true
}

// start serves a connection on a goroutine of its own. Its request has been
// admitted.
func (s *Server) start(c live, serve func()) {
	s.mu.Lock()
	s.open[c] = struct{}{}
	closing := s.closing
	s.mu.Unlock()
	// Close may have gone through the open connections before this was one.
	if closing {
		c.depart()
	}
	if s.hard.Err() != nil {
		c.cut()
	}
	s.conns.Go(func() {
		serve()
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
	})
}

// Close takes no more connections, says goodbye to the peers, and cuts the
// connections that are left when ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.each(live.depart)
	s.endCarrying()
	ended := make(chan struct{})
	go func() { s.conns.Wait(); close(ended) }()
	defer s.cutIt()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.cutIt()
	s.each(live.cut)
	<-ended
	return ctx.Err()
}

func (s *Server) each(do func(live)) {
	s.mu.Lock()
	all := make([]live, 0, len(s.open))
	for c := range s.open {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		do(c)
	}
}

func (c *carrier) depart() { c.goingAway() }
func (c *carrier) cut()    { c.Conn.Close() }

// refusals are why a request is not upgraded, with what to do about it. Each is a
// heading of docs/websocket.md, to which the problem's type leads.
var refusals = map[string]string{
	"not_websocket":     "Open a WebSocket: new WebSocket('ws://…/ws') in a browser, sluice.js, or a library for it.",
	"origin":            "Add the origin to http.origins in the broker's configuration.",
	"subprotocol":       "Name a subprotocol that the path offers, or none at all on /ws.",
	"handshake":         "Use a library for WebSocket: the request is not a handshake of RFC 6455, version 13.",
	codeMalformed:       "Authorization is Bearer or Basic; the query has token and client, percent-encoded.",
	codeInvalid:         "Take a shorter name in UTF-8 for client, or leave it out to be given one.",
	codeUnauthenticated: "Show a token (?token=, Authorization: Bearer) or a user and password (Authorization: Basic), or say hello with them.",
	codeLoginRate:       "Wait a minute, and look at what the credentials are.",
	codeUnavailable:     "Come again; the broker's log says why.",
	codeClosing:         "Come again when the broker is back.",
}

const refusalType = "https://github.com/sluicemq/sluice/blob/main/docs/websocket.md#"

// refuse answers in HTTP, with a problem (RFC 9457).
func (s *Server) refuse(w http.ResponseWriter, status int, reason, detail string) {
	s.count.Refused(reason)
	switch status {
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "10")
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	buf := append([]byte(nil), `{"status":`...)
	buf = fmt.Append(buf, status)
	buf = adapters.AppendJSONMember(buf, "type", refusalType+strings.ReplaceAll(reason, "_", "-"))
	buf = adapters.AppendJSONMember(buf, "title", http.StatusText(status))
	buf = adapters.AppendJSONMember(buf, "detail", detail)
	buf = adapters.AppendJSONMember(buf, "hint", refusals[reason])
	w.Write(append(buf, "}\n"...))
}
