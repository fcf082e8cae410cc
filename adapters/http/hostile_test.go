package http_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask sends requests on a connection of their own and returns the answers up to
// its end, without offsets and times; refusals must be problems with a hint.
func (d *door) ask(requests string) (statuses string, answers []string) {
	d.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(c, requests); err != nil {
		d.Fatal(err)
	}
	r := bufio.NewReader(c)
	for {
		resp, err := nethttp.ReadResponse(r, nil)
		if err != nil {
			return strings.TrimSpace(statuses), answers
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			d.Fatalf("%.100q: %v", requests, err)
		}
		statuses += fmt.Sprintf("%d ", resp.StatusCode)
		if resp.StatusCode >= 400 {
			d.isHelpful(answer{resp, string(body)})
		}
		for _, name := range []string{"Date", "X-Offset", "Content-Length"} {
			resp.Header.Del(name)
		}
		answers = append(answers, fmt.Sprintf("%d %v %s", resp.StatusCode, resp.Header, offsets.ReplaceAll(body, []byte(`"o":0`))))
	}
}

var offsets = regexp.MustCompile(`"o":\d+`)

// isHelpful wants a problem that says what to do.
func (d *door) isHelpful(a answer) {
	d.Helper()
	var p struct{ Type, Title, Hint string }
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(p.Type, "docs/http.md#") || p.Title == "" || p.Hint == "" {
		d.Errorf("%s %v is not a problem with a hint: %s", a.Status, a.Header, a.body)
	}
}

