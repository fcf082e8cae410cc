package ws

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNegotiate goes through paths and subprotocols.
func TestNegotiate(t *testing.T) {
	r := newRig(t, carrying(echo, echo))
	for _, c := range []struct {
		path   string
		named  []string
		status int
		chosen string
	}{
		{"/ws", nil, 101, ""},
		{"/ws", []string{"sluice.v1.json"}, 101, "sluice.v1.json"},
		{"/ws", []string{"other", "mqtt"}, 101, "mqtt"},
		{"/ws", []string{"mqttv3.1"}, 101, "mqttv3.1"},
		{"/ws", []string{"v10.stomp", "v11.stomp", "v12.stomp"}, 101, "v12.stomp"},
		{"/ws", []string{"v10.stomp"}, 101, "v10.stomp"},
		{"/ws", []string{"other"}, 400, ""},
		{"/mqtt", []string{"mqtt"}, 101, "mqtt"},
		{"/mqtt", nil, 400, ""}, // [MQTT-6.0.0-3]
		{"/mqtt", []string{"v12.stomp"}, 400, ""},
		{"/mqtt", []string{"sluice.v1.json"}, 400, ""},
		{"/stomp", nil, 101, ""},
		{"/stomp", []string{"v11.stomp"}, 101, "v11.stomp"},
		{"/stomp", []string{"mqtt"}, 400, ""},
	} {
		_, answer := r.dial(c.path, nil, c.named...)
		if answer.StatusCode != c.status || answer.Header.Get("Sec-WebSocket-Protocol") != c.chosen {
			t.Errorf("%s %q: %d %q", c.path, c.named, answer.StatusCode, answer.Header.Get("Sec-WebSocket-Protocol"))
		}
	}
	off := newRig(t)
	if _, answer := off.dial("/mqtt", nil, "mqtt"); answer.StatusCode != 400 {
		t.Errorf("a protocol that is switched off: %d", answer.StatusCode)
	}
}

func TestOrigin(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.Origins = []string{"https://app.example.com"} })
	own := r.http.URL
	for origin, status := range map[string]int{
		own: 101, "": 101, "https://app.example.com": 101, "HTTPS://APP.example.com": 101,
		"https://evil.example.com": 403, "https://app.example.com.evil.com": 403, "null": 403, "http://app.example.com": 403,
		"%": 403, own + "0": 403,
	} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		if _, answer := r.dial("/ws", h); answer.StatusCode != status {
			t.Errorf("Origin %q: %d, want %d", origin, answer.StatusCode, status)
		}
	}
	r.wantRefused("origin")
	if _, answer := r.dial("/ws", http.Header{"Origin": {own, "https://evil.example.com"}}); answer.StatusCode != 403 {
		t.Errorf("two origins: %d", answer.StatusCode)
	}
	anyone := newRig(t, func(o *rigOptions) { o.Origins = []string{"*"} })
	if _, answer := anyone.dial("/ws", http.Header{"Origin": {"null"}}); answer.StatusCode != 101 {
		t.Errorf("any origin: %d", answer.StatusCode)
	}
}

// TestNotWebSocket: what is no handshake is answered in HTTP, by a problem.
func TestNotWebSocket(t *testing.T) {
	r := newRig(t)
	get := func(method string, header map[string]string) *http.Response {
		q, _ := http.NewRequest(method, r.http.URL+"/ws", nil)
		for k, v := range header {
			q.Header.Set(k, v)
		}
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		body, _ := io.ReadAll(a.Body)
		var problem struct {
			Status int
			Type   string
			Title  string
			Detail string
			Hint   string
		}
		if err := json.Unmarshal(body, &problem); err != nil || problem.Status != a.StatusCode || problem.Detail == "" || problem.Hint == "" || !strings.HasPrefix(problem.Type, refusalType) || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %v: %s %s", method, header, a.Status, body)
		}
		return a
	}
	if a := get("GET", nil); a.StatusCode != 426 || a.Header.Get("Upgrade") != "websocket" {
		t.Errorf("a plain GET: %s", a.Status)
	}
	upgrade := func(more ...string) map[string]string {
		h := map[string]string{"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	for _, c := range []struct {
		method string
		header map[string]string
		status int
	}{
		{"POST", upgrade(), 405},
		{"GET", upgrade("Sec-WebSocket-Version", "8"), 400},
		{"GET", upgrade("Sec-WebSocket-Key", "short"), 400},
		{"GET", upgrade("Authorization", "Digest x"), 400},
	} {
		a := get(c.method, c.header)
		if a.StatusCode != c.status {
			t.Errorf("%s %v: %s, want %d", c.method, c.header, a.Status, c.status)
		}
		if c.header["Sec-WebSocket-Version"] == "8" && a.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Error("the version that is spoken is not named (RFC 6455, section 4.4)")
		}
	}
}

