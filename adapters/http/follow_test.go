package http

import (
	"bufio"
	"bytes"
	"io"
	nethttp "net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// FuzzFollow reads a connection as net/http does, and wants the follower to find
// the first header that has both lengths, or one that it does not find, and no
// other; however the bytes come.
func FuzzFollow(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	const head, chunked, both = "POST /t/a HTTP/1.1\r\nHost: x\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"
	for _, s := range []string{
		head + "\r\n" + head + both + "\r\n",
		head + "Content-Length: 30\r\n\r\n" + both[:30] + head + both + "\r\n0\r\n\r\n" + head + "\r\n",
		head + chunked + "\r\n5;a=\"b\"\r\nhello\r\n00a \t\r\n0123456789\r\n0\r\nX: " + both + "\r\n" + head + both + "\r\n0\r\n\r\n",
		head + chunked + "\r\n5\r\nhel\r\n\r\n0\r\n\r\n" + head + both + "\r\n0\r\n\r\n",
		"GET / HTTP/1.1\nHost: x\ncontent-length: 2\n\nab" + "GET / HTTP/1.1\nHost: x\ntransfer-encoding:chunked\n\n2\r\nab\r\n0\r\n\r\n" + head + both + "\r\n",
		"GET / HTTP/1.0\r\n" + chunked + "\r\n" + head + both + "\r\n",
		head + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + head + both + "\r\n",
		head + " " + both + "\r\n" + head + "X: y\r\n " + both + "\r\n",
		head + "Content-Length:\r\n 1\r\n\r\na" + head + both + "\r\n",
		head + "Content-Length:" + strings.Repeat(" ", followLine) + "1\r\n\r\na" + head + both + "\r\n",
		head + chunked + "\r\n0x5\r\nhello\r\n0\r\n\r\n" + head + "\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole, single follower
		whole.follow(data)
		for i := range data {
			single.follow(data[i : i+1])
		}
		if whole.bad.Load() != single.bad.Load() || whole.headers != single.headers {
			t.Fatalf("%d headers, request %d is bad; byte by byte %d and %d", whole.headers, whole.bad.Load(), single.headers, single.bad.Load())
		}
		src := bytes.NewReader(data)
		r := bufio.NewReader(src)
		first := uint64(0) // that is to be refused
		for n := uint64(1); ; n++ {
			start := len(data) - src.Len() - r.Buffered()
			request, err := nethttp.ReadRequest(r)
			if err != nil {
				return
			}
			header := data[start : len(data)-src.Len()-r.Buffered()]
			both := len(request.TransferEncoding) > 0 && names(header, "content-length")
			if first == 0 && (both || farOff(header)) {
				first = n
			}
			bad := whole.bad.Load()
			if refused, want := bad > 0 && n >= bad, first > 0; refused != want && (want || request.ProtoMinor > 0) {
				t.Fatalf("request %d of %q: refused %v, want %v", n, data, refused, want)
			}
			if _, err := io.Copy(io.Discard, request.Body); err != nil || request.ProtoMinor == 0 {
				return // the server ends the connection
			}
		}
	})
}

// farOff reports whether a length does not stand where it is looked for.
func farOff(header []byte) bool {
	for line := range bytes.Lines(header) {
		line = line[:min(len(line), followLine)]
		name, value, _ := bytes.Cut(line, colon)
		if _, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil && bytes.EqualFold(name, []byte("content-length")) {
			return true
		}
	}
	return false
}

// names reports whether a header has a line with a name.
func names(header []byte, name string) bool {
	for line := range bytes.Lines(header) {
		if n, _, ok := bytes.Cut(line, colon); ok && bytes.EqualFold(n, []byte(name)) {
			return true
		}
	}
	return false
}
