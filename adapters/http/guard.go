package http

import (
	"net"
	nethttp "net/http"
	"net/netip"
	"net/url"
	"strings"
)

// A guard keeps other sites' pages out: a browser on this machine would carry
// their requests to a broker that trusts its own machine. The Host must be one
// of the broker's, which a name that was rebound to its address is not; an
// Origin must be the same host or one that was listed, and so must the page be
// that a browser asks for without one (Fetch metadata).
type guard struct {
	hosts, origins map[string]bool
	anyHost, any   bool
}

func newGuard(hosts, origins []string) *guard {
	g := &guard{hosts: make(map[string]bool), origins: make(map[string]bool)}
	for _, h := range hosts {
		g.anyHost = g.anyHost || h == "*"
		g.hosts[hostName(h)] = true
	}
	for _, o := range origins {
		g.any = g.any || o == "*"
		g.origins[strings.ToLower(strings.TrimSuffix(o, "/"))] = true
	}
	return g
}

// hostName is a host without port, brackets, final dot and upper case.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// check refuses a request from elsewhere and sets what a foreign origin that
// was listed has to be told.
func (g *guard) check(w nethttp.ResponseWriter, r *nethttp.Request) error {
	local, _ := r.Context().Value(nethttp.LocalAddrContextKey).(net.Addr)
	if !g.knowsHost(r.Host, local) {
		return foreignHost.with("the Host " + quote(r.Host) + " is not one of this broker's")
	}
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "same-origin", "none":
			return nil
		}
		// A link to the broker may be followed, but not to take messages.
		if g.any || r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Method == "GET" && !r.URL.Query().Has("group") {
			return nil
		}
		return foreignOrigin.with("a page of another site asks for it")
	}
	origin := origins[0]
	if len(origins) == 1 && sameOrigin(origin, r) {
		return nil
	}
	if len(origins) > 1 || !g.any && !g.origins[strings.ToLower(origin)] {
		return foreignOrigin.with("the Origin " + quote(origin) + " is not one that may use this broker")
	}
	h := w.Header()
	h["Access-Control-Allow-Origin"] = origins
	h["Access-Control-Expose-Headers"] = exposed
	h.Add("Vary", "Origin")
	if r.Method == "OPTIONS" {
		h["Access-Control-Allow-Methods"] = []string{"GET, HEAD, POST, PUT, DELETE"}
		h["Access-Control-Max-Age"] = []string{"600"}
		if asked := r.Header["Access-Control-Request-Headers"]; len(asked) == 1 {
			h["Access-Control-Allow-Headers"] = asked
			h.Add("Vary", "Access-Control-Request-Headers")
		}
		if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
			h["Access-Control-Allow-Private-Network"] = []string{"true"}
		}
	}
	return nil
}

// exposed lets pages of other sites read every header of an answer.
var exposed = []string{"*"}

// knowsHost reports whether a Host names the loopback, the address that the
// connection came to, or a host that was listed.
func (g *guard) knowsHost(host string, local net.Addr) bool {
	if g.anyHost {
		return true
	}
	name := hostName(host)
	if name == "localhost" || name == "127.0.0.1" || g.hosts[name] || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	if ip.IsLoopback() {
		return true
	}
	tcp, ok := local.(*net.TCPAddr)
	return ok && tcp.AddrPort().Addr().Unmap() == ip
}

// sameOrigin reports whether an origin is the host that the request is for.
func sameOrigin(origin string, r *nethttp.Request) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	// A proxy that ends TLS in front of the broker makes an https page's
	// request plain, so the scheme is not compared.
	return strings.EqualFold(u.Host, r.Host)
}
