package ws

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// serveFunc is a ConnServer.
type serveFunc func(ctx context.Context, c net.Conn) error

func (f serveFunc) OpenConn(c net.Conn) adapters.Conn {
	ctx, stop := context.WithCancel(context.Background())
	return carried{func() error { return f(ctx, c) }, stop}
}

// carried is a Conn.
type carried struct {
	serve func() error
	stop  func()
}

func (c carried) Serve() (rests bool, err error) { return false, c.serve() }
func (c carried) Stop()                          { c.stop() }

// echo answers every read by a write of the same bytes.
func echo(_ context.Context, c net.Conn) error {
	defer c.Close()
	buf := make([]byte, 700)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

func carrying(mqtt, stomp serveFunc) func(*rigOptions) {
	return func(o *rigOptions) {
		if mqtt != nil {
			o.MQTT = mqtt
		}
		if stomp != nil {
			o.STOMP = stomp
		}
	}
}

// TestCarrierStream sends a stream of bytes split over messages and frames in
// every way ([MQTT-6.0.0-2]) and wants it back.
func TestCarrierStream(t *testing.T) {
	r := newRig(t, carrying(echo, nil))
	rng := rand.New(rand.NewPCG(1, 2))
	stream := make([]byte, 200_000)
	for i := range stream {
		stream[i] = byte(rng.Uint32())
	}
	conn := r.raw("/mqtt", "mqtt")
	go func() {
		continued := false
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), rng.IntN(4))
			if rng.IntN(10) == 0 {
				n = min(len(rest), rng.IntN(70_000))
			}
			if rng.IntN(5) == 0 {
				conn.Write(masked(framePing, "in between"))
			}
			first := byte(0x02)
			if continued {
				first = 0
			}
			if continued = rng.IntN(2) == 0; !continued {
				first |= 0x80
			}
			conn.Write(masked(first, string(rest[:n])))
			rest = rest[n:]
		}
	}()
	var got []byte
	for len(got) < len(stream) {
		switch first, payload := readFrame(t, conn); first {
		case frameBinary:
			got = append(got, payload...)
		case framePong:
			if payload != "in between" {
				t.Fatalf("pong %q", payload)
			}
		default:
			t.Fatalf("frame %#x", first)
		}
	}
	if !bytes.Equal(got, stream) {
		t.Fatal("the stream came back changed")
	}
}

// TestCarrierText: MQTT refuses text messages, STOMP takes both kinds and
// answers text as text.
func TestCarrierText(t *testing.T) {
	r := newRig(t, carrying(echo, echo))
	c, _ := r.dial("/ws", nil, "mqtt")
	c.send("text")
	c.want("close 1003 binary messages only")
	r.wantRefused("text_message")

	c, _ = r.dial("/stomp", nil)
	c.send("gr\u00fc\u00df")
	kind, b, err := c.ws.ReadMessage()
	if err != nil || kind != websocket.TextMessage || string(b) != "gr\u00fc\u00df" {
		t.Fatalf("got %d %q, %v", kind, b, err)
	}
	c.ws.WriteMessage(websocket.BinaryMessage, []byte{0xff, 0})
	kind, b, err = c.ws.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage || string(b) != "\xff\x00" {
		t.Fatalf("got %d %q, %v", kind, b, err)
	}
	c.send("\xff")
	c.want("close 1007 not UTF-8")
	r.wantRefused("not_utf8")

	// A rune cut by the message's end is not UTF-8; one cut between frames is.
	conn := r.raw("/stomp", "v12.stomp")
	conn.Write(masked(0x01, "\xe2\x82"))
	conn.Write(masked(0x80, "\xac"))
	got := ""
	for len(got) < 3 {
		first, payload := readFrame(t, conn)
		if first != frameText && first != frameBinary {
			t.Fatalf("frame %#x", first)
		}
		got += payload
	}
	if got != "\u20ac" {
		t.Fatalf("got %q", got)
	}
	conn.Write(masked(frameText, "\xe2\x82"))
	for {
		if first, payload := readFrame(t, conn); first == frameClose {
			if payload != "\x03\xefnot UTF-8" {
				t.Fatalf("close %q", payload)
			}
			break
		}
	}
}

// TestCarrierEnds: a peer's close frame is io.EOF, as is a cut; the adapter's
// Close is a close frame.
func TestCarrierEnds(t *testing.T) {
	ended := make(chan error, 1)
	r := newRig(t, carrying(func(ctx context.Context, c net.Conn) error {
		err := echo(ctx, c)
		ended <- err
		return err
	}, func(_ context.Context, c net.Conn) error {
		defer c.Close()
		go func() {
			io.WriteString(c, "bye")
			c.Close()
		}()
		_, err := io.Copy(io.Discard, c)
		ended <- err
		return err
	}))
	c, _ := r.dial("/mqtt", nil, "mqtt")
	c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4000, "mine"), time.Now().Add(patience))
	c.want("close 4000")
	if err := <-ended; err != io.EOF {
		t.Fatalf("a close frame is %v", err)
	}
	c, _ = r.dial("/mqtt", nil, "mqtt")
	c.ws.NetConn().Close()
	if err := <-ended; err != io.EOF {
		t.Fatalf("a cut is %v", err)
	}
	c, _ = r.dial("/stomp", nil)
	c.want("bye")
	c.want("close 1000")
	if err := <-ended; err != net.ErrClosed {
		t.Fatalf("an own Close is %v", err)
	}
}

