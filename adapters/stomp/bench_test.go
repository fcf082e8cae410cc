package stomp_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkQueue is a queue's whole way: senders with 64 receipts outstanding,
// each after the disk's sync, to consumers that acknowledge every message.
func BenchmarkQueue(b *testing.B) {
	const pairs, window = 8, 64
	g := start(b)
	var received atomic.Int64
	all := make(chan struct{})
	total := int64(b.N/pairs*pairs + pairs*window)
	var consumers sync.WaitGroup
	for range pairs {
		c := g.connect("1.2")
		c.conn.SetDeadline(noDeadline)
		c.subscribe("0", "/queue/q", "ack:client-individual", "prefetch-count:256")
		consumers.Go(func() { consume(c.conn, &received, total, all) })
	}
	frame := "SEND\ndestination:/queue/q\nreceipt:r\n\n" + strings.Repeat("x", 100) + "\x00"
	b.ReportAllocs()
	b.ResetTimer()
	var senders sync.WaitGroup
	for range pairs {
		p := g.connect("1.2")
		p.conn.SetDeadline(noDeadline)
		senders.Go(func() {
			left, outstanding := b.N/pairs+window, 0
			buf := make([]byte, 64<<10)
			for left > 0 || outstanding > 0 {
				if n := min(left, window-outstanding); n > 0 {
					if _, err := p.conn.Write([]byte(strings.Repeat(frame, n))); err != nil {
						b.Error(err)
						return
					}
					left, outstanding = left-n, outstanding+n
				}
				n, err := p.in.Read(buf)
				if err != nil {
					b.Error(err)
					return
				}
				outstanding -= bytes.Count(buf[:n], []byte("\x00"))
			}
		})
	}
	senders.Wait()
	<-all
	b.StopTimer()
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "messages/s")
	g.stop()
	consumers.Wait()
}

// consume acknowledges every message until all have come.
func consume(c net.Conn, received *atomic.Int64, total int64, all chan struct{}) {
	buf := make([]byte, 0, 256<<10)
	var acks []byte
	for {
		if len(buf) == cap(buf) {
			panic("a frame larger than the buffer")
		}
		n, err := c.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		acks = acks[:0]
		rest := buf
		for {
			end := bytes.IndexByte(rest, 0)
			if end < 0 {
				break
			}
			frame := rest[:end]
			rest = rest[end+1:]
			_, after, ok := bytes.Cut(frame, []byte("\nack:"))
			if !ok {
				continue
			}
			id, _, _ := bytes.Cut(after, []byte("\n"))
			acks = fmt.Appendf(acks, "ACK\nid:%s\n\n\x00", id)
			if received.Add(1) == total {
				close(all)
			}
		}
		buf = buf[:copy(buf, rest)]
		if _, err := c.Write(acks); err != nil {
			return
		}
	}
}
