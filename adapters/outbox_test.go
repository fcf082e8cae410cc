package adapters

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

func text(s string) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, s...) }
}

func TestOutboxWritesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		o := NewOutbox(ours, 1<<20, time.Second)
		got := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(theirs)
			got <- b
		}()
		var want bytes.Buffer
		for i := range 1000 {
			s := string(rune('a' + i%26))
			want.WriteString(s)
			if !o.Append(text(s)) {
				t.Fatal("not taken")
			}
		}
		if err := o.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		ours.Close()
		if b := <-got; !bytes.Equal(b, want.Bytes()) {
			t.Errorf("got %d bytes %q", len(b), b)
		}
		if o.Append(text("late")) {
			t.Error("taken after Close")
		}
	})
}

// What gathers while a write is under way goes out in one.
func TestOutboxGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowConn{gate: make(chan struct{})}
		o := NewOutbox(c, 1<<20, time.Second)
		o.Append(text("first"))
		synctest.Wait() // the writer is in its write
		for range 100 {
			o.Append(text("x"))
		}
		close(c.gate)
		if err := o.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(c.writes); n != 2 || len(c.writes[1]) != 100 {
			t.Errorf("%d writes", n)
		}
	})
}

func TestOutboxWaitBlocksAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowConn{gate: make(chan struct{})}
		o := NewOutbox(c, 10, time.Second)
		o.Append(text("first"))
		synctest.Wait()
		o.Append(text("12345678901"))
		var waited sync.WaitGroup
		passed := false
		waited.Go(func() {
			if err := o.Wait(); err != nil {
				t.Error(err)
			}
			passed = true
		})
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() { given <- o.WaitContext(ctx) }()
		synctest.Wait()
		if passed {
			t.Error("Wait did not block above the limit")
		}
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("WaitContext: %v", err)
		}
		close(c.gate)
		waited.Wait()
		if err := o.WaitContext(t.Context()); err != nil {
			t.Errorf("WaitContext below the limit: %v", err)
		}
		o.Close(t.Context())
	})
}

// A peer that takes nothing for the stall time is closed, and nothing more is
// taken for it.
func TestOutboxClosesAStalledPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		o := NewOutbox(ours, 1<<20, 10*time.Second)
		begin := time.Now()
		o.Append(text("nobody reads this"))
		err := o.Close(t.Context())
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("Close: %v", err)
		}
		if d := time.Since(begin); d != 10*time.Second {
			t.Errorf("closed after %v", d)
		}
		if _, err := theirs.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is open")
		}
		if o.Append(text("x")) || o.Wait() == nil {
			t.Error("taken after a failed write")
		}
	})
}

// A peer that takes something now and then is slow, not stalled.
func TestOutboxDeadlineMovesWithProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		o := NewOutbox(ours, 8<<20, 10*time.Second)
		const size = 1 << 20
		o.Append(func(b []byte) []byte { return append(b, make([]byte, size)...) })
		n := 0
		chunk := make([]byte, 256<<10)
		for n < size {
			time.Sleep(9 * time.Second)
			m, err := io.ReadFull(theirs, chunk)
			n += m
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := o.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOutboxCloseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, _ := net.Pipe()
		o := NewOutbox(ours, 1<<20, time.Hour)
		o.Append(text("nobody reads this"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := o.Close(ctx); err == nil {
			t.Error("Close says that all was written")
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("closed after %v", d)
		}
	})
}

