package http

import (
	"unsafe"

	"github.com/sluicemq/sluice/core"
)

// decodePlain decodes a line of the usual shape into e, without allocating and
// a good deal faster than encoding/json: an object whose members are topic,
// payload as text, content type, key, id, reply and retain, with no escape in a
// string. It reports false for everything else, right or wrong; then e is to
// be reset. What it sets aliases the line.
//
// The line is known to be UTF-8. A fuzz target compares it with the long way.
func decodePlain(line []byte, e *core.Envelope) bool {
	p := plainParser{line: line}
	if p.next() != '{' {
		return false
	}
	if p.next() != '"' {
		return false // empty objects are no hurry
	}
	for {
		name, ok := p.text()
		if !ok || p.next() != ':' {
			return false
		}
		c := p.next()
		if c == 't' && string(name) == "retain" && p.rest("rue") {
			e.Retain = true
		} else if c != '"' {
			return false
		} else {
			value, ok := p.text()
			if !ok {
				return false
			}
			switch string(name) {
			case "d":
				e.Payload = value
			case "t":
				e.Topic = view(value)
			case "type":
				e.ContentType = view(value)
			case "key":
				e.Key = view(value)
			case "id":
				e.ID = view(value)
			case "reply":
				e.ReplyTo = view(value)
			default:
				return false
			}
		}
		switch p.next() {
		case '}':
			return p.next() == '\n' && p.at == len(line)
		case ',':
			if p.next() != '"' {
				return false
			}
		default:
			return false
		}
	}
}

// A plainParser stands behind what it has taken of a line.
type plainParser struct {
	line []byte
	at   int
}

// next takes the next byte that is not white space, a line break at the end.
func (p *plainParser) next() byte {
	for p.at < len(p.line) {
		c := p.line[p.at]
		p.at++
		if c != ' ' && c != '\t' && c != '\r' {
			return c
		}
	}
	return '\n'
}

// text takes a string without escapes, whose opening quote has been taken.
func (p *plainParser) text() ([]byte, bool) {
	for i := p.at; i < len(p.line); i++ {
		switch c := p.line[i]; {
		case c == '"':
			s := p.line[p.at:i:i]
			p.at = i + 1
			return s, true
		case c < ' ' || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

// rest takes what must come.
func (p *plainParser) rest(s string) bool {
	if len(p.line)-p.at < len(s) || string(p.line[p.at:p.at+len(s)]) != s {
		return false
	}
	p.at += len(s)
	return true
}

// view views bytes as a string for as long as they stay as they are.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
