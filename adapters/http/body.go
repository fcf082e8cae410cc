package http

import (
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"os"
	"time"
)

// slowest is how many bytes a second a body must come at, beside the time that
// a header may take.
const slowest = 32 << 10

// readBody appends a request's body to dst, of which it takes up to limit
// bytes. The buffer grows with what comes, not with what was announced, and the
// time is bounded by what the body may be at the most.
func (s *Server) readBody(w nethttp.ResponseWriter, r *nethttp.Request, dst []byte, limit int) ([]byte, error) {
	switch {
	case r.ContentLength == 0:
		return dst, nil
	case r.ContentLength > int64(limit):
		return dst, bodyTooLarge(limit)
	}
	if err := s.readUntil(w, r, time.Now().Add(s.limits.Handshake+time.Duration(bodySize(r, limit))*time.Second/slowest)); err != nil {
		return dst, err
	}
	start := len(dst)
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		room := dst[len(dst):cap(dst)]
		if most := start + limit + 1 - len(dst); len(room) > most {
			room = room[:most]
		}
		n, err := r.Body.Read(room)
		dst = dst[:len(dst)+n]
		switch {
		case len(dst)-start > limit:
			return dst, bodyTooLarge(limit)
		case err == io.EOF:
			return dst, s.readUntil(w, r, time.Time{})
		case err != nil:
			return dst, bodyError(err)
		}
	}
}

// bodySize is how large a body may be.
func bodySize(r *nethttp.Request, limit int) int64 {
	if r.ContentLength >= 0 {
		return r.ContentLength
	}
	return int64(limit)
}

// readUntil sets the deadline for reading from the peer; zero is none.
func (s *Server) readUntil(w nethttp.ResponseWriter, r *nethttp.Request, t time.Time) error {
	type deadliner interface{ SetReadDeadline(time.Time) error }
	if d, ok := w.(deadliner); ok {
		return d.SetReadDeadline(t)
	}
	return nethttp.NewResponseController(w).SetReadDeadline(t)
}

func bodyTooLarge(limit int) error {
	return tooLarge.with(fmt.Sprintf("the body has more than %d bytes", limit))
}

// bodyError is why a body did not come whole.
func bodyError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return slowBody.with("the body did not come in time")
	}
	return badRequest.with("the body ends early: " + err.Error())
}

// writeUntil gives the peer the stall time to take what is written next. Every
// answer begins with it: the deadline of the answer before still stands, and
// what net/http flushes behind a handler is bounded by it too.
func (s *Server) writeUntil(w nethttp.ResponseWriter) error {
	t := time.Now().Add(s.limits.Stall)
	type deadliner interface{ SetWriteDeadline(time.Time) error }
	if d, ok := w.(deadliner); ok {
		return d.SetWriteDeadline(t)
	}
	return nethttp.NewResponseController(w).SetWriteDeadline(t)
}

// writeAll writes in pieces, each with a deadline of its own, so that a peer is
// slow only where it takes nothing for the stall time.
func (s *Server) writeAll(w nethttp.ResponseWriter, body []byte) error {
	const piece = 64 << 10
	for {
		if err := s.writeUntil(w); err != nil {
			return err
		}
		n, err := w.Write(body[:min(len(body), piece)])
		if body = body[n:]; err != nil || len(body) == 0 {
			return err
		}
	}
}
