package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

const tokenSecret = "a secret of the broker's and of its issuer's"

// tokenFor is a token of a user's that is good for so long.
func tokenFor(t *testing.T, user string, d time.Duration, roles ...string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(tokenSecret)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{"sub": user, "roles": roles, "exp": float64(time.Now().Add(d).UnixMilli()) / 1000}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// tokenGateway is a broker that takes such tokens. It returns its addresses.
func tokenGateway(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	text := `
auth:
  tokens:
    - {keys: secret}
  rules:
    - {who: [role:device], allow: [publish], filters: ["devices/%u"]}
    - {who: [users], allow: [subscribe], filters: ["news"]}
`
	for name, content := range map[string]string{"sluice.yaml": text, "secret": tokenSecret + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := configs.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, addresses := serveGateway(t, cfg)
	return addresses
}

// TestTokensNameUsers: a token is good on every door in a password's place,
// and its roles are those that the rules speak of.
func TestTokensNameUsers(t *testing.T) {
	addresses := tokenGateway(t)
	token := tokenFor(t, "d1", time.Hour, "device")
	for _, via := range link.Protocols {
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			publish := func(user, password, topic string) error {
				l, err := link.Dial(context.Background(), via, link.Options{Address: addresses[via], User: user, Password: password, Timeout: time.Minute})
				if err != nil {
					return err
				}
				defer l.Close()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				_, err = l.Publish(ctx, &link.Message{Envelope: core.Envelope{Topic: topic, Payload: []byte("x"), Guarantee: core.AtLeastOnce}})
				return err
			}
			for _, user := range []string{"d1", "jwt"} {
				if err := publish(user, token, "devices/d1"); err != nil {
					t.Errorf("%s as %s: %v", via, user, err)
				}
			}
			if err := publish("jwt", token, "devices/d2"); !errors.Is(err, core.ErrNotAuthorized) {
				t.Errorf("%s: another's topic: %v", via, err)
			}
			if err := publish("jwt", tokenFor(t, "d1", time.Hour), "devices/d1"); !errors.Is(err, core.ErrNotAuthorized) {
				t.Errorf("%s: without the role: %v", via, err)
			}
			if err := publish("d2", token, "devices/d1"); err == nil {
				t.Errorf("%s: another user's token was taken", via)
			}
			if err := publish("jwt", token[:len(token)-2]+"AA", "devices/d1"); err == nil {
				t.Errorf("%s: a forged token was taken", via)
			}
		})
	}

	// As a bearer token over HTTP, and in the hello of a WebSocket.
	req, _ := nethttp.NewRequest("POST", "http://"+addresses["http"]+"/t/devices/d1", strings.NewReader("x"))
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := nethttp.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != nethttp.StatusCreated {
		t.Errorf("bearer: %s", res.Status)
	}
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+addresses["ws"]+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.WriteJSON(map[string]string{"op": "hello", "token": token})
	var hello struct{ Op, User string }
	if err := ws.ReadJSON(&hello); err != nil || hello.Op != "welcome" || hello.User != "d1" {
		t.Errorf("hello: %+v, %v", hello, err)
	}
}

// TestTokensEnd: a connection ends with its token, and is told why in its
// protocol's own words.
func TestTokensEnd(t *testing.T) {
	addresses := tokenGateway(t)
	dial := func(door string) net.Conn {
		c, err := net.Dial("tcp", addresses[door])
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(4 * time.Minute))
		t.Cleanup(func() { c.Close() })
		return c
	}
	// Each talks until its token's life is over; in is false where that was over
	// before the login.
	for name, talk := range map[string]func(t *testing.T, life time.Duration) (said string, in bool){
		"mqtt": func(t *testing.T, life time.Duration) (said string, in bool) {
			c, token := dial("mqtt"), tokenFor(t, "d1", life)
			body := append([]byte("\x00\x04MQTT\x05\xC2\x00\x3C\x00\x00\x00\x00\x03jwt"), byte(len(token)>>8), byte(len(token)))
			body = append(body, token...)
			c.Write(append([]byte{0x10, byte(len(body)&0x7F | 0x80), byte(len(body) >> 7)}, body...))
			all, err := io.ReadAll(c)
			if err != nil || len(all) < 5 || all[0] != 0x20 {
				t.Fatalf("% X, %v", all, err)
			}
			if all[3] != 0 {
				return fmt.Sprintf("% X", all), false
			}
			bye := all[2+int(all[1]):]
			if len(bye) < 3 || bye[0] != 0xE0 || bye[2] != 0x87 {
				t.Fatalf("want DISCONNECT with 0x87, got % X", bye)
			}
			return string(bye), true
		},
		"stomp": func(t *testing.T, life time.Duration) (said string, in bool) {
			c := dial("stomp")
			fmt.Fprintf(c, "CONNECT\naccept-version:1.2\nhost:x\nlogin:jwt\npasscode:%s\n\n\x00", tokenFor(t, "d1", life))
			all, err := io.ReadAll(c)
			if err == nil && strings.HasPrefix(string(all), "ERROR\n") {
				return string(all), false
			}
			if err != nil || !strings.HasPrefix(string(all), "CONNECTED\n") || !strings.Contains(string(all), "\x00ERROR\n") && !strings.Contains(string(all), "\x00\nERROR\n") {
				t.Fatalf("%q, %v", all, err)
			}
			return string(all), true
		},
		"sse": func(t *testing.T, life time.Duration) (said string, in bool) {
			c := dial("http")
			basic := base64.StdEncoding.EncodeToString([]byte("jwt:" + tokenFor(t, "d1", life)))
			fmt.Fprintf(c, "GET /sse/news HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n\r\n", addresses["http"], basic)
			res, err := nethttp.ReadResponse(bufio.NewReader(c), nil)
			if err == nil && res.StatusCode == nethttp.StatusUnauthorized {
				return res.Status, false
			}
			if err != nil || res.StatusCode != nethttp.StatusOK {
				t.Fatalf("%+v, %v", res, err)
			}
			all, err := io.ReadAll(res.Body)
			if err != nil || !strings.Contains(string(all), "event: error") {
				t.Fatalf("%q, %v", all, err)
			}
			return string(all), true
		},
		"ws": func(t *testing.T, life time.Duration) (said string, in bool) {
			ws, _, err := websocket.DefaultDialer.Dial("ws://"+addresses["ws"]+"/ws", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			ws.SetReadDeadline(time.Now().Add(4 * time.Minute))
			ws.WriteJSON(map[string]string{"op": "hello", "token": tokenFor(t, "d1", life)})
			var last json.RawMessage
			for {
				_, m, err := ws.ReadMessage()
				if err != nil {
					if !websocket.IsCloseError(err, 4401) {
						t.Fatalf("%v after %s", err, last)
					}
					return string(last), in
				}
				last, in = m, in || strings.Contains(string(m), `"op":"welcome"`)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said := ""
			for life, in := 2*time.Second, false; !in; life *= 6 {
				if life > 2*time.Minute {
					t.Fatalf("not let in: %q", said)
				}
				said, in = talk(t, life)
			}
			if !strings.Contains(said, "expired") {
				t.Errorf("it does not say why: %q", said)
			}
		})
	}
}
