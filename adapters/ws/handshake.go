package ws

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A subprotocol is what a WebSocket speaks; name is empty where the client
// named none.
type subprotocol struct {
	name   string
	family family
	text   bool   // text messages are carried
	coding coding // of the native protocol
}

type family uint8

const (
	native family = iota
	mqtt
	stomp
)

// subprotocols are those on offer, the preferred first.
var subprotocols = [...]subprotocol{
	{name: codingJSON.protocol()},
	{name: codingCBOR.protocol(), coding: codingCBOR},
	{name: "mqtt", family: mqtt},
	{name: "mqttv3.1", family: mqtt},
	{name: "v12.stomp", family: stomp, text: true},
	{name: "v11.stomp", family: stomp, text: true},
	{name: "v10.stomp", family: stomp, text: true},
}

// serve is who serves the subprotocol; nil is the door itself.
func (p subprotocol) serve(s *Server) adapters.ConnServer {
	switch p.family {
	case mqtt:
		return s.MQTT
	case stomp:
		return s.STOMP
	}
	return nil
}

// offers reports whether the path offers the subprotocol.
func (s *Server) offers(p subprotocol, door string) bool {
	switch p.family {
	case mqtt:
		return door != "stomp" && s.MQTT != nil
	case stomp:
		return door != "mqtt" && s.STOMP != nil
	}
	return door != "mqtt" && door != "stomp"
}

// negotiate chooses the first of subprotocols that the client names and the
// path offers. A client that names none speaks STOMP on /stomp and the native
// protocol on /ws; MQTT must be named ([MQTT-6.0.0-3]). One that names only
// others is refused, as it would not understand a word.
func (s *Server) negotiate(r *http.Request) (subprotocol, error) {
	door := path.Base(r.URL.Path)
	var named []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(line, ",") {
			named = append(named, strings.TrimSpace(name))
		}
	}
	var offered []string
	for _, p := range subprotocols {
		if !s.offers(p, door) {
			continue
		}
		if len(named) == 0 && p.family != mqtt {
			p.name = ""
			return p, nil
		}
		for _, name := range named {
			if name == p.name {
				return p, nil
			}
		}
		offered = append(offered, p.name)
	}
	if len(offered) == 0 {
		return subprotocol{}, errors.New("nothing is offered here: the protocol of this path is switched off")
	}
	return subprotocol{}, fmt.Errorf("want one of the subprotocols %s", strings.Join(offered, ", "))
}

// originAllowed reports whether a page may connect: the request has no Origin
// (it comes from no browser), or that of the broker's own host, or a listed one
// (RFC 6455, section 10.2).
func (s *Server) originAllowed(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	for _, o := range s.Origins {
		if o == "*" || strings.EqualFold(o, origins[0]) {
			return true
		}
	}
	u, err := url.Parse(origins[0])
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// credentialsOf are the credentials that an upgrade request carries: the
// Authorization header, ?token= for browsers, which cannot set it, and the
// peer's certificate; ?client= names the client. shown reports whether it
// carries any.
func credentialsOf(r *http.Request) (c core.Credentials, shown bool, err error) {
	c.Protocol = protocol
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.Remote = net.TCPAddrFromAddrPort(a)
	} else {
		c.Remote = &net.TCPAddr{}
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c.Certificate = r.TLS.PeerCertificates[0]
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return c, false, errors.New("bad query")
	}
	c.Token, c.Client = query.Get("token"), query.Get("client")
	if a := r.Header.Get("Authorization"); a != "" {
		scheme, rest, _ := strings.Cut(a, " ")
		user, password, basic := r.BasicAuth()
		switch {
		case strings.EqualFold(scheme, "Bearer"):
			c.Token = strings.TrimSpace(rest)
		case basic:
			c.User, c.Password = user, []byte(password)
		default:
			return c, false, errors.New("want Authorization: Bearer or Basic")
		}
	}
	return c, c.Token != "" || c.User != "" || len(c.Password) > 0 || c.Certificate != nil, nil
}

// Hijack hands out the wrapped connection.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if rw.Reader.Buffered() > 0 {
		return h.wrap(conn), rw, nil // the library refuses it
	}
	wrapped := h.wrap(conn)
	return wrapped, bufio.NewReadWriter(h.wire.buffered(wrapped), rw.Writer), nil
}
