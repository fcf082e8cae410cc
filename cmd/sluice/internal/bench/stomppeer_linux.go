package bench

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// A stompSender sends to a queue and asks for receipts.
type stompSender struct {
	sender
	head, middle []byte // of every SEND, before and behind the receipt's number
}

// message appends a SEND.
func (p *stompSender) message(b []byte, at int64) []byte {
	b = append(b, p.head...)
	b = strconv.AppendUint(b, p.sent, 10)
	b = append(b, p.middle...)
	return append(p.payload(b, at), 0)
}

// received takes receipts.
func (p *stompSender) received(_ *peer, b []byte) (taken int, err error) {
	for {
		command, headers, body, n, err := nextSTOMP(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		taken += n
		switch string(command) {
		case "RECEIPT":
			v, _ := stompHeader(headers, "receipt-id")
			id, err := strconv.ParseUint(string(v), 10, 64)
			p.confirm(err == nil && id == p.confirmed)
		case "":
		default:
			return taken, fmt.Errorf("a sender was sent %s%s: %.200s", command, headers, body)
		}
	}
}

// A stompReceiver consumes a queue and acknowledges each message by itself.
type stompReceiver struct {
	load *traffic
	*shares
}

func (s *stompReceiver) received(p *peer, b []byte) (taken int, err error) {
	first := true
	for {
		command, headers, body, n, err := nextSTOMP(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		taken += n
		switch string(command) {
		case "MESSAGE":
		case "":
			continue
		default:
			return taken, fmt.Errorf("a consumer was sent %s%s: %.200s", command, headers, body)
		}
		publisher, seq, at, ok := header(body)
		if !ok || !s.note(publisher, seq) {
			return taken, errStrange
		}
		s.load.note(at, &first)
		id, ok := stompHeader(headers, "ack")
		if !ok {
			return taken, fmt.Errorf("a message has nothing to acknowledge it by: %s", headers)
		}
		p.out = append(p.out, "ACK\nid:"...)
		p.out = append(p.out, id...)
		p.out = append(p.out, '\n', '\n', 0)
	}
}

// connectSTOMP connects and waits for CONNECTED.
func (d *dialer) connectSTOMP(addr string) (int, error) {
	fd, err := d.dial(addr)
	if err != nil {
		return 0, err
	}
	err = say(fd, []byte("CONNECT\naccept-version:1.2\nhost:/\nheart-beat:0,0\n\n\x00"))
	if err == nil {
		var answer []byte
		answer, err = hear(fd, wholeSTOMP)
		if err == nil && !bytes.HasPrefix(answer, []byte("CONNECTED\n")) {
			err = fmt.Errorf("answered %s", answer)
		}
	}
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("STOMP CONNECT to %s: %w", addr, err)
	}
	return fd, nil
}

func wholeSTOMP(b []byte) int {
	if command, _, _, n, err := nextSTOMP(b); len(command) > 0 || err != nil {
		return max(n, 1)
	}
	return 0
}

// stompQueueScenario measures a queue: senders with receipts, and consumers.
func stompQueueScenario(name, about string, goals []goal, senders, flight, consumers, prefetch, window int) scenario {
	return scenario{name: name, about: about, goals: goals, rivals: []string{rabbitmqName, activemqName}, run: func(ctx context.Context, r *rig) (result, error) {
		return r.traffic(ctx, name, func(l *loop) (*traffic, error) {
			if r.size < headerBytes {
				return nil, fmt.Errorf("a payload of %d bytes has no room for the generator's header, %d bytes", r.size, headerBytes)
			}
			l.batch = senders * flight / 8
			t := newTraffic(l, 1)
			g := &t.groups[0]
			g.one = newShares(senders)
			for range consumers {
				fd, err := r.dialer.connectSTOMP(r.stomp)
				if err != nil {
					return nil, err
				}
				subscribe := fmt.Sprintf("SUBSCRIBE\nid:0\ndestination:/queue/bench\nack:client-individual\nprefetch-count:%d\nactivemq.prefetchSize:%[1]d\nreceipt:s\n\n\x00", prefetch)
				if err := say(fd, []byte(subscribe)); err != nil {
					unix.Close(fd)
					return nil, err
				}
				if b, err := hear(fd, wholeSTOMP); err != nil || !bytes.Contains(b, []byte("RECEIPT\n")) {
					unix.Close(fd)
					return nil, fmt.Errorf("STOMP SUBSCRIBE: %w, %s", err, b)
				}
				if _, err := l.add(fd, &stompReceiver{load: t, shares: g.one}); err != nil {
					return nil, err
				}
			}
			for i := range senders {
				p := &stompSender{
					head:   []byte("SEND\ndestination:/queue/bench\npersistent:true\nreceipt:"),
					middle: fmt.Appendf(nil, "\ncontent-length:%d\n\n", r.size),
					sender: sender{load: t, index: uint32(i), size: r.size, window: uint64(window / senders), flight: uint64(flight)},
				}
				p.encode = p.message
				fd, err := r.dialer.connectSTOMP(r.stomp)
				if err != nil {
					return nil, err
				}
				if p.peer, err = l.add(fd, p); err != nil {
					return nil, err
				}
				g.senders = append(g.senders, &p.sender)
			}
			return t, nil
		})
	}}
}
