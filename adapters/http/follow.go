package http

import (
	"bytes"
	"math"
	"strconv"
	"sync/atomic"
)

// A follower reads along what net/http reads of a connection, request by request
// (RFC 9112), for what net/http does not tell: that a header had both
// Transfer-Encoding and Content-Length. Somebody in front of the broker may have
// gone by the other one, and have taken for a body what is the next request here
// (section 6.1).
type follower struct {
	step    func(*follower, []byte) []byte // takes bytes and returns the rest; nil is a header
	line    []byte                         // as much of a line as has come, up to followLine bytes
	left    int64                          // of a body or a chunk
	chunked bool
	length  int64 // by Content-Length, -1 without one
	begun   bool  // a header's first line has come
	headers uint64
	// bad is the number of the first request, from 1, that is not to be served.
	bad atomic.Uint64
}

// followLine is as much as is kept of a line: a name that matters, and its value.
const followLine = 128

// follow takes what net/http is about to read.
func (f *follower) follow(b []byte) {
	for len(b) > 0 && f.bad.Load() == 0 {
		if f.step == nil {
			f.reset()
		}
		b = f.step(f, b)
	}
}

func (f *follower) reset() {
	f.step, f.line, f.chunked, f.length, f.begun = (*follower).header, f.line[:0], false, -1, false
}

// lost gives up: what follows the request that was begun is not served.
func (f *follower) lost() { f.bad.CompareAndSwap(0, f.headers+1) }

// next takes what there is of a line, and reports whether that is all of it.
func (f *follower) next(b []byte) (line, rest []byte, whole bool) {
	end := bytes.IndexByte(b, '\n')
	part := b
	if end >= 0 {
		part, rest = b[:end], b[end+1:]
	}
	f.line = append(f.line, part[:min(len(part), followLine-len(f.line))]...)
	if end < 0 {
		return nil, nil, false
	}
	line, f.line = bytes.TrimSuffix(f.line, []byte("\r")), f.line[:0]
	return line, rest, true
}

// header takes a line of a header.
func (f *follower) header(b []byte) []byte {
	line, rest, whole := f.next(b)
	switch {
	case !whole:
		return nil
	case len(line) == 0 && !f.begun:
		return rest // an empty line before a request is passed over
	case len(line) > 0:
		name, value, _ := bytes.Cut(line, colon)
		switch f.begun = true; {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
			if err != nil {
				n = math.MaxInt64
				f.lost() // net/http refuses it, or finds it far off or on the next line
			}
			f.length = n
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			f.chunked = true // or net/http refuses it
		}
		return rest
	}
	f.headers++
	switch {
	case f.chunked && f.length >= 0:
		f.bad.CompareAndSwap(0, f.headers)
	case f.chunked:
		f.step = (*follower).size
	case f.length > 0:
		f.left, f.step = f.length, (*follower).body
	default:
		f.step = nil
	}
	return rest
}

// body takes what a length says.
func (f *follower) body(b []byte) []byte {
	n := min(int64(len(b)), f.left)
	if f.left -= n; f.left == 0 {
		f.step = nil
	}
	return b[n:]
}

// size takes the line before a chunk.
func (f *follower) size(b []byte) []byte {
	line, rest, whole := f.next(b)
	if !whole {
		return nil
	}
	digits, _, _ := bytes.Cut(line, []byte(";"))
	n, err := strconv.ParseInt(string(bytes.TrimRight(digits, " \t")), 16, 64)
	switch {
	case err != nil || n < 0 || n > math.MaxInt64-2:
		f.lost()
	case n == 0:
		f.step = (*follower).trailer
	default:
		f.left, f.step = n+2, (*follower).chunk // CR LF
	}
	return rest
}

func (f *follower) chunk(b []byte) []byte {
	n := min(int64(len(b)), f.left)
	if f.left -= n; f.left == 0 {
		f.step = (*follower).size
	}
	return b[n:]
}

// trailer takes a line behind the last chunk.
func (f *follower) trailer(b []byte) []byte {
	line, rest, whole := f.next(b)
	if whole && len(line) == 0 {
		f.step = nil
	}
	return rest
}
