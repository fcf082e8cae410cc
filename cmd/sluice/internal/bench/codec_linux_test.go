package bench

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-stomp/stomp/v3/frame"
	"github.com/gorilla/websocket"
)

// wire is what Go's own server answers, with the connection closed behind it.
func wire(t *testing.T, h http.HandlerFunc) []byte {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	fd, err := new(dialer).dial(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := say(fd, []byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	b, err := hear(fd, func(b []byte) int {
		_, _, n, _ := nextHTTP(b)
		return n
	})
	if err != nil {
		t.Fatalf("%v: %q", err, b)
	}
	return b
}

func TestAnswersOfGoAreRead(t *testing.T) {
	long := strings.Repeat("{\"o\":1}\n", 3000)
	for _, c := range []struct {
		name   string
		h      http.HandlerFunc
		status int
		lines  int
	}{
		{"with a length", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); fmt.Fprint(w, "{\"o\":1}\n") }, 201, 1},
		{"in chunks", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, long) }, 200, 3000},
		{"flushed", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "{\"o\":1}\n")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "{\"o\":2}\n")
		}, 200, 2},
		{"empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, 204, 0},
	} {
		b := wire(t, c.h)
		status, body, n, err := nextHTTP(b)
		if status != c.status || bytes.Count(body, []byte(`"o":`)) != c.lines || n != len(b) || err != nil {
			t.Errorf("%s: status %d, %d lines, %d of %d bytes, %v", c.name, status, bytes.Count(body, []byte(`"o":`)), n, len(b), err)
		}
		if _, _, n, err := nextHTTP(b[:len(b)-1]); n != 0 || err != nil {
			t.Errorf("%s, cut short: %d bytes, %v", c.name, n, err)
		}
	}
	for _, bad := range []string{"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"} {
		if _, _, _, err := nextHTTP([]byte(bad)); err == nil {
			t.Errorf("%q is taken as an answer", bad)
		}
	}
}

// Events are read whole, wherever chunks end.
func TestEventsOverChunks(t *testing.T) {
	x := noise(5)
	var stream []byte
	const events = 20
	for seq := range uint64(events) {
		stream = fmt.Appendf(stream, "id: %d\ndata: ", seq)
		stream = append(x.appendText(stream, 100, 0, seq, 0), '\n', '\n')
	}
	for _, size := range []int{1, 7, 100, 1000, len(stream)} {
		s := &sseReceiver{textReceiver: textReceiver{load: newTraffic(&loop{}, 0), ledger: newLedger(1)}}
		var chunked, rest []byte
		for b := stream; len(b) > 0; b = b[min(size, len(b)):] {
			chunked = fmt.Appendf(chunked, "%x\r\n%s\r\n", min(size, len(b)), b[:min(size, len(b))])
		}
		for b := chunked; len(b) > 0; b = b[min(33, len(b)):] {
			rest = append(rest, b[:min(33, len(b))]...)
			taken, err := s.received(nil, rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = append([]byte(nil), rest[taken:]...)
		}
		if s.got != events || s.lost+s.late > 0 || len(rest) > 0 {
			t.Errorf("chunks of %d: got %d of %d, lost %d, late %d, %d bytes left", size, s.got, events, s.lost, s.late, len(rest))
		}
	}
}

func TestFramesOfOthersAreRead(t *testing.T) {
	body := noise(8).fill(100)
	body[50] = 0
	var b bytes.Buffer
	w := frame.NewWriter(&b)
	message := frame.New(frame.MESSAGE, "subscription", "0", "message-id", "1-6", "ack", "1-6", "content-length", "100", "destination", "/queue/x")
	message.Body = body
	for _, f := range []*frame.Frame{message, frame.New(frame.RECEIPT, "receipt-id", "77"), nil} {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	in := b.Bytes()
	for cut := range in {
		nextSTOMP(in[:cut])
	}
	command, headers, got, n, err := nextSTOMP(in)
	ack, _ := stompHeader(headers, "ack")
	if string(command) != "MESSAGE" || string(ack) != "1-6" || !bytes.Equal(got, body) || err != nil {
		t.Fatalf("%s %q %d bytes, %v", command, ack, len(got), err)
	}
	command, headers, _, m, err := nextSTOMP(in[n:])
	id, _ := stompHeader(headers, "receipt-id")
	if string(command) != "RECEIPT" || string(id) != "77" || err != nil {
		t.Fatalf("%s %q, %v", command, id, err)
	}
	if command, _, _, k, err := nextSTOMP(in[n+m:]); len(command) > 0 || n+m+k != len(in) || err != nil {
		t.Errorf("a heart-beat is %q, %d of %d bytes, %v", command, n+m+k, len(in), err)
	}
	if _, ok := stompHeader(headers, "receipt"); ok {
		t.Error("a header is found by the beginning of its name")
	}
}

// A frame that gorilla's client reads as ours is what our reader reads of it.
func TestWebSocketWithOthers(t *testing.T) {
	u := websocket.Upgrader{}
	said := make(chan string, 3)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for range 3 {
			_, b, err := c.ReadMessage()
			if err != nil {
				t.Error(err)
				return
			}
			said <- string(b)
			if err := c.WriteMessage(websocket.TextMessage, b); err != nil {
				t.Error(err)
				return
			}
		}
	}))
	defer s.Close()
	fd, err := new(dialer).dial(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := askHTTP(fd, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 101); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{5, 126, 60000} {
		text := strings.Repeat("x", n)
		if err := say(fd, appendWS(nil, wsText, []byte(text))); err != nil {
			t.Fatal(err)
		}
		if got := <-said; got != text {
			t.Errorf("%d bytes are read as %d", n, len(got))
		}
		b, err := hear(fd, func(b []byte) int { _, _, n, _ := nextWS(b); return n })
		if err != nil {
			t.Fatal(err)
		}
		if opcode, payload, size, err := nextWS(b); opcode != wsText || string(payload) != text || size != len(b) || err != nil {
			t.Errorf("%d bytes come back as type %d, %d bytes, %v", n, opcode, len(payload), err)
		}
	}
	for _, bad := range [][]byte{{0x81, 0x85, 0, 0}, {0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0}} {
		if _, _, _, err := nextWS(bad); err == nil {
			t.Errorf("% x is taken as a frame", bad)
		}
	}
}
