package mqtt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// pairs are connections of both kinds: a socket, and what is none.
func pairs(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	for _, c := range []net.Conn{client, server, a, b} {
		t.Cleanup(func() { c.Close() })
	}
	return map[string][2]net.Conn{"socket": {server, client}, "pipe": {a, b}}
}

// Packets of every size come out as they went in, however they are cut.
func TestReaderPutsPacketsTogether(t *testing.T) {
	for name, conns := range pairs(t) {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var packets [][]byte
			var all []byte
			for range 300 {
				size := random.IntN(200)
				switch random.IntN(30) {
				case 0:
					size = random.IntN(300 << 10)
				case 1:
					size = random.IntN(100 << 10)
				case 2:
					size = random.IntN(5000)
				}
				p := appendVarint([]byte{0x30}, size)
				for range size {
					p = append(p, byte(random.Uint32()))
				}
				packets = append(packets, p)
				all = append(all, p...)
			}
			go func() {
				for len(all) > 0 {
					n := min(len(all), 1+random.IntN(1<<random.IntN(18)))
					if _, err := conns[1].Write(all[:n]); err != nil {
						return
					}
					all = all[n:]
				}
				conns[1].Close()
			}()
			r := new(reader)
			r.open(conns[0])
			if name == "pipe" != (r.raw == nil) {
				t.Fatal("the reader does not know its connection")
			}
			for {
				buf, err := r.fill()
				for {
					h, ok, _ := parseHeader(buf)
					if !ok || len(buf) < h.size+h.length {
						break
					}
					n := h.size + h.length
					if !bytes.Equal(buf[:n], packets[0]) {
						t.Fatalf("a packet of %d bytes is another one, of %d", len(packets[0]), n)
					}
					buf, packets = buf[n:], packets[1:]
				}
				r.keep(buf)
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					break
				}
			}
			if len(packets) > 0 {
				t.Errorf("%d packets are missing", len(packets))
			}
			if r.kept != nil || r.chunk != nil {
				t.Error("an idle reader holds a buffer")
			}
		})
	}
}

// A length that a packet merely claims costs nothing: what is kept grows with
// what comes.
func TestReaderKeepsNoMoreThanComes(t *testing.T) {
	for name, conns := range pairs(t) {
		t.Run(name, func(t *testing.T) {
			r := new(reader)
			r.open(conns[0])
			sent := 0
			for _, n := range []int{5, 100, 3000, 30_000, 200_000} {
				part := make([]byte, n)
				if sent == 0 {
					copy(part, "\x30\xFF\xFF\xFF\x7F")
				}
				go conns[1].Write(part)
				sent += n
				for got := 0; got < sent; {
					buf, err := r.fill()
					if err != nil {
						t.Fatal(err)
					}
					got = len(buf)
					r.keep(buf)
				}
				if cap(r.kept) > max(2*sent, chunkBytes) {
					t.Errorf("%d bytes came, room for %d is kept", sent, cap(r.kept))
				}
				if r.chunk != nil {
					t.Error("a large buffer is held while the reader waits")
				}
			}
		})
	}
}

// A deadline ends a wait, and what was kept stays.
func TestReaderDeadline(t *testing.T) {
	for name, conns := range pairs(t) {
		t.Run(name, func(t *testing.T) {
			r := new(reader)
			r.open(conns[0])
			go conns[1].Write([]byte{0x30})
			buf, err := r.fill()
			if err != nil || len(buf) != 1 {
				t.Fatal(buf, err)
			}
			r.keep(buf)
			conns[0].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			buf, err = r.fill()
			if !errors.Is(err, os.ErrDeadlineExceeded) || !isTimeout(err) {
				t.Fatal(err)
			}
			r.keep(buf)
			conns[0].SetReadDeadline(time.Time{})
			go conns[1].Write([]byte{2, 7, 8})
			got := buf
			for len(got) < 4 {
				if got, err = r.fill(); err != nil {
					t.Fatal(err)
				}
				r.keep(got)
			}
			if !bytes.Equal(got, []byte{0x30, 2, 7, 8}) {
				t.Errorf("got % X", got)
			}
		})
	}
}

// An idle connection on a socket holds no buffer at all.
func TestReaderWaitsWithoutABuffer(t *testing.T) {
	conns := pairs(t)["socket"]
	r := new(reader)
	r.open(conns[0])
	if r.small != nil {
		t.Error("a small buffer is there")
	}
	conns[0].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := r.fill(); !isTimeout(err) {
		t.Fatal(err)
	}
	if r.chunk != nil || r.kept != nil {
		t.Error("a buffer was borrowed for nothing")
	}
}
