package ws

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// TestMessageSize: a payload at the limit passes in every form, one byte more is
// refused, and a message that no payload excuses closes the connection.
func TestMessageSize(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.Limits.MessageBytes = 100_000; o.Limits.HeaderBytes = 1000 })
	c := r.native()
	c.send(`{"op":"sub","topic":"big","sub":"s","credit":1000}`)
	n := 100_000
	for _, payload := range []string{strings.Repeat("a", n), strings.Repeat("\n", n), strings.Repeat("\u20ac", n/3), strings.Repeat("\xff", n)} {
		member := `"d":` + string(adapters.AppendJSONString(nil, payload))
		if payload[0] == 0xff {
			member = `"b":"` + base64.StdEncoding.EncodeToString([]byte(payload)) + `"`
		}
		c.send(`{"op":"pub","topic":"big",` + member + `}`)
		if got := c.next(); !strings.HasSuffix(got, member+"}") {
			t.Fatalf("a payload of %q... came back as %.200s", payload[:3], got)
		}
	}
	c.send(`{"op":"pub","req":1,"topic":"big","d":"` + strings.Repeat("a", n+1) + `"}`)
	c.want(`{"op":"err","req":1,"code":"too_large","text":"message too large: 100001 bytes, at most 100000 are allowed"}`)
	c.send(`{"op":"pub","req":2,"topic":"big","d":"x","id":"` + strings.Repeat("a", 1001) + `"}`)
	c.want(`{"op":"err","req":2,"code":"too_large","text":"message too large: key, id, type and corr have 1001 bytes, at most 1000 are allowed"}`)
	c.send(`{"op":"pub","topic":"big","d":"` + strings.Repeat("a", 3*n) + `"}`)
	c.want("close 1009")
	r.wantRefused("too_large")
	r.wantRefused("message_too_large")
}

func TestHeaderCount(t *testing.T) {
	r := newRig(t)
	c := r.native()
	c.send(`{"op":"pub","req":1,"topic":"h","h":[` + strings.Repeat(`["a","b"],`, 64) + `["a","b"]]}`)
	if got := c.next(); !strings.Contains(got, `"code":"malformed","text":"more than 64 headers`) {
		t.Fatal(got)
	}
}

func TestSubscriptionLimit(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.Limits.Subscriptions = 2 })
	c := r.native()
	for i := 1; i <= 2; i++ {
		c.send(fmt.Sprintf(`{"op":"sub","req":%d,"topic":"a","credit":1000}`, i))
		c.want(fmt.Sprintf(`{"op":"ok","req":%d,"sub":"%d","o":1}`, i, i))
	}
	c.send(`{"op":"sub","req":3,"topic":"a","credit":1000}`)
	c.want(`{"op":"err","req":3,"code":"limit","text":"limit reached: at most 2 subscriptions","retry":true}`)
	c.send(`{"op":"unsub","req":4,"sub":"1"}`)
	c.want(`{"op":"ok","req":4}`)
	c.send(`{"op":"sub","req":5,"topic":"a","credit":1000}`)
	c.want(`{"op":"ok","req":5,"sub":"3","o":1}`)
	r.wantRefused("limit")
}

// TestPublishesInFlight: what is not confirmed yet is bounded; the reader waits,
// and goes on when the log does. Confirms come in order.
func TestPublishesInFlight(t *testing.T) {
	var hold atomic.Pointer[chan struct{}]
	r := newRig(t, func(o *rigOptions) { o.Limits.PublishInFlight = 4 })
	c := r.native()
	gate := make(chan struct{})
	hold.Store(&gate)
	r.engine.Hold = func() { <-*hold.Load() }
	for i := 1; i <= 20; i++ {
		c.send(fmt.Sprintf(`{"op":"pub","req":%d,"topic":"a","d":"x"}`, i))
	}
	var in *conn
	r.server.mu.Lock()
	for l := range r.server.open {
		in = l.(*conn)
	}
	r.server.mu.Unlock()
	waiting := func() int {
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.waiting
	}
	eventually(t, "four pending", func() bool { return waiting() == 4 })
	close(gate)
	for i := 1; i <= 20; i++ {
		c.want(fmt.Sprintf(`{"op":"ok","req":%d,"o":%d}`, i, i))
	}
}

