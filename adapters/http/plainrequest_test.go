package http

import (
	"bufio"
	"bytes"
	"io"
	nethttp "net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

const plainExample = "POST /t/a/b HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

// What is taken as a plain request, net/http reads as the same request and to
// the same byte, and each beginning of it may become one.
func FuzzPlainRequest(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, s := range []string{
		plainExample, plainExample + plainExample, strings.Replace(plainExample, "a/b", "a!b", 1),
		"POST /t/x HTTP/1.1\r\nhost:a\r\ncontent-length:0\r\nConnection: Keep-Alive\r\nAccept: */*\r\naccept-encoding: gzip\r\naccept-language: de\r\n\r\n",
		"POST /t/x HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 00\r\nContent-Type: application/json; charset=utf-8\r\n\r\n",
		"POST /t/x HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
		"POST /t/a%20b HTTP/1.1\r\n", "POST /t/ HTTP/1.1\r\n", "GET /t/x HTTP/1.1\r\n", "POST  /t/x HTTP/1.1\r\n", "POST /t/x HTTP/1.0\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r plainRequest
		n, step := parsePlain(b, &r)
		if step != plainTaken {
			return
		}
		br := bufio.NewReader(bytes.NewReader(b[:n]))
		got, err := nethttp.ReadRequest(br)
		if err != nil {
			t.Fatalf("%q is taken, net/http says %v", b[:n], err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil || br.Buffered() > 0 {
			t.Fatalf("%q: the body: %v, %d bytes left", b[:n], err, br.Buffered())
		}
		if got.Method != "POST" || got.RequestURI != "/t/"+string(r.topic) || got.URL.Path != got.RequestURI || got.URL.EscapedPath() != got.RequestURI || got.URL.RawQuery != "" || got.Host != string(r.host) ||
			got.Close || got.ContentLength != int64(len(r.body)) || got.TransferEncoding != nil || got.Trailer != nil || !bytes.Equal(body, r.body) {
			t.Fatalf("%q is taken as %q %q %q, net/http reads %+v with %q", b[:n], r.topic, r.host, r.body, got, body)
		}
		if got.Header.Get("Content-Type") != string(r.contentType) || len(got.Header["Content-Type"]) > 1 || isLines(got) {
			t.Fatalf("%q: the type is %q, net/http reads %q", b[:n], r.contentType, got.Header["Content-Type"])
		}
		for name := range got.Header {
			if !slices.Contains([]string{"Accept", "Accept-Encoding", "Accept-Language", "Connection", "Content-Length", "Content-Type", "User-Agent"}, name) {
				t.Fatalf("%q: the header %q is not looked at", b[:n], name)
			}
		}
		if topic, err := topicOf(got, "/t/"); err == nil && topic != string(r.topic) {
			t.Fatalf("%q: the topic is %q, not %q", b[:n], r.topic, topic)
		}
		for i := range n {
			var part plainRequest
			if _, step := parsePlain(b[:i], &part); step != plainPart {
				t.Fatalf("%q is taken, its beginning %q is %d", b[:n], b[:i], step)
			}
		}
	})
}

// What could be read as another request, or says more than a lane looks at, is
// net/http's.
func TestPlainRequestsAreStrict(t *testing.T) {
	var r plainRequest
	if n, step := parsePlain([]byte(plainExample+"POST"), &r); step != plainTaken || n != len(plainExample) || string(r.topic) != "a/b" || string(r.body) != "hello" {
		t.Fatalf("%d %v %+v", step, n, r)
	}
	change := func(from, to string) string { return strings.Replace(plainExample, from, to, 1) }
	for _, s := range []string{
		change("POST", "PUT"), change("POST ", "POST  "), change("POST", "post"), "\r\n" + plainExample, " " + plainExample,
		change("/t/a/b", "/t/"), change("/t/a/b", "/q/a"), change("/t/a/b", "//t/a/b"), change("/t/a/b", "http://x/t/a/b"),
		change("a/b", "a%2Fb"), change("a/b", "a%00"), change("a/b", "a?retain"), change("a/b", "a#b"), change("a/b", "a+b"), change("a/b", "a\\b"), change("a/b", "a\"b"), change("a/b", "\xc5\xbc"),
		change("HTTP/1.1", "HTTP/1.0"), change("HTTP/1.1", "HTTP/2"), change("HTTP/1.1", "HTTP/1.1 "),
		change("Content-Length: 5\r\n", ""), change("Content-Length: 5", "Content-Length: 5\r\nContent-Length: 5"), change("Content-Length: 5", "Content-Length: +5"),
		change("Content-Length: 5", "Content-Length: 5, 5"), change("Content-Length: 5", "Content-Length: 0x5"), change("Content-Length: 5", "Content-Length : 5"),
		change("Content-Length: 5", "Content-Length: 99999999999999999999999"), change("Content-Length: 5", "Content-Length: 65537"), change("Content-Length: 5", "Content-Length: "), change("Content-Length: 5", "Content-Length:\v5"),
		change("Content-Length: 5", "Content-Length: 5\r\nTransfer-Encoding: chunked"), change("Content-Length: 5", "Transfer-Encoding: chunked"), change("Content-Length: 5", "Content-Length: 5\r\nTransfer-Encoding: identity"),
		change("Host: localhost:8080\r\n", ""), change("Host: localhost:8080", "Host: a\r\nHost: a"), change("Host: localhost:8080", "Host: a b"), change("Host: localhost:8080", "Host: \x7f"),
		change("Host", "H\x00st"), change("User-Agent: ", "User-Agent:\x00 "), change("User-Agent: curl/8", "User-Agent: curl\r/8"), change("User-Agent: curl/8", "User-Agent: \xff"),
		change("User-Agent: curl/8", "User-Agent: curl\r\n /8"), change("User-Agent: curl/8", "User-Agent"), change("\r\nUser", "\nUser"), change("\r\n\r\n", "\n\n"), change("\r\n\r\n", "\r\n\n"),
		change("User-Agent", "X-Key"), change("User-Agent", "Authorization"), change("User-Agent", "Origin"), change("User-Agent", "Expect"), change("User-Agent", "Cookie"), change("User-Agent: curl/8", "Connection: close"), change("User-Agent: curl/8", "Connection: upgrade"),
		change("text/plain", "application/x-ndjson"), change("text/plain", "application/X-NDJson"), change("text/plain", "application/jsonl; x=y"), change("text/plain", "a/b\r\nContent-Type: c/d"),
		change("curl/8", strings.Repeat("x", laneHeader)), "POST /t/" + strings.Repeat("x", 2*laneHeader),
	} {
		if n, step := parsePlain([]byte(s), &r); step != plainOther {
			t.Errorf("%.200q: %d of %d bytes, step %d", s, n, len(s), step)
		}
	}
}