// A consumer gets its credit back when its bytes are written, not before.
func TestOutboxGrantsAfterWriting(t *testing.T) {
	broker, err := core.Open(t.Context(), core.Options{Engine: coretest.NewEngine()})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close(context.Background())
	client, err := broker.Connect(t.Context(), core.Credentials{Protocol: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := &slowConn{gate: make(chan struct{})}
	r := &outboxReceiver{out: NewOutbox(c, 1<<20, time.Second), got: make(chan core.Offset, 10)}
	if r.k, err = client.Subscribe(t.Context(), core.Subscription{Bindings: []core.Binding{{Filter: "t"}}}, r); err != nil {
		t.Fatal(err)
	}
	r.k.Grant(core.Credit{Messages: 10, Bytes: 1}) // enough for one, which overdraws it
	for range 2 {
		if err := client.Publish(t.Context(), &core.Envelope{Topic: "t"}, 0); err != nil {
			t.Fatal(err)
		}
	}
	<-r.got
	select {
	case at := <-r.got:
		t.Fatalf("offset %d came without credit", at)
	case <-time.After(20 * time.Millisecond):
	}
	close(c.gate)
	<-r.got
	r.k.Close()
	if err := r.out.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

type outboxReceiver struct {
	out *Outbox
	k   *core.Consumer
	got chan core.Offset
}

func (r *outboxReceiver) Deliver(batch []core.Delivery) {
	for i := range batch {
		r.out.AppendFor(r.k, core.Credit{Bytes: batch[i].Size()}, text("x"))
		r.got <- batch[i].Offset
	}
}

func (r *outboxReceiver) Notice(core.Notice) {}

// A slowConn holds its first write until the gate is closed.
type slowConn struct {
	net.Conn
	gate   chan struct{}
	writes []string
}

func (c *slowConn) Write(b []byte) (int, error) {
	<-c.gate
	c.writes = append(c.writes, string(b))
	return len(b), nil
}

func (c *slowConn) SetWriteDeadline(time.Time) error { return nil }
func (c *slowConn) Close() error                     { return nil }

// Bursts of any size go out as they are, and an idle outbox holds no buffer.
func TestOutboxBorrowsItsBuffers(t *testing.T) {
	ours, theirs := net.Pipe()
	o := NewOutbox(ours, 8<<20, time.Minute)
	sizes := []int{1, 4 << 10, 5 << 10, 64 << 10, 100 << 10, 1 << 20, 3 << 20, 10}
	total := 0
	for _, n := range sizes {
		total += n
	}
	sum := make(chan int)
	go func() {
		n := 0
		b := make([]byte, 32<<10)
		for n < total {
			m, err := theirs.Read(b)
			for i := range m {
				if b[i] != byte(n+i) {
					t.Errorf("byte %d is %d", n+i, b[i])
					break
				}
			}
			n += m
			if err != nil {
				break
			}
		}
		sum <- n
	}()
	at := 0
	for _, n := range sizes {
		o.Append(func(b []byte) []byte {
			for range n {
				b = append(b, byte(at))
				at++
			}
			return b
		})
	}
	if n := <-sum; n != total {
		t.Errorf("%d of %d bytes", n, total)
	}
	if err := o.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if o.buf != nil {
		t.Error("an idle outbox holds a buffer")
	}
}

func BenchmarkOutbox(b *testing.B) {
	c := &slowConn{gate: make(chan struct{})}
	close(c.gate)
	o := NewOutbox(discardConn{c}, 1<<20, time.Second)
	packet := make([]byte, 120)
	b.ReportAllocs()
	for b.Loop() {
		o.Append(func(buf []byte) []byte { return append(buf, packet...) })
		o.Wait()
	}
}

type discardConn struct{ net.Conn }

func (discardConn) Write(b []byte) (int, error)      { return len(b), nil }
func (discardConn) SetWriteDeadline(time.Time) error { return nil }

// Drop forgets what waits behind a write, and whom it was for; what is being
// written, and what comes later, the peer gets whole.
func TestOutboxDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowConn{gate: make(chan struct{})}
		o := NewOutbox(c, 10, time.Second)
		o.Append(text("first"))
		o.Drop() // nothing waits behind a write
		synctest.Wait()
		o.Append(text("12345678901"))
		if n := o.Buffered(); n != 5+11 {
			t.Errorf("%d bytes are buffered", n)
		}
		var waited sync.WaitGroup
		waited.Go(func() { o.Wait() })
		synctest.Wait()
		o.Drop()
		waited.Wait() // while nothing was written
		if n := o.Buffered(); n != 5 {
			t.Errorf("%d bytes are buffered behind a drop", n)
		}
		o.Append(text("why"))
		close(c.gate)
		if err := o.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(c.writes) != 2 || string(c.writes[0]) != "first" || string(c.writes[1]) != "why" {
			t.Errorf("written: %q", c.writes)
		}
	})
}