// TestStorageFailure: nothing is confirmed that is not durable.
func TestStorageFailure(t *testing.T) {
	r := newRig(t)
	c := r.native()
	r.engine.Fail(fmt.Errorf("%w: the disk is gone", core.ErrStorage))
	c.send(`{"op":"pub","req":1,"topic":"a","d":"x"}`)
	if got := c.next(); !strings.HasPrefix(got, `{"op":"err","req":1,"code":"storage"`) {
		t.Fatal(got)
	}
}

// TestRefusedAck: an ack that there is no room for changes nothing, the
// subscription's credit included; it holds once there is room.
func TestRefusedAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inBubble)
		c := r.native()
		most := adapters.DefaultLimits().MaxInFlight - 1
		c.send(fmt.Sprintf(`{"op":"sub","req":1,"queue":"q","sub":"s","credit":%d}`, most))
		c.want(`{"op":"ok","req":1,"sub":"s"}`)
		c.send(`{"op":"pub","queue":"q","d":"x"}`)
		if got := c.next(); !strings.Contains(got, `"d":"x"`) {
			t.Fatal(got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r.engine.Fail(core.ErrStorageFull)
		for range 3 {
			c.send(`{"op":"ack","req":2,"sub":"s","o":1}`)
			if got := c.next(); !strings.HasPrefix(got, `{"op":"err","req":2,"code":"storage_full"`) {
				t.Fatal(got)
			}
		}
		r.engine.Fail(nil)
		c.send(`{"op":"ack","req":3,"sub":"s","o":1}`)
		c.want(`{"op":"ok","req":3}`)
		c.send(`{"op":"ack","req":4,"sub":"s","o":1}`)
		if got := c.next(); !strings.HasPrefix(got, `{"op":"err","req":4,"code":"not_held"`) {
			t.Fatal(got)
		}
		c.ws.Close()
		r.stop()
	})
}

// TestSlowReader: a subscriber that reads nothing is sent no more than its
// window and then cut; it neither holds up the publisher nor another subscriber.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inBubble)
		slow, fast, pub := r.native(), r.native(), r.native()
		slow.send(`{"op":"sub","req":1,"topic":"flood","credit":1000}`)
		slow.want(`{"op":"ok","req":1,"sub":"1","o":1}`)
		fast.send(`{"op":"sub","req":1,"topic":"flood","credit":1000}`)
		fast.want(`{"op":"ok","req":1,"sub":"1","o":1}`)
		payload := strings.Repeat("x", 100_000)
		const n = 200
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range n {
				fast.next()
			}
		}()
		for i := range n {
			pub.send(`{"op":"pub","req":1,"topic":"flood","d":"` + payload + `"}`)
			if got := pub.next(); !strings.HasPrefix(got, `{"op":"ok"`) {
				t.Fatalf("publish %d: %s", i, got)
			}
		}
		<-done
		if took := time.Since(begin); took > 0 {
			t.Errorf("the others waited for %v", took)
		}
		connections := func() int {
			r.server.mu.Lock()
			defer r.server.mu.Unlock()
			return len(r.server.open)
		}
		eventually(t, "the slow reader cut", func() bool { return connections() == 2 })
		r.wantRefused("stalled")
	})
}

// TestPingFlood: a peer that asks and reads no answer is not read from.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inBubble, func(o *rigOptions) { o.Limits.OutputBytes = 64 << 10 })
		for _, frame := range [][]byte{masked(framePing, strings.Repeat("p", 125)), masked(frameText, `{"op":"ping","req":"`+strings.Repeat("p", 60)+`"}`)} {
			conn := r.raw("/ws", "")
			many := []byte(strings.Repeat(string(frame), 1000))
			conn.SetWriteDeadline(time.Now().Add(10 * patience))
			sent := 0
			var err error
			for err == nil && sent < 1<<30 {
				var n int
				n, err = conn.Write(many)
				sent += n
			}
			if sent >= 1<<30 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("a peer that reads nothing was read from for ever")
			}
			conn.Close()
		}
		runtime.GC()
	})
}

// TestVanished: a native peer that answers no ping is cut.
func TestVanished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inBubble)
		conn := r.raw("/ws", "")
		conn.SetReadDeadline(time.Now().Add(10 * patience))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
		c := r.native() // the library answers pings while it reads
		go func() {
			time.Sleep(9 * patience)
			c.send(`{"op":"ping"}`)
		}()
		if got := c.nextWithin(10 * patience); !strings.HasPrefix(got, `{"op":"pong"`) {
			t.Fatal(got)
		}
	})
}

