package link

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/core"
)

// wsLink speaks sluice.v1.json.
type wsLink struct {
	conn  *websocket.Conn
	ended chan struct{} // closed when reading has ended
	err   error         // why; set before ended is closed

	write sync.Mutex // guards writing

	mu   sync.Mutex // guards what follows
	last int
	wait map[int]chan wsFrame
	subs map[string]chan wsFrame
}

// A wsFrame is whatever the broker sends.
type wsFrame struct {
	object
	Op   string `json:"op"`
	Req  *int   `json:"req"`
	Sub  string `json:"sub"`
	Code string `json:"code"`
	Text string `json:"text"`
	From int64  `json:"from"`
	To   int64  `json:"to"`
}

// wsKinds are the codes of errors that have a kind.
var wsKinds = map[string]error{
	"not_authorized": core.ErrNotAuthorized, "unauthenticated": core.ErrUnauthenticated, "login_rate": core.ErrUnauthenticated,
	"not_found": core.ErrNotFound, "conflict": core.ErrConflict, "invalid_topic": core.ErrInvalidTopic, "invalid_from": core.ErrInvalidFrom,
	"too_large": core.ErrTooLarge, "queue_full": core.ErrQueueFull, "limit": core.ErrLimit, "no_responders": core.ErrNoResponders,
	"timeout": context.DeadlineExceeded, "storage_full": core.ErrStorageFull, "storage": core.ErrStorage, "closing": core.ErrClosed,
}

func (f *wsFrame) failure() error { return failure(wsKinds[f.Code], f.Text) }

func dialWS(ctx context.Context, o Options) (Link, error) {
	d := websocket.Dialer{Subprotocols: []string{"sluice.v1.json"}, TLSClientConfig: o.TLS}
	scheme := map[bool]string{false: "ws", true: "wss"}[o.TLS != nil]
	header := http.Header{}
	if o.User != "" {
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(o.User+":"+o.Password)))
	}
	conn, res, err := d.DialContext(ctx, scheme+"://"+o.Address+"/ws", header)
	if err != nil {
		if res != nil {
			return nil, httpFailure(res)
		}
		return nil, err
	}
	l := &wsLink{conn: conn, ended: make(chan struct{}), wait: make(map[int]chan wsFrame), subs: make(map[string]chan wsFrame)}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetReadDeadline(deadline)
	}
	// Where nobody may come in without a login, the broker waits for one.
	if err := l.send(map[string]any{"op": "ping", "req": 0}); err != nil {
		return nil, err
	}
	for {
		var f wsFrame
		if err := conn.ReadJSON(&f); err != nil {
			conn.Close()
			return nil, closeReason(err)
		}
		if f.Op == "err" {
			conn.Close()
			return nil, f.failure()
		}
		if f.Op == "welcome" {
			break
		}
	}
	conn.SetReadDeadline(time.Time{})
	go l.read()
	return l, nil
}

// closeReason makes what the broker said at a close the error.
func closeReason(err error) error {
	var c *websocket.CloseError
	if !errors.As(err, &c) {
		return err
	}
	switch c.Code {
	case 4401, 4400:
		return failure(core.ErrUnauthenticated, "a user and a password are needed, or were wrong: "+c.Text)
	case 4429:
		return failure(core.ErrUnauthenticated, c.Text)
	}
	return fmt.Errorf("%w: %s", errLost, c.Text)
}

func (l *wsLink) send(v any) error {
	l.write.Lock()
	defer l.write.Unlock()
	return l.conn.WriteJSON(v)
}

func (l *wsLink) read() {
	defer close(l.ended)
	for {
		var f wsFrame
		if err := l.conn.ReadJSON(&f); err != nil {
			l.err = closeReason(err)
			return
		}
		l.mu.Lock()
		to := l.subs[f.Sub]
		if f.Req != nil {
			to = l.wait[*f.Req]
			delete(l.wait, *f.Req)
		}
		l.mu.Unlock()
		if to != nil {
			to <- f
		}
	}
}

