package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// The HTTP/1.1 that the generator reads: what a server's answer to a request
// without surprises looks like.

var errBadHTTP = errors.New("the server sent what is no HTTP answer")

// nextHTTP splits the first answer off: its status, its header with the empty
// line, and how long it is with its body; 0 if it is not all there. Of a body in
// chunks, body is the chunks as they came.
func nextHTTP(b []byte) (status int, body []byte, size int, err error) {
	status, head, err := httpHead(b)
	if head == 0 || err != nil {
		return 0, nil, 0, err
	}
	if v, ok := httpField(b[:head], "Content-Length"); ok {
		n, err := strconv.Atoi(string(v))
		if err != nil || n < 0 {
			return 0, nil, 0, errBadHTTP
		}
		if len(b)-head < n {
			return 0, nil, 0, nil
		}
		return status, b[head : head+n], head + n, nil
	}
	if v, ok := httpField(b[:head], "Transfer-Encoding"); ok && string(v) == "chunked" {
		for at := head; ; {
			data, n, err := nextChunk(b[at:])
			if n == 0 || err != nil {
				return 0, nil, 0, err
			}
			at += n
			if len(data) == 0 {
				return status, b[head:at], at, nil
			}
		}
	}
	return status, nil, head, nil
}

// httpHead reads the status and how long the header is with its empty line; 0
// if it is not all there.
func httpHead(b []byte) (status, size int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, 0, nil
	}
	const version = "HTTP/1.1 "
	if len(b) < len(version)+3 || string(b[:len(version)]) != version {
		return 0, 0, errBadHTTP
	}
	for _, c := range b[len(version) : len(version)+3] {
		status = status*10 + int(c-'0')
	}
	return status, end + 4, nil
}

// httpField finds a field of a header, whose name is written as Go's server
// writes it.
func httpField(head []byte, name string) ([]byte, bool) {
	for {
		i := bytes.Index(head, []byte(name))
		if i < 0 {
			return nil, false
		}
		head = head[i+len(name):]
		if len(head) < 2 || head[0] != ':' {
			continue
		}
		end := bytes.IndexByte(head, '\r')
		if end < 0 {
			return nil, false
		}
		return bytes.TrimSpace(head[1:end]), true
	}
}

// nextChunk splits the first chunk of a body off; an empty one ends the body.
func nextChunk(b []byte) (data []byte, size int, err error) {
	n := 0
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | int(c-'a'+10)
		case c == '\r':
			end := i + 2 + n + 2
			if len(b) < end {
				return nil, 0, nil
			}
			return b[i+2 : i+2+n], end, nil
		default:
			return nil, 0, errBadHTTP
		}
		if i > 8 {
			return nil, 0, errBadHTTP
		}
	}
	return nil, 0, nil
}

// appendHTTPPost appends a request up to its body.
func appendHTTPPost(b []byte, host, path, mediaType string, length int) []byte {
	b = fmt.Appendf(b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", path, host, length)
	if mediaType != "" {
		b = fmt.Appendf(b, "Content-Type: %s\r\n", mediaType)
	}
	return append(b, "\r\n"...)
}