// TestShutdown: the broker says goodbye, confirms what is pending, and waits
// for the peer's close frame.
func TestShutdown(t *testing.T) {
	r := newRig(t)
	c := r.native()
	hold := make(chan struct{})
	r.engine.Hold = func() { <-hold }
	c.send(`{"op":"pub","req":1,"topic":"a","d":"x"}`)
	c.quiet() // so the publish is pending
	closed := make(chan struct{})
	go func() { r.stop(); close(closed) }()
	c.want(`{"op":"bye","code":"closing","text":"the broker stops","retry":true}`)
	close(hold)
	c.want(`{"op":"ok","req":1,"o":1}`)
	c.want("close 1001 the broker stops")
	<-closed
}

// TestShutdownCut: a peer that does not read is cut when the time is over.
func TestShutdownCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inBubble)
		r.raw("/ws", "")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := r.server.Close(ctx); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		if d := time.Since(start); d > closeWait {
			t.Fatalf("took %v", d)
		}
		if _, answer := r.dial("/ws", nil); answer.StatusCode != 503 {
			t.Fatalf("a late connection: %d", answer.StatusCode)
		}
	})
}

// TestRedelivery: what a cut connection held comes to the next, marked.
func TestRedelivery(t *testing.T) {
	r := newRig(t)
	a, b := r.native(), r.native()
	a.send(`{"op":"sub","req":1,"sub":"q","queue":"jobs","credit":1000}`)
	a.want(`{"op":"ok","req":1,"sub":"q"}`)
	b.send(`{"op":"pub","queue":"jobs","d":"x"}`)
	if got := a.next(); !strings.Contains(got, `"o":1,`) {
		t.Fatal(got)
	}
	a.ws.NetConn().Close()
	b.send(`{"op":"sub","req":1,"sub":"q","queue":"jobs","credit":1000}`)
	b.want(`{"op":"ok","req":1,"sub":"q"}`)
	if got := b.next(); !strings.Contains(got, `"o":1,`) || !strings.Contains(got, `"n":2,`) {
		t.Fatal(got)
	}
}

// TestGap: a resume at an offset that is gone is an error, or a gap for who
// asks for it.
func TestGap(t *testing.T) {
	r := newRig(t)
	c := r.native()
	for i := 1; i <= 5; i++ {
		c.send(fmt.Sprintf(`{"op":"pub","req":%d,"topic":"a","d":"%d"}`, i, i))
		c.next()
	}
	if _, err := r.engine.Reclaim(t.Context(), core.Retention{
		Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Nanosecond}}, Needs: lastOnly{}, Now: time.Now().Add(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	c.send(`{"op":"sub","req":6,"topic":"a","from":2,"credit":1000}`)
	c.want(`{"op":"err","req":6,"code":"removed","text":"offset 2 has been removed, the earliest left is 5","earliest":5,"end":6}`)
	c.send(`{"op":"sub","req":7,"sub":"s","topic":"a","from":2,"gap":true,"credit":1000}`)
	c.want(`{"op":"ok","req":7,"sub":"s","o":5}`)
	c.want(`{"op":"gap","sub":"s","from":2,"to":5}`)
	if got := c.next(); !strings.HasSuffix(got, `"d":"5"}`) {
		t.Fatal(got)
	}
	c.want(`{"op":"caught_up","sub":"s","o":6}`)
}

type lastOnly struct{}

func (lastOnly) Of(string) func(core.Offset) bool { return func(o core.Offset) bool { return o == 5 } }

// TestPipelinedBye sends a bye behind much else: all is answered first.
func TestPipelinedBye(t *testing.T) {
	r := newRig(t)
	c := r.native()
	for i := range 500 {
		c.send(fmt.Sprintf(`{"op":"pub","req":%d,"topic":"a","d":"x"}`, i))
	}
	c.send(`{"op":"bye","req":"end"}`)
	c.send(`{"op":"pub","req":"late","topic":"a","d":"x"}`)
	for i := range 500 {
		c.want(fmt.Sprintf(`{"op":"ok","req":%d,"o":%d}`, i, i+1))
	}
	c.want(`{"op":"bye","req":"end"}`)
	c.want("close 1000 bye")
}

// TestBinaryMessage is refused, as the subprotocol is JSON.
func TestBinaryMessage(t *testing.T) {
	r := newRig(t)
	c := r.native()
	c.ws.WriteMessage(websocket.BinaryMessage, []byte(`{"op":"ping"}`))
	c.want("close 1003 text messages only")
	r.wantRefused("binary_message")
}
