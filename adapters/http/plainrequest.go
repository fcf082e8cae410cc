package http

import (
	"bytes"
	"math"
)

// A plainRequest is a publish as most clients send it: POST /t/ and a topic of
// plain characters, HTTP/1.1, a Content-Length, and of headers only those that
// say nothing more than the type of the body. It aliases the bytes that it was
// parsed from.
type plainRequest struct {
	topic, host, contentType, body []byte
	length                         int // of the body
}

// A plainStep is what parsePlain found.
type plainStep uint8

const (
	plainTaken plainStep = iota
	plainPart            // it may become one: more is needed
	plainOther           // it is something else, right or wrong
)

// parsePlain takes a plain request off the front of b and returns how long it
// is. It is strict, so that nobody before or behind it can read the same bytes
// as another request (RFC 9112, 11.2): lines end in CR LF, nothing is folded,
// a name is followed by its colon, no header that it looks at stands twice, and
// every header that it does not know makes the request another one. A fuzz
// target holds it to what net/http reads.
func parsePlain(b []byte, r *plainRequest) (n int, step plainStep) {
	const method = "POST /t/"
	if len(b) < len(method) {
		if string(b) != method[:len(b)] {
			return 0, plainOther
		}
		return 0, plainPart
	}
	if string(b[:len(method)]) != method {
		return 0, plainOther
	}
	at := len(method)
	for at < len(b) && plainPath[b[at]] {
		at++
	}
	const version = " HTTP/1.1\r\n"
	if have := b[at:min(len(b), at+len(version))]; string(have) != version[:len(have)] || at > laneHeader {
		return 0, plainOther
	} else if len(have) < len(version) {
		return 0, plainPart
	}
	r.topic = b[len(method):at]
	if len(r.topic) == 0 {
		return 0, plainOther
	}
	at += len(version)
	hosts, lengths, types := 0, 0, 0
	for {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 0 {
			if len(b) > laneHeader {
				return 0, plainOther
			}
			return 0, plainPart
		}
		line := b[at : at+end]
		if at += end + 1; at > laneHeader || len(line) == 0 || line[len(line)-1] != '\r' {
			return 0, plainOther
		}
		if line = line[:len(line)-1]; len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, colon)
		if !ok {
			return 0, plainOther
		}
		value = bytes.Trim(value, " \t")
		for _, c := range value {
			if c < ' ' || c >= 0x7f {
				return 0, plainOther
			}
		}
		switch plainHeaderOf(name) {
		case plainHost:
			for _, c := range value {
				if !plainPath[c] && c != '[' && c != ']' {
					return 0, plainOther
				}
			}
			r.host = value
			hosts++
		case plainLength:
			if r.length, ok = plainNumber(value); !ok || r.length > laneBody {
				return 0, plainOther
			}
			lengths++
		case plainType:
			if !plainTypeOf(value) {
				return 0, plainOther
			}
			r.contentType = value
			types++
		case plainIgnored:
		case plainConnection:
			if !bytes.EqualFold(value, []byte("keep-alive")) {
				return 0, plainOther
			}
		default:
			return 0, plainOther
		}
	}
	if hosts != 1 || lengths != 1 || types > 1 {
		return 0, plainOther
	}
	if len(b)-at < r.length {
		return 0, plainPart
	}
	r.body = b[at : at+r.length]
	r.length = 0 // nothing is missing
	return at + len(r.body), plainTaken
}

var colon = []byte{':'}

// plainTypeOf reports whether a type is not that of lines, which are a batch.
func plainTypeOf(value []byte) bool {
	const json = "application/json"
	if bytes.HasPrefix(value, []byte(json)) && (len(value) == len(json) || value[len(json)] == ';') {
		return true
	}
	return len(value) > 0 && !containsFold(view(value), "json")
}

// plainNumber reads digits and nothing else.
func plainNumber(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt32-9)/10 {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, len(b) > 0
}

// plainPath are the characters of a path that stand for themselves in a topic
// and in JSON: no %, no wildcard, no query.
var plainPath = func() (set [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~$@!*,:=()'/;" {
		set[c] = true
	}
	return set
}()

// A plainHeader is a header that a plain request may have.
type plainHeader uint8

const (
	plainUnknown plainHeader = iota
	plainHost
	plainLength
	plainType
	plainConnection
	plainIgnored // it says nothing of the message
)

func plainHeaderOf(name []byte) plainHeader {
	is := func(s string) bool { return bytes.EqualFold(name, []byte(s)) }
	switch len(name) {
	case len("Host"):
		if is("Host") {
			return plainHost
		}
	case len("Accept"):
		if is("Accept") {
			return plainIgnored
		}
	case len("Connection"): // and User-Agent
		if is("User-Agent") {
			return plainIgnored
		}
		if is("Connection") {
			return plainConnection
		}
	case len("Content-Type"):
		if is("Content-Type") {
			return plainType
		}
	case len("Content-Length"):
		if is("Content-Length") {
			return plainLength
		}
	case len("Accept-Encoding"): // and Accept-Language
		if is("Accept-Encoding") || is("Accept-Language") {
			return plainIgnored
		}
	}
	return plainUnknown
}