func guarded(o *rigOptions) { o.authorizer = guard{} }

// TestCredentials shows them in every way that the upgrade request has.
func TestCredentials(t *testing.T) {
	r := newRig(t, guarded)
	for _, c := range []struct {
		path, authorization string
		status              int
	}{
		{"/ws", "Bearer secret", 101},
		{"/ws", "bearer  secret", 101},
		{"/ws", "Basic YW5uOnBhc3M=", 101},
		{"/ws?token=secret", "", 101},
		{"/ws", "Bearer no", 401},
		{"/ws", "Basic YW5uOm5v", 401},
		{"/ws", "Basic Om5v", 401}, // a password alone
		{"/ws?token=%zz", "", 400},
		{"/ws?token=secret&client=" + strings.Repeat("x", 257), "", 400},
		{"/ws?token=secret&client=%ff", "", 400},
	} {
		h := http.Header{}
		if c.authorization != "" {
			h.Set("Authorization", c.authorization)
		}
		conn, answer := r.dial(c.path, h)
		if answer.StatusCode != c.status {
			t.Errorf("%s %q: %d", c.path, c.authorization, answer.StatusCode)
			continue
		}
		if conn != nil && !strings.Contains(conn.next(), `"user":"ann"`) {
			t.Errorf("%s %q: no welcome for ann", c.path, c.authorization)
		}
		if c.status == 401 && answer.Header.Get("WWW-Authenticate") == "" {
			t.Error("401 without a challenge")
		}
	}
	r.wantRefused("unauthenticated")
}

// TestLoginRate: after too many failures an address waits, on both ways in.
func TestLoginRate(t *testing.T) {
	r := newRig(t, guarded, func(o *rigOptions) { o.Limits.LoginFailuresPerAddress = 3 })
	for range 3 {
		if _, a := r.dial("/ws?token=no", nil); a.StatusCode != 401 {
			t.Fatalf("%d", a.StatusCode)
		}
	}
	if _, a := r.dial("/ws?token=secret", nil); a.StatusCode != 429 || a.Header.Get("Retry-After") == "" {
		t.Fatalf("%d after too many failures: %v", a.StatusCode, a.Header)
	}
	c, _ := r.dial("/ws", nil)
	c.send(`{"op":"hello","token":"secret"}`)
	c.want(`{"op":"err","code":"login_rate","text":"too many failed logins from this address: wait a minute","retry":true}`)
	c.want("close 4429 too many failed logins from this address: wait a minute")
	r.wantRefused("login_rate")
}

// TestNoHello: the time for the hello is absolute, and little may be sent
// before it.
func TestNoHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inBubble, guarded, func(o *rigOptions) { o.Limits.Handshake = 5 * time.Second })
		begin := time.Now()
		c, _ := r.dial("/ws", nil)
		c.want("close 4408 no hello in time")
		r.wantRefused("handshake_timeout")

		slow := r.raw("/ws", "")
		go io.Copy(io.Discard, slow)
		slow.Write(masked(0x01, `{"op":`))
		for time.Since(begin) < time.Minute {
			if _, err := slow.Write(masked(0x00, " ")); err != nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took < 10*time.Second || took > 12*time.Second {
			t.Fatalf("two that said no hello took %v", took)
		}
	})

	r := newRig(t, guarded, func(o *rigOptions) { o.Limits.PreAuthBytes = 1000 })
	big, _ := r.dial("/ws", nil)
	big.send(`{"op":"hello","token":"` + strings.Repeat("x", 1000) + `"}`)
	big.want("close 1009")
	r.wantRefused("message_too_large")
}
