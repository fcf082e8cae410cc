package bench

import (
	"bytes"
	"errors"
	"strconv"
)

var errBadSTOMP = errors.New("the server sent what is no STOMP frame")

// nextSTOMP splits the first frame off, and the line feeds before it: its
// command, its headers (each behind a line feed), its body, and how long it is
// together; 0 if it is not all there. Line feeds alone are a frame without a
// command.
func nextSTOMP(b []byte) (command, headers, body []byte, size int, err error) {
	start := 0
	for start < len(b) && b[start] == '\n' {
		start++
	}
	if start == len(b) {
		return nil, nil, nil, start, nil
	}
	end := bytes.Index(b[start:], []byte("\n\n"))
	if end < 0 {
		return nil, nil, nil, 0, nil
	}
	head := b[start : start+end]
	command = head
	if i := bytes.IndexByte(head, '\n'); i >= 0 {
		command, headers = head[:i], head[i:]
	}
	at := start + end + 2
	n := 0
	if v, ok := stompHeader(headers, "content-length"); ok {
		if n, err = strconv.Atoi(string(v)); err != nil || n < 0 {
			return nil, nil, nil, 0, errBadSTOMP
		}
	} else if n = bytes.IndexByte(b[at:], 0); n < 0 {
		return nil, nil, nil, 0, nil
	}
	if len(b) <= at+n {
		return nil, nil, nil, 0, nil
	}
	if b[at+n] != 0 {
		return nil, nil, nil, 0, errBadSTOMP
	}
	return command, headers, b[at : at+n], at + n + 1, nil
}

// stompHeader finds a header among those that nextSTOMP returned.
func stompHeader(headers []byte, name string) ([]byte, bool) {
	for len(headers) > 0 {
		line := headers[1:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, headers = line[:i], line[i:]
		} else {
			headers = nil
		}
		if len(line) > len(name) && line[len(name)] == ':' && string(line[:len(name)]) == name {
			return line[len(name)+1:], true
		}
	}
	return nil, false
}