func TestCarrierDeadlines(t *testing.T) {
	ended := make(chan error, 2)
	r := newRig(t, carrying(func(_ context.Context, c net.Conn) error {
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		_, again := c.Read(make([]byte, 1))
		ended <- err
		ended <- again
		return err
	}, func(_ context.Context, c net.Conn) error {
		defer c.Close()
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, 1<<20))
		}
		ended <- err
		return err
	}))
	c, _ := r.dial("/mqtt", nil, "mqtt")
	for range 2 {
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a passed deadline is %v", err)
		}
	}
	c.want("close 1000")
	r.dial("/stomp", nil) // reads nothing
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a passed deadline is %v", err)
	}
}

// TestCarrierShutdown: Close ends the adapter's context and waits for it.
func TestCarrierShutdown(t *testing.T) {
	r := newRig(t, carrying(func(ctx context.Context, c net.Conn) error {
		<-ctx.Done()
		io.WriteString(c, "goodbye")
		return c.Close()
	}, nil))
	c, _ := r.dial("/mqtt", nil, "mqtt")
	go r.stop()
	c.want("goodbye")
	c.want("close 1001 the broker stops")
}

func TestCarrierCut(t *testing.T) {
	var cut atomic.Bool
	r := newRig(t, carrying(func(_ context.Context, c net.Conn) error {
		_, err := c.Read(make([]byte, 1)) // it does not look at its context
		cut.Store(true)
		return err
	}, nil))
	r.dial("/mqtt", nil, "mqtt")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.server.Close(ctx); err != context.DeadlineExceeded || !cut.Load() {
		t.Fatalf("%v, cut %t", err, cut.Load())
	}
}

func TestCarrierTLS(t *testing.T) {
	states := make(chan tls.ConnectionState, 1)
	r := newRig(t, carrying(func(_ context.Context, c net.Conn) error {
		states <- c.(interface{ ConnectionState() tls.ConnectionState }).ConnectionState()
		return c.Close()
	}, nil), func(o *rigOptions) { o.tls = true })
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	ws, _, err := d.Dial("wss"+strings.TrimPrefix(r.http.URL, "https")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if s := <-states; !s.HandshakeComplete {
		t.Fatal("the TLS state is lost")
	}
}

// TestCarrierVanished: a peer that answers no ping is cut.
func TestCarrierVanished(t *testing.T) {
	ended := make(chan error, 1)
	r := newRig(t, carrying(func(ctx context.Context, c net.Conn) error {
		err := echo(ctx, c)
		ended <- err
		return err
	}, nil), func(o *rigOptions) { o.Ping = 30 * time.Millisecond })
	conn := r.raw("/mqtt", "mqtt")
	if first, _ := readFrame(t, conn); first != framePing {
		t.Fatalf("frame %#x", first)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("a silent peer was not cut")
	}
}

// TestCarrierFrames: what the library lets pass does not pass here either.
func TestCarrierFrames(t *testing.T) {
	r := newRig(t, carrying(echo, nil))
	for _, frame := range [][]byte{masked(frameClose, "\x03"), {frameBinary, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1}} {
		conn := r.raw("/mqtt", "mqtt")
		conn.Write(cat(masked(frameBinary, "before"), frame))
		if first, payload := readFrame(t, conn); first != frameBinary || payload != "before" {
			t.Fatalf("frame %#x %q", first, payload)
		}
		if err := wantEnd(conn, 1002); err != nil {
			t.Fatal(err)
		}
		r.wantRefused("frame_malformed")
	}
}

func FuzzRuneChecker(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add([]byte("a\u00e4\u20ac\U0001f600"), uint64(0x1234))
	f.Add([]byte("\xe2\x82"), uint64(1))
	f.Fuzz(func(t *testing.T, text []byte, cuts uint64) {
		var r runeChecker
		ok := true
		for rest := text; len(rest) > 0 && ok; {
			n := min(len(rest), int(cuts&7))
			cuts = cuts>>3 | cuts<<61
			if cuts == 0 {
				n = len(rest)
			}
			ok = r.write(rest[:n])
			rest = rest[n:]
			if n == 0 {
				cuts++
			}
		}
		if ok = ok && r.done(); ok != utf8.Valid(text) {
			t.Fatalf("%q: %t", text, ok)
		}
	})
}

// FuzzCarrier reads a peer's bytes, whatever they are: no panic, and what is
// read is what the library reads from the same bytes.
func FuzzCarrier(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add(masked(frameBinary, "abc"))
	f.Add(append(masked(0x02, "ab"), masked(0x80, "c")...))
	f.Add(append(masked(framePing, "p"), masked(frameText, "\u20ac")...))
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4})
	r := newRig(f)
	f.Fuzz(func(t *testing.T, input []byte) {
		c := &carrier{srv: r.server, text: true}
		c.wire.Conn = &stub{in: bytes.NewReader(input)}
		c.ws = upgradeStub(t, carrierWire{c})
		var got []byte
		buf := make([]byte, 3)
		for {
			n, err := c.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if len(got) > len(input) {
			t.Fatalf("%d bytes of %d", len(got), len(input))
		}
		c.finish()
	})
}