// TestLanesReadAlike says hostile requests to a new connection, which a lane
// reads first, and to one that net/http has already, and wants the same answers.
// Behind each comes a good request: what was left of a hostile one would be read
// as its beginning.
func TestLanesReadAlike(t *testing.T) {
	d := open(t)
	const last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	post := func(rest string) string { return "POST /t/a HTTP/1.1\r\nHost: localhost\r\n" + rest }
	line := func(line string) string { return line + "\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" }
	host := func(host string) string {
		return "POST /t/a HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello"
	}
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	for _, c := range []struct{ statuses, request string }{
		{"201 200", post("Content-Length: 5\r\n\r\nhello")},
		{"201 201 200", post("Content-Length: 5\r\n\r\nhello") + post("Content-Length: 5\r\n\r\nhello")},

		// How long a body is: by a length or by chunks, never both (RFC 9112, 6.1).
		{"400", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"400", post("transfer-encoding: chunked\r\nX: " + strings.Repeat("y", 500) + "\r\ncontent-LENGTH: 5\r\n\r\n0\r\n\r\n")},
		{"201 400", post("Content-Length: 5\r\n\r\nhello") + post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
		{"201 400", post(chunked+"5\r\nhello\r\n0\r\nX: y\r\n\r\n") + post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
		{"200 201 400", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + post("X-H-A: b\r\nContent-Length: 5\r\n\r\nhello") + "\r\n" + post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
		{"201 201 200", post(chunked+"2;x=y\r\nhe\r\n003 \r\nllo\r\n0\r\n\r\n") + post("X-H-A: b\r\nContent-Length: 5\r\n\r\nhello")},
		{"201 200", post("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")},
		{"400", post("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")},
		{"400", post("Content-Length: 5, 5\r\n\r\nhello")},
		{"400", post("Content-Length: +5\r\n\r\nhello")},
		{"400", post("Content-Length: 0x5\r\n\r\nhello")},
		{"400", post("Content-Length: 5 5\r\n\r\nhello")},
		{"400", post("Content-Length: -1\r\n\r\nhello")},
		{"400", post("Content-Length: \r\n\r\n")},
		{"400", post("Content-Length: 99999999999999999999999\r\n\r\nhello")},
		{"413", post("Content-Length: 9223372036854775807\r\n\r\n")},
		{"400", post("Content-Length : 5\r\n\r\nhello")},
		{"400", post(" Content-Length: 5\r\n\r\nhello")},
		{"400", post("Content-Length: 5\r\n folded\r\n\r\nhello")},
		{"201 200", post("Content-Length: 5\r\nConnection: Content-Length\r\n\r\nhello")},
		// What is left over begins the next request: "oGET", "helloGET".
		{"201 405", post("Content-Length: 4\r\n\r\nhello")},
		{"201 405", post("Content-Length: 0\r\n\r\nhello")},
		{"201 405", post("\r\nhello")},

		{"201 200", post(chunked + "5\r\nhello\r\n0\r\n\r\n")},
		{"201 200", post(chunked + "5;ext=\"\r\nhello\r\n0\r\n\r\n")},
		{"201 200", post("Transfer-Encoding: chunked\r\nTrailer: X-Key\r\n\r\n5\r\nhello\r\n0\r\nX-Key: late\r\n\r\n")},
		{"400", post(chunked + "5\nhello\n0\n\n")},
		{"400", post(chunked + "-5\r\nhello\r\n0\r\n\r\n")},
		{"400", post(chunked + "0x5\r\nhello\r\n0\r\n\r\n")},
		{"400", post(chunked + "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n")},
		{"400", post(chunked + "5\r\nhelloXX0\r\n\r\n")},
		{"400", post(chunked + "5;" + strings.Repeat("x", 20<<10) + "\r\nhello\r\n0\r\n\r\n")},
		{"501", post("Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		{"501", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		{"501", post("Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello")},
		{"501", post("Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello")},
		{"400", post("Transfer-Encoding:\vchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		{"400", post("Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},

		// The first line.
		{"201 200", "POST /t/a HTTP/1.1\nHost: localhost\nContent-Length: 5\n\nhello"},
		{"201 200", line("POST /t/a HTTP/1.9")},
		{"400", line("POST /t/a HTTP/1.1\r")},
		{"400", line("POST  /t/a HTTP/1.1")},
		{"400", line("POST /t/a  HTTP/1.1")},
		{"400", line("POST /t/a http/1.1")},
		{"400", line("POST /t/a")},
		{"400", line("POST t/a HTTP/1.1")},
		{"400", line("P\x00ST /t/a HTTP/1.1")},
		{"400", "\r\n\r\n" + post("Content-Length: 5\r\n\r\nhello")},
		{"405 200", line("post /t/a HTTP/1.1")},
		{"405 200", line("TRACE /t/a HTTP/1.1")},
		{"405 200", line("CONNECT /t/a HTTP/1.1")},
		{"404 200", line("POST * HTTP/1.1")},
		{"404 200", line("POST //localhost/t/a HTTP/1.1")},
		{"505", line("POST /t/a HTTP/0.9")},
		{"505", line("POST /t/a HTTP/2.0")},
		{"505", "PRI * HTTP/2.0\r\nHost: localhost\r\n\r\nSM\r\n\r\n"},
		{"400", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"}, // TLS
		{"400", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\r\n\r\n"},
		{"400", "CONNECT\naccept-version:1.2\nhost:localhost\n\n\x00\r\n\r\n"}, // STOMP
		{"431", "POST /t/a HTTP/1.1\r\nHost: localhost\r\nX-A: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"},
		{"431", "POST /t/" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n"},

		// HTTP/1.0 has no chunks and needs no Host, but the broker does.
		{"201", line("POST /t/a HTTP/1.0")},
		{"201 200", "POST /t/a HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"},
		{"411", "POST /t/a HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n" + chunked + "5\r\nhello\r\n0\r\n\r\n"},
		{"421", "POST /t/a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"},

		// Paths, which are decoded once and cleaned never.
		{"201 200", line("POST /t/a%252fb HTTP/1.1")},
		{"201 200", line("POST /t/a%0d%0aX-Evil:%201 HTTP/1.1")},
		{"201 200", line("POST /t/../v1/queues HTTP/1.1")},
		{"201 200", line("POST /t/./a//b;c HTTP/1.1")},
		{"201 200", line("POST http://localhost/t/a HTTP/1.1")},
		{"400 200", line("POST /t/a%2fb HTTP/1.1")},
		{"400 200", line("POST /t/a%2Fb HTTP/1.1")},
		{"400 200", line("POST /t/%00 HTTP/1.1")},
		{"400", line("POST /t/\x00 HTTP/1.1")},
		{"400", line("POST /t/%zz HTTP/1.1")},
		{"400", line("POST /t/% HTTP/1.1")},
		{"400 200", line("POST /t/\xff HTTP/1.1")},
		{"400 200", line("POST /t/%c0%af HTTP/1.1")},
		{"400 200", line("POST /t/%ed%a0%80 HTTP/1.1")},
		{"400 200", line("POST /t/a#b HTTP/1.1")},
		{"400 200", line("POST /t/+/b HTTP/1.1")},
		{"400 200", line("POST /t/" + strings.Repeat("x", 1025) + " HTTP/1.1")},
		{"400 200", line("POST /t/" + strings.Repeat("x/", 40) + " HTTP/1.1")},
		{"403 200", line("POST /t/$SYS/x HTTP/1.1")},

		// Hosts.
		{"201 200", host("Host: localhost:99999\r\n")},
		{"400", host("")},
		{"400", host("Host: localhost\r\nHost: localhost\r\n")},
		{"400", host("Host: localhost@evil.example\r\n")},
		{"400", host("Host: local host\r\n")},
		{"400", host("Host: localhost\r\n Host: evil.example\r\n")},
		{"421 200", host("Host:\r\n")},
		{"421 200", host("Host: evil.example\r\n")},
		{"421 200", host("Host: localhost.evil.example\r\n")},
		{"421 200", host("Host: 169.254.169.254\r\n")},
		{"421 200", line("POST http://evil.example/t/a HTTP/1.1")},

		// Headers.
		{"100 201 200", post("Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")},
		{"417", post("Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello")},
		{"201 200", post("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello")},
		{"201 200", post("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n\r\nhello")},
		{"201", post("Connection: close\r\nContent-Length: 5\r\n\r\nhello")},
		{"400", post("X-Key: a\x00b\r\nContent-Length: 5\r\n\r\nhello")},
		{"400", post("X-Key: a\rb\r\nContent-Length: 5\r\n\r\nhello")},
		{"400", post("X Key: a\r\nContent-Length: 5\r\n\r\nhello")},
		{"400", post("X-Key\r\nContent-Length: 5\r\n\r\nhello")},
		{"400", post(": a\r\nContent-Length: 5\r\n\r\nhello")},
		{"400 200", post("X-Key: \xff\r\nContent-Length: 5\r\n\r\nhello")},
		{"400 200", post("X-Key: a\r\nX-Key: b\r\nContent-Length: 5\r\n\r\nhello")},
		{"201 200", post("User-Agent: \xff\r\nContent-Length: 5\r\n\r\nhello")},
		{"400 200", post("Content-Type: \xff\r\nContent-Length: 5\r\n\r\nhello")},
		{"400 200", post("Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 5\r\n\r\nhello")},
		{"415 200", post("Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello")},
		{"415 200", post("Content-Encoding: identity, gzip\r\nContent-Length: 5\r\n\r\nhello")},
		{"403 200", post("Origin: null\r\nContent-Length: 5\r\n\r\nhello")},
		{"403 200", post("Origin: https://evil.example\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")},
		{"403 200", post("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 5\r\n\r\nhello")},
		{"401 200", post("Authorization: Basic \xff\r\nContent-Length: 5\r\n\r\nhello")},
	} {
		fresh, lane := d.ask(c.request + last)
		other, carried := d.ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + c.request + last)
		if fresh != c.statuses || other != "200 "+c.statuses {
			t.Errorf("%.150q: a lane answers %s, net/http %s, want %s", c.request, fresh, other, c.statuses)
		} else if got, want := fmt.Sprint(lane), fmt.Sprint(carried[1:]); got != want {
			t.Errorf("%.150q: a lane answers\n%s\nnet/http\n%s", c.request, got, want)
		}
	}
	if ms := d.want(200, "GET", "/t/%23?limit=1000&from=1", "").messages(t); len(ms) < 30 {
		t.Errorf("%d messages", len(ms))
	} else {
		for _, m := range ms {
			if d := string(m.D); !strings.HasPrefix(`"hello"`, strings.TrimSuffix(d, `"`)) || m.Key != "" {
				t.Errorf("%+v", m)
			}
		}
	}
}

var routeNames = regexp.MustCompile(`\{\w+\}|\*`)

// TestMethodsOfRoutes asks each route of the router for what it has not.
func TestMethodsOfRoutes(t *testing.T) {
	d := open(t)
	all := []string{"GET", "HEAD", "POST", "PUT", "DELETE"}
	routes := d.server.Routes()
	if len(routes) < 30 {
		t.Fatalf("%d routes", len(routes))
	}
	for pattern := range routes {
		path := routeNames.ReplaceAllString(pattern, "a")
		var methods []string // of every pattern that the path fits
		for other, of := range routes {
			if regexp.MustCompile("^" + routeNames.ReplaceAllString(strings.ReplaceAll(other, ".", `\.`), "[^/]+") + "$").MatchString(path) {
				methods = append(methods, of...)
			}
		}
		allow := ""
		for _, m := range all {
			if slices.Contains(methods, m) {
				allow += m + ", "
			}
		}
		allow += "OPTIONS"
		if a := d.want(204, "OPTIONS", path, ""); a.Header.Get("Allow") != allow {
			t.Errorf("OPTIONS %s allows %q, want %q", path, a.Header.Get("Allow"), allow)
		}
		for _, m := range append(all, "PATCH", "TRACE", "PROPFIND", "get") {
			if slices.Contains(methods, m) {
				continue
			}
			a := d.want(405, m, path, "")
			if a.Header.Get("Allow") != allow {
				t.Errorf("%s %s allows %q, want %q", m, path, a.Header.Get("Allow"), allow)
			}
			if m != "HEAD" {
				d.isHelpful(a)
				d.isProblem(a, 405, "method-not-allowed")
			}
		}
	}
	if a := d.want(204, "OPTIONS", "*", ""); !strings.Contains(a.Header.Get("Allow"), "DELETE") {
		t.Errorf("OPTIONS *: %v", a.Header)
	}
}

// TestForeignersOnRoutes asks each route, by each of its methods, as a page of
// another site would, and by a name that was rebound to the broker's address.
func TestForeignersOnRoutes(t *testing.T) {
	d := open(t)
	asked := 0
	for pattern, methods := range d.server.Routes() {
		path := routeNames.ReplaceAllString(pattern, "a")
		for _, method := range append(methods, "OPTIONS") {
			for foreigner, want := range map[string]int{
				"Host: evil.example": 421, "Origin: http://evil.example": 403, "Origin: null": 403, "Origin: http://127.0.0.1:1": 403,
				"Sec-Fetch-Site: cross-site": 403, "Sec-Fetch-Site: same-site": 403,
			} {
				asked++
				if a := d.do(method, path, "", foreigner); a.StatusCode != want {
					t.Errorf("%s %s with %s: %s, want %d", method, path, foreigner, a.Status, want)
				}
			}
		}
	}
	if asked < 400 {
		t.Errorf("only %d were asked", asked)
	}
}

// TestNamesOfRoutes gives each route names that are none.
func TestNamesOfRoutes(t *testing.T) {
	d := open(t)
	for pattern, methods := range d.server.Routes() {
		if strings.HasPrefix(pattern, "/lease/") || !routeNames.MatchString(pattern) {
			continue // a token is looked at as a whole
		}
		method := methods[0]
		bad := []string{"%00", "a%00b", "%FF", "%C0%AF", "%ED%A0%80", "%23%23"}
		if strings.HasSuffix(pattern, "*") && !strings.HasPrefix(pattern, "/x/") {
			bad = append(bad, "a%2fb", "a%2F", "", "/"+strings.Repeat("x/", 32))
		}
		for _, name := range bad {
			at := routeNames.FindAllStringIndex(pattern, -1)
			last := at[len(at)-1]
			path := routeNames.ReplaceAllString(pattern[:last[0]], "a") + name + pattern[last[1]:]
			a := d.do(method, path, "{}", "Content-Type: application/json")
			if a.StatusCode != 400 && a.StatusCode != 404 {
				t.Errorf("%s %s: %s", method, path, a.Status)
				continue
			}
			if method != "HEAD" {
				d.isHelpful(a)
			}
		}
	}
}

// TestNumbers: no number is so large that it becomes another one.
func TestNumbers(t *testing.T) {
	d := open(t)
	const most, over = "9223372036854775807", "18446744073709551616"
	for _, n := range []string{most, over, "-1", "-" + most, "1e9", "1e400", "0x10", "1_000", "١", " 1", "+1", "NaN", "1.5"} {
		n = url.QueryEscape(n)
		for _, target := range []string{
			"GET /t/a?limit=", "GET /q/q?limit=", "GET /v1/queues?limit=", "GET /v1/retained?limit=", "GET /v1/topics?limit=", "POST /q/q/lease?max=",
		} {
			method, path, _ := strings.Cut(target, " ")
			if a := d.refused(400, "bad-request", method, path+n, ""); !strings.Contains(a.body, "a number from") {
				t.Errorf("%s%s: %s", path, n, a.body)
			}
		}
	}
	for _, n := range []string{most, over, "-1", most + "h", "-1s", "1e30s", "1e400s", "99999999d", "s", "١s"} {
		for _, target := range []string{"GET /t/a?wait=", "POST /t/a?reply=", "POST /q/q/lease?wait=", "POST /q/q/lease?for="} {
			method, path, _ := strings.Cut(target, " ")
			d.refused(400, "bad-request", method, path+url.QueryEscape(n), "")
		}
		for _, h := range []string{"X-TTL: ", "X-Delay: "} {
			d.refused(400, "bad-request", "POST", "/t/a", "x", nethttp.CanonicalHeaderKey(h[:len(h)-2])+": "+n)
		}
	}
	for _, n := range []string{over, "-" + over, "1.5", "1e400", "-0", "0x1", "--1", "@9999999999h", "@-1h", "@1e30h", "@99999-01-01T00:00:00Z"} {
		d.refused(400, "invalid-from", "GET", "/t/a?from="+url.QueryEscape(n), "")
	}
	// A from that no log reaches is told as such.
	d.refused(416, "offset-ahead", "GET", "/t/a?from="+most, "")
	for _, line := range []string{
		`"ttl":` + most, `"ttl":` + over, `"ttl":-1`, `"ttl":1.5`, `"ttl":1e3`, `"ttl":"1"`, `"delay":` + most, `"delay":-1`, `"delay":` + over,
		`"prio":10`, `"prio":-1`, `"prio":256`, `"prio":` + over, `"prio":4.5`,
	} {
		a := d.want(200, "POST", "/t/n", "{"+line+"}\n", "Content-Type: application/x-ndjson")
		if ms := a.messages(t); len(ms) != 1 || ms[0].Err == nil {
			t.Errorf("%s: %s", line, a.body)
		}
	}
	for _, settings := range []string{
		`{"max_attempts":` + over + `}`, `{"max_attempts":1.5}`, `{"lease":"` + most + `h"}`, `{"lease":"-1s"}`,
		`{"max_length":-1}`, `{"max_length":` + over + `}`, `{"max_bytes":` + over + `}`, `{"ttl":"-1s"}`, `{"backoff":"1e400s"}`,
	} {
		d.refused(400, "bad-request", "PUT", "/v1/queues/a", `{"settings":`+settings+`}`)
	}
	d.want(404, "GET", "/v1/queues/a", "")
	if ms := d.want(200, "GET", "/t/%23", "").messages(t); len(ms) != 0 {
		t.Errorf("something was published: %+v", ms)
	}
}