// ask sends a request and waits for its answer.
func (l *wsLink) ask(ctx context.Context, o map[string]any) (wsFrame, error) {
	answer := make(chan wsFrame, 1)
	l.mu.Lock()
	l.last++
	req := l.last
	l.wait[req] = answer
	l.mu.Unlock()
	o["req"] = req
	if err := l.send(o); err != nil {
		return wsFrame{}, err
	}
	select {
	case f := <-answer:
		if f.Op == "err" {
			return f, f.failure()
		}
		return f, nil
	case <-l.ended:
		return wsFrame{}, l.err
	case <-ctx.Done():
		return wsFrame{}, ctx.Err()
	}
}

func (l *wsLink) Publish(ctx context.Context, m *Message) (core.Offset, error) {
	o := publishObject(m)
	o["op"], o["topic"] = "pub", m.Topic
	f, err := l.ask(ctx, o)
	return f.Offset, err
}

func (l *wsLink) Request(ctx context.Context, m *Message) (*Message, error) {
	o := publishObject(m)
	// Who answers may look at the topic later.
	o["op"], o["topic"], o["mandatory"] = "request", m.Topic, false
	if deadline, ok := ctx.Deadline(); ok {
		o["timeout"] = max(time.Until(deadline).Milliseconds(), 1)
	}
	f, err := l.ask(ctx, o)
	if err != nil {
		return nil, err
	}
	return f.message()
}

func (l *wsLink) Subscribe(ctx context.Context, s Subscription, handle func(*Message) error) error {
	held := s.Queue != "" || s.Group != ""
	// At most as many wait here as the credit lets the broker send; the reader
	// never blocks for long on a topic's, since handle takes them on.
	filters := s.Filters
	if s.Queue != "" {
		filters = []string{""}
	}
	credit := max(s.Credit, 1)
	come := make(chan wsFrame, credit*len(filters))
	for i, filter := range filters {
		name := strconv.Itoa(i)
		l.mu.Lock()
		l.subs[name] = come
		l.mu.Unlock()
		o := map[string]any{"op": "sub", "sub": name, "credit": credit}
		for member, value := range map[string]string{"topic": filter, "queue": s.Queue, "group": s.Group, "from": s.From} {
			if value != "" {
				o[member] = value
			}
		}
		if s.Ordered {
			o["ordered"] = true
		}
		if !held && !s.SkipRetained && s.From == "" {
			o["retained"] = true
		}
		if _, err := l.ask(ctx, o); err != nil {
			return err
		}
	}
	if s.Ready != nil {
		s.Ready()
	}
	for {
		var f wsFrame
		select {
		case f = <-come:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.ended:
			return l.err
		}
		switch f.Op {
		case "ended":
			return f.failure()
		case "msg":
			m, err := f.message()
			if err == nil {
				err = handle(m)
			}
			done := errors.Is(err, ErrStop)
			switch {
			case err != nil && !done:
			case !held:
				if failed := l.send(map[string]any{"op": "credit", "sub": f.Sub, "n": 1}); failed != nil && err == nil {
					err = failed
				}
			default:
				if _, failed := l.ask(ctx, map[string]any{"op": "ack", "sub": f.Sub, "o": f.Offset}); failed != nil {
					return failed
				}
			}
			if err != nil {
				return err
			}
		}
	}
}

func (l *wsLink) Close() error {
	l.write.Lock()
	err := l.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	l.write.Unlock()
	if err == nil {
		select {
		case <-l.ended:
		case <-time.After(time.Second):
		}
	}
	return l.conn.Close()
}

// ErrStop is what handle returns for a message that it has taken and after
// which it wants no more.
var ErrStop = errors.New("stop")

// topicOf splits a topic into what it addresses.
func topicOf(topic string) (kind, name, key string) {
	if q, ok := core.QueueOf(topic); ok {
		return "queue", q, ""
	}
	if e, k, ok := core.ExchangeOf(topic); ok {
		return "exchange", e, k
	}
	return "topic", topic, ""
}

// levels escapes each level of a topic by itself.
func levels(topic string, escape func(string) string) string {
	return strings.Join(slices.Collect(func(yield func(string) bool) {
		for level := range strings.SplitSeq(topic, "/") {
			if !yield(escape(level)) {
				return
			}
		}
	}), "/")
}
