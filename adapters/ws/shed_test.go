package ws

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A client that does not read while the memory is short is told to come again,
// with the close code that says so, behind what was on its way and not behind
// all that it did not read.
func TestSlowClientIsShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		broker, err := core.Open(ctx, core.Options{Engine: coretest.NewEngine()})
		if err != nil {
			t.Fatal(err)
		}
		defer broker.Close(ctx)
		counts := prometheus.NewRegistry()
		s := New(broker, Options{
			Limits: adapters.DefaultLimits(), Gate: adapters.NewGate(adapters.DefaultLimits()), Metrics: adapters.NewMetrics(counts), Logger: slog.New(slog.DiscardHandler),
		})
		defer s.Close(ctx)
		ours, theirs := net.Pipe()
		defer ours.Close()
		r := httptest.NewRequest(http.MethodGet, "/ws", nil)
		for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
			r.Header.Set(k, v)
		}
		s.ServeHTTP(stubWriter{httptest.NewRecorder(), theirs}, r)
		in := bufio.NewReader(ours)
		if _, err := http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
		frame := func() (kind byte, text string) {
			t.Helper()
			var h [4]byte
			if _, err := io.ReadFull(in, h[:2]); err != nil {
				t.Fatal(err)
			}
			n := int(h[1])
			if n == 126 {
				io.ReadFull(in, h[2:])
				n = int(h[2])<<8 | int(h[3])
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(in, b); err != nil {
				t.Fatal(err)
			}
			return h[0] & 0xF, string(b)
		}
		frame() // welcome
		go ours.Write(masked(0x80|websocket.TextMessage, `{"op":"sub","req":1,"topic":"t","credit":1000}`))
		frame() // ok
		publisher, err := broker.Connect(ctx, core.Credentials{Protocol: "test", Client: "p"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer publisher.Close()
		for range 20 {
			if err := publisher.Publish(ctx, &core.Envelope{Topic: "t", Payload: []byte(strings.Repeat("x", 8<<10))}, 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for range 2 {
			time.Sleep(time.Second)
			broker.SetResources(core.Resources{MemoryUsed: 90 << 20, MemoryTotal: 100 << 20})
			synctest.Wait()
		}
		n := 0
		_, text := frame()
		for ; strings.HasPrefix(text, `{"op":"msg"`); _, text = frame() {
			n++
		}
		if n >= 20 || !strings.HasPrefix(text, `{"op":"err","code":"limit"`) || !strings.Contains(text, `"retry":true`) {
			t.Errorf("%d messages, and then %s", n, text)
		}
		if kind, text := frame(); kind != websocket.CloseMessage || text[:2] != "\x03\xf5" || !strings.Contains(text, "come again") {
			t.Errorf("closed by a frame %d %q", kind, text)
		}
	})
}
