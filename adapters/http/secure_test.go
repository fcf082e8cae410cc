package http_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

// openTLS is open with TLS in front.
func openTLS(t *testing.T, change ...func(*http.Options, *core.Options)) *door {
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	defer certs.Close()
	secure := func(o *http.Options, _ *core.Options) {
		o.Endpoints[0].TLS = &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	}
	return open(t, append(change, secure)...)
}

// say says something over TLS and HTTP/1.1, and returns the statuses of what comes.
func (d *door) saySecurely(text string) (statuses string, last answer) {
	d.Helper()
	c, err := tls.Dial("tcp", d.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		d.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		d.Fatal(err)
	}
	for in := bufio.NewReader(c); ; {
		resp, err := nethttp.ReadResponse(in, nil)
		if err != nil {
			return strings.TrimSpace(statuses), last
		}
		b, _ := io.ReadAll(resp.Body)
		last = answer{resp, string(b)}
		statuses += fmt.Sprint(resp.StatusCode, " ")
	}
}

// With TLS, HTTP/1.1 is served as it is without, and HTTP/2 besides.
func TestSecured(t *testing.T) {
	d := openTLS(t)
	const end = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	const post = "POST /t/a HTTP/1.1\r\nHost: localhost\r\n"
	for _, c := range []struct{ statuses, request string }{
		{"201 201 200", post + "Content-Length: 5\r\n\r\nhello" + post + "X-Key: k\r\nContent-Length: 5\r\n\r\nhello" + end},
		{"400", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + end},
		{"400", "POST  /t/a HTTP/1.1\r\n\r\n" + end},
	} {
		got, last := d.saySecurely(c.request)
		if got != c.statuses {
			t.Errorf("%q: %s, want %s", c.request, got, c.statuses)
		}
		if c.statuses == "400" {
			d.isProblem(last, 400, "bad-request")
		}
	}
	for _, h2 := range []bool{false, true} {
		transport := &nethttp.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
		defer transport.CloseIdleConnections()
		resp, err := (&nethttp.Client{Transport: transport}).Get("https://" + d.addr + "/t/a?from=earliest")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || strings.Count(string(b), "hello") != 2 || resp.ProtoMajor == 2 != h2 {
			t.Errorf("%s %s %q %v", resp.Proto, resp.Status, b, err)
		}
	}
}

// Who speaks plain HTTP where TLS is spoken is told so, in plain HTTP; who speaks
// something else, or nothing, is not answered.
func TestPlainWhereTLSIsSpoken(t *testing.T) {
	within := func(handshake time.Duration) *door {
		return openTLS(t, func(o *http.Options, _ *core.Options) { o.Limits.Handshake = handshake })
	}
	d := within(time.Hour)
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"} {
		got := d.raw(text)
		resp, err := nethttp.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
		if err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		b, _ := io.ReadAll(resp.Body)
		d.isProblem(answer{resp, string(b)}, 400, "tls-required")
		if !resp.Close {
			t.Error("it is not said that the connection ends")
		}
	}
	d = within(100 * time.Millisecond)
	for _, text := range []string{"", "hello, world", "\x16\x03\x01"} {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text)
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if got, err := io.ReadAll(c); len(got) > 7 || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%q is answered by %q, %v", text, got, err)
		}
		c.Close()
	}
}
