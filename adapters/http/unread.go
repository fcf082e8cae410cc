package http

import (
	"bytes"
	"net"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/adapters"
)

// net/http itself answers what it cannot read as a request, in plain text. What
// such an answer says is said as a problem instead: before a handler has begun,
// everything that a connection carries to the peer is one of these. A connection of
// HTTP/2 is net/http's own, and so are they.

var (
	headerTooLarge = problem{status: 431, kind: "header-too-large", title: "The request's header is too large",
		hint: "Leave headers out, or put what they say into the body: an object of JSON has \"h\" for a message's headers."}
	noSuchCoding = problem{status: 501, kind: "unknown-coding", title: "The Transfer-Encoding is not known",
		hint: "Transfer-Encoding is chunked, once, or left out."}
	noSuchVersion = problem{status: 505, kind: "unknown-version", title: "The version of HTTP is not spoken here",
		hint: "Speak HTTP/1.1, or HTTP/2 where TLS is: over plain TCP there is no HTTP/2."}
	noSuchExpectation = problem{status: 417, kind: "unknown-expectation", title: "The expectation is not known",
		hint: "Expect is 100-continue, or left out."}
	tlsRequired = problem{status: 400, kind: "tls-required", title: "This port speaks HTTPS",
		hint: "Ask with https:// in front of the address."}
	lengthRequired = problem{status: 411, kind: "length-required", title: "The body's length is missing",
		hint: "HTTP/1.0 has no chunks: send Content-Length, or speak HTTP/1.1."}
)

// unreadable is the problem that an answer of net/http's own tells; nil where
// the answer is none.
func unreadable(answer []byte) *problem {
	line, _, ok := bytes.Cut(answer, []byte("\r\n"))
	version, rest, _ := strings.Cut(string(line), " ")
	code, text, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !ok || version != "HTTP/1.1" && version != "HTTP/1.0" || err != nil || status < 400 {
		return nil
	}
	detail := "it cannot be read as a request of HTTP"
	if _, why, ok := strings.Cut(text, ": "); ok {
		detail = why
	}
	for _, p := range []*problem{&headerTooLarge, &noSuchCoding, &noSuchVersion, &noSuchExpectation} {
		if p.status == status {
			return p.with(detail)
		}
	}
	p := badRequest.with(detail)
	p.status = status
	return p
}

// Write writes for net/http.
func (c *carried) Write(b []byte) (int, error) {
	if c.peer.answering.Load() {
		return c.Conn.Write(b)
	}
	p := unreadable(b)
	if p == nil {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(c.peer.server.appendFailure(nil, p, true)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// looksLikeHTTP reports whether the first bytes of what should have been TLS begin
// a request in plain HTTP.
func looksLikeHTTP(b []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO", "PATCH"} {
		if string(b[:min(len(b), len(method))]) == method {
			return true
		}
	}
	return false
}

// refusePlain tells a peer that speaks plain HTTP where TLS is spoken.
func (s *Server) refusePlain(c net.Conn, began time.Time) {
	if c.SetDeadline(began.Add(s.limits.Handshake)) != nil {
		return
	}
	if _, err := c.Write(s.appendFailure(nil, tlsRequired.with("the request came in plain HTTP"), true)); err == nil && adapters.CloseWrite(c) {
		adapters.Discard(c, time.Second)
	}
}

// checkFraming refuses what net/http takes and somebody in front of the broker
// may read as another request: HTTP/1.0 knows no chunks, so what it does not
// give the length of has none (RFC 9112, section 6.1); and the beginning of
// HTTP/2 on plain TCP, which no answer is understood by.
func checkFraming(r *nethttp.Request) error {
	switch {
	case r.ProtoMajor == 1 && (r.ProtoMinor > 0 || r.ContentLength > 0 || len(r.Header["Content-Length"]) > 0):
		return nil
	case r.ProtoMajor == 1 && (r.Method == nethttp.MethodPost || r.Method == nethttp.MethodPut):
		return &lengthRequired
	case r.ProtoMajor > 1 && r.TLS == nil:
		return &noSuchVersion
	}
	return nil
}
