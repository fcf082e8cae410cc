package bench

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// An httpSender publishes over a kept connection, one request at a time.
type httpSender struct {
	sender
	host, path string
	head       []byte // of every request
}

// message appends a request with one message.
func (p *httpSender) message(b []byte, at int64) []byte {
	return p.payload(append(b, p.head...), at)
}

// line appends one message of a batch.
func (p *httpSender) line(b []byte, at int64) []byte {
	b = append(b, `{"t":"`...)
	b = append(b, p.path...)
	b = append(b, `","d":"`...)
	b = p.text(b, at)
	return append(b, '"', '}', '\n')
}

// received takes answers.
func (p *httpSender) received(_ *peer, b []byte) (taken int, err error) {
	for {
		status, body, n, err := nextHTTP(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		taken += n
		if status/100 != 2 {
			return taken, fmt.Errorf("the server answered %d: %s", status, body[:min(len(body), 300)])
		}
		if p.chunk == 0 {
			p.confirm(true)
			continue
		}
		// Each line of the answer is a message's offset, or what was wrong.
		if done := bytes.Count(body, []byte(`"o":`)); uint64(done) != p.chunk {
			return taken, fmt.Errorf("%d of %d messages of a batch were taken: %s", done, p.chunk, body[:min(len(body), 300)])
		}
		for range p.chunk {
			p.confirm(true)
		}
	}
}

// httpLoad connects publishers over HTTP; chunk messages go in one request as
// lines of JSON, or, if it is 0, each in a request of its own.
func (r *rig) httpLoad(l *loop, connections, chunk int) (*traffic, error) {
	if r.size < textHeaderBytes {
		return nil, fmt.Errorf("a payload of %d bytes has no room for the generator's header, %d bytes", r.size, textHeaderBytes)
	}
	t := newTraffic(l, 1)
	l.batch = max(1, connections*max(1, chunk)/8)
	for i := range connections {
		p := &httpSender{host: r.http, path: fmt.Sprintf("bench/0/%d", i), sender: sender{
			load: t, index: uint32(i), size: r.size, window: 1 << 40, flight: 1, chunk: uint64(chunk),
		}}
		p.encode, p.head = p.message, appendHTTPPost(nil, p.host, "/t/"+p.path, "", r.size)
		if chunk > 0 {
			p.flight = p.chunk
			line := len(`{"t":"","d":""}`+"\n") + len(p.path) + r.size
			p.head = appendHTTPPost(nil, p.host, "/t", "application/x-ndjson", chunk*line)
			p.encode = p.line
			p.open = func(b []byte) []byte { return append(b, p.head...) }
			p.end = func(b []byte) []byte { return b }
		}
		fd, err := r.dialer.dial(r.http)
		if err != nil {
			return nil, err
		}
		if p.peer, err = l.add(fd, p); err != nil {
			return nil, err
		}
		t.groups[0].senders = append(t.groups[0].senders, &p.sender)
	}
	return t, nil
}

// httpScenario measures publishing over HTTP.
func httpScenario(name, about string, connections, chunk int, goals ...goal) scenario {
	return scenario{name: name, about: about, goals: goals, run: func(ctx context.Context, r *rig) (result, error) {
		return r.traffic(ctx, name, func(l *loop) (*traffic, error) { return r.httpLoad(l, connections, chunk) })
	}}
}

// A textReceiver gets messages of text, in whatever frame.
type textReceiver struct {
	load *traffic
	ledger
	behind int // how far from the end the payload began in the last message
}

// message takes down the message within an event or a frame, if there is one.
func (s *textReceiver) message(b []byte, first *bool) error {
	publisher, seq, at, ok := textHeader(b, &s.behind)
	if !ok {
		return nil
	}
	if !s.note(publisher, seq) {
		return errStrange
	}
	s.load.note(at, first)
	return nil
}

// An sseReceiver reads a stream of server-sent events.
type sseReceiver struct {
	textReceiver
	event []byte // the beginning of one that a chunk did not end
}

func (s *sseReceiver) received(_ *peer, b []byte) (taken int, err error) {
	first := true
	for {
		data, n, err := nextChunk(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		if len(data) == 0 {
			return taken, fmt.Errorf("the server ended the stream")
		}
		taken += n
		if len(s.event) > 0 {
			s.event = append(s.event, data...)
			data = s.event
		}
		for {
			end := bytes.Index(data, []byte("\n\n"))
			if end < 0 {
				break
			}
			if err := s.message(data[:end], &first); err != nil {
				return taken, err
			}
			data = data[end+2:]
		}
		s.event = append(s.event[:0], data...)
	}
}

// open asks for the stream and reads the answer's header.
func (s *sseReceiver) open(fd int, host, topic string) error {
	request := fmt.Sprintf("GET /sse/%s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", topic, host)
	head, err := askHTTP(fd, request, 200)
	if err == nil && !strings.Contains(head, "chunked") {
		err = fmt.Errorf("the stream is not in chunks: %s", head)
	}
	return err
}

// askHTTP sends a request and reads the header of the answer, which must have a
// status.
func askHTTP(fd int, request string, status int) (head string, err error) {
	if err := say(fd, []byte(request)); err != nil {
		return "", err
	}
	b, err := hear(fd, func(b []byte) int {
		_, n, err := httpHead(b)
		if err != nil {
			return len(b)
		}
		return n
	})
	if err != nil {
		return "", err
	}
	if got, _, err := httpHead(b); err != nil || got != status {
		return "", fmt.Errorf("wanted status %d, got: %s", status, b)
	}
	return string(b), nil
}

// A wsReceiver is subscribed over Sluice's own WebSocket protocol.
type wsReceiver struct {
	textReceiver
	owed int // messages whose credit was not given back
}

// wsCredit is how many messages may be on their way to a receiver: the most
// that the broker allows.
const wsCredit = 1024

// wsMore gives half of it back.
var wsMore = appendWS(nil, wsText, fmt.Appendf(nil, `{"op":"credit","sub":"s","n":%d}`, wsCredit/2))

func (s *wsReceiver) received(p *peer, b []byte) (taken int, err error) {
	first := true
	for {
		opcode, payload, n, err := nextWS(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		taken += n
		switch opcode {
		case wsText:
			if bytes.HasPrefix(payload, []byte(`{"op":"err"`)) {
				return taken, fmt.Errorf("the server answered %s", payload)
			}
			if err := s.message(payload, &first); err != nil {
				return taken, err
			}
			if s.owed++; s.owed == wsCredit/2 {
				p.out, s.owed = append(p.out, wsMore...), 0
			}
		case wsPing:
			p.out = appendWS(p.out, wsPong, payload)
		default:
			return taken, fmt.Errorf("the server sent a frame of type %d: %.200q", opcode, payload)
		}
	}
}

// open upgrades and subscribes.
func (s *wsReceiver) open(fd int, host, topic string) error {
	_, err := askHTTP(fd, "GET /ws HTTP/1.1\r\nHost: "+host+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 101)
	if err != nil {
		return err
	}
	if err := say(fd, appendWS(nil, wsText, []byte(fmt.Sprintf(`{"op":"sub","req":"r","sub":"s","topic":%q,"credit":%d}`, topic, wsCredit)))); err != nil {
		return err
	}
	for { // the welcome and a ping may come first
		b, err := hear(fd, func(b []byte) int {
			_, _, n, err := nextWS(b)
			if err != nil {
				return len(b)
			}
			return n
		})
		if err != nil {
			return err
		}
		_, payload, _, err := nextWS(b)
		switch {
		case err != nil:
			return err
		case bytes.Contains(payload, []byte(`"op":"ok"`)):
			return nil
		case bytes.Contains(payload, []byte(`"op":"err"`)):
			return fmt.Errorf("the server answered %s", payload)
		}
	}
}

// A stream is a receiver that is opened by a request.
type stream interface {
	protocol
	open(fd int, host, topic string) error
}

// streamScenario measures one MQTT publisher and many receivers over HTTP.
func streamScenario(name, about string, receivers, window int, one func(textReceiver) (stream, *ledger), goals ...goal) scenario {
	return scenario{name: name, about: about, goals: goals, run: func(ctx context.Context, r *rig) (result, error) {
		return r.traffic(ctx, name, func(l *loop) (*traffic, error) {
			if r.size < textHeaderBytes {
				return nil, fmt.Errorf("a payload of %d bytes has no room for the generator's header, %d bytes", r.size, textHeaderBytes)
			}
			if err := raiseFiles(uint64(receivers) + 200); err != nil {
				return nil, err
			}
			shape := mqttShape{publishers: 1, subscribers: receivers, level: 4, size: r.size, window: window}
			l.batch = shape.batch()
			t := newTraffic(l, 1)
			for range receivers {
				s, ledger := one(textReceiver{load: t, ledger: newLedger(1)})
				fd, err := r.dialer.dial(r.http)
				if err != nil {
					return nil, err
				}
				if err := s.open(fd, r.http, "bench/0/0"); err != nil {
					unix.Close(fd)
					return nil, err
				}
				if _, err := l.add(fd, s); err != nil {
					return nil, err
				}
				t.groups[0].receivers = append(t.groups[0].receivers, ledger)
			}
			p, err := shape.publisher(t, r.dialer, r.mqtt, 0, 0)
			if err != nil {
				return nil, err
			}
			p.encode = p.textMessage
			return t, nil
		})
	}}
}

func oneSSE(r textReceiver) (stream, *ledger) {
	s := &sseReceiver{textReceiver: r}
	return s, &s.ledger
}

func oneWS(r textReceiver) (stream, *ledger) {
	s := &wsReceiver{textReceiver: r}
	return s, &s.ledger
}
