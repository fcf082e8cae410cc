package adapters

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// sockets are both ends of a TCP connection, as a listener of ours accepts it.
func sockets(t *testing.T) (server, client net.Conn) {
	t.Helper()
	limits := DefaultLimits()
	l, err := Listen(t.Context(), Endpoint{Address: "127.0.0.1:0"}, NewGate(limits))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, client
}

func (o *Outbox) isWriting() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writing
}

// An answer is with the kernel when AppendNow returns, also where the deadline
// of an earlier write has passed since, and nobody goes on writing.
func TestOutboxWritesNow(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("another goroutine writes there")
	}
	server, client := sockets(t)
	o := NewOutbox(server, 1<<20, time.Minute)
	for i := range 3 {
		if !o.AppendNow(text("answer")) {
			t.Fatal("not taken")
		}
		if o.isWriting() {
			t.Error("somebody else writes")
		}
		got := make([]byte, 6)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "answer" {
			t.Fatalf("answer %d: got %q, %v", i, got, err)
		}
	}
	server.SetWriteDeadline(time.Unix(1, 0))
	if !o.AppendNow(text("late")) {
		t.Fatal("not taken")
	}
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if got, err := io.ReadAll(client); string(got) != "late" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if o.AppendNow(text("later")) {
		t.Error("taken after Close")
	}
}

// What is written now and what is left to the writer stay in order, whatever the
// socket takes at once.
func TestOutboxWritesNowInOrder(t *testing.T) {
	server, client := sockets(t)
	server.(*gatedConn).Conn.(*net.TCPConn).SetWriteBuffer(16 << 10)
	o := NewOutbox(server, 64<<10, time.Minute)
	const lines = 200
	var appending sync.WaitGroup
	for who := range 3 {
		appending.Go(func() {
			for i := range lines {
				line := fmt.Appendf(nil, "%d %d %s\n", who, i, bytes.Repeat([]byte("x"), i*73%3000))
				put := o.AppendNow
				if who == 0 {
					put = o.Append
				}
				if !put(func(b []byte) []byte { return append(b, line...) }) {
					t.Error("not taken")
				}
				if err := o.Wait(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() {
		appending.Wait()
		o.Close(t.Context())
		server.Close()
	}()
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	var next [3]int
	for line := range bytes.Lines(got) {
		var who, i int
		var x string
		if n, err := fmt.Sscanf(string(line), "%d %d %s", &who, &i, &x); n < 2 || i*73%3000 > 0 && err != nil {
			t.Fatalf("a line is torn: %.60q", line)
		}
		if i != next[who] || len(x) != i*73%3000 {
			t.Fatalf("writer %d: line %d with %d bytes, want line %d", who, i, len(x), next[who])
		}
		next[who]++
	}
	if next != [3]int{lines, lines, lines} {
		t.Errorf("%v lines came", next)
	}
}

// A connection that is broken is found, and one that is no socket is written to
// all the same.
func TestOutboxWritesNowOrElse(t *testing.T) {
	server, client := sockets(t)
	o := NewOutbox(server, 1<<20, time.Minute)
	client.(*net.TCPConn).SetLinger(0)
	client.Close()
	for o.AppendNow(text("to nobody")) {
		runtime.Gosched()
	}
	if err := o.Close(t.Context()); err == nil {
		t.Error("no error")
	}

	ours, theirs := net.Pipe()
	o = NewOutbox(ours, 1<<20, time.Minute)
	if !o.AppendNow(text("answer")) {
		t.Fatal("not taken")
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(theirs, got); err != nil || string(got) != "answer" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := o.Close(t.Context()); err != nil {
		t.Error(err)
	}
	ours.Close()
	theirs.Close()
}
