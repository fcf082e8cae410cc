package clienttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// This file speaks the native protocol over a WebSocket that a driver opens.

// A wsDialer opens WebSockets of one implementation.
type wsDialer struct{ driver func(testing.TB) *driver }

var (
	nodeWebSocket = wsDialer{nodeDriver}
	pageWebSocket = wsDialer{browserDriver}
)

// A wsConn is one connection: requests are answered by number, messages go to
// the inbox.
type wsConn struct {
	*conn
	mu      sync.Mutex // guards what follows
	next    int
	pending map[string]chan jsonReply
	closed  error
	onEnd   func(error)
}

type jsonReply struct {
	jsonObject
	Code, Text string
}

func (d wsDialer) dial(t testing.TB, b *broker, onMessage func(*jsonObject), onEnd func(error)) (*wsConn, error) {
	w := &wsConn{pending: make(map[string]chan jsonReply), onEnd: onEnd}
	welcomed := make(chan error, 1)
	c, _, err := d.driver(t).connect("ws.connect", map[string]any{
		"url": "ws://" + b.HTTP + "/ws", "protocols": []string{"sluice.v1.json"},
	}, func(e event) {
		if e.Event == "closed" {
			w.end(errClosed)
			return
		}
		var frame struct{ Text string }
		var r jsonReply
		if err := errors.Join(json.Unmarshal(e.Raw, &frame), json.Unmarshal([]byte(frame.Text), &r)); err != nil {
			w.end(fmt.Errorf("%w: %s", err, e.Raw))
			return
		}
		switch {
		case len(r.Req) > 0:
			w.mu.Lock()
			waiting := w.pending[string(r.Req)]
			delete(w.pending, string(r.Req))
			w.mu.Unlock()
			if waiting != nil {
				waiting <- r
			}
		case r.Op == "welcome":
			welcomed <- nil
		case r.Op == "msg":
			onMessage(&r.jsonObject)
		case r.Op == "err" || r.Op == "end":
			w.end(errors.New(frame.Text))
		}
	})
	if err != nil {
		return nil, err
	}
	w.conn = c
	select {
	case <-welcomed:
		return w, nil
	case <-time.After(answerWithin):
		return nil, errors.New("no welcome")
	}
}

// end fails all that wait.
func (w *wsConn) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed == nil {
		w.closed = err
		w.onEnd(err)
	}
	for req, waiting := range w.pending {
		delete(w.pending, req)
		waiting <- jsonReply{jsonObject: jsonObject{Op: "err"}, Text: err.Error()}
	}
}

// request sends a command and waits for its answer.
func (w *wsConn) request(command map[string]any) (jsonReply, error) {
	waiting := make(chan jsonReply, 1)
	w.mu.Lock()
	if w.closed != nil {
		w.mu.Unlock()
		return jsonReply{}, w.closed
	}
	w.next++
	command["req"] = w.next
	w.pending[strconv.Itoa(w.next)] = waiting
	w.mu.Unlock()
	if err := w.send(command); err != nil {
		return jsonReply{}, err
	}
	select {
	case r := <-waiting:
		if r.Op != "ok" && r.Op != "reply" {
			return r, fmt.Errorf("%s %s: %s", r.Op, r.Code, r.Text)
		}
		return r, nil
	case <-time.After(answerWithin):
		return jsonReply{}, fmt.Errorf("no answer to %v", command["op"])
	}
}

func (w *wsConn) send(command map[string]any) error {
	text, err := json.Marshal(command)
	if err != nil {
		return err
	}
	_, err = w.call("ws.send", map[string]any{"text": string(text)})
	return err
}

// wsPublish is the command that publishes m.
func wsPublish(to address, m message) map[string]any {
	c := map[string]any{"op": "pub"}
	set := func(name, value string) {
		if value != "" {
			c[name] = value
		}
	}
	set("topic", to.topic)
	set("queue", to.queue)
	if utf8.Valid(m.Payload) {
		c["d"] = string(m.Payload)
	} else {
		c["b"] = m.Payload
	}
	set("type", m.ContentType)
	set("reply", m.ReplyTo)
	set("key", m.Key)
	set("id", m.ID)
	if utf8.Valid(m.Correlation) {
		set("corr", string(m.Correlation))
	} else {
		c["corr64"] = m.Correlation
	}
	if len(m.Headers) > 0 {
		c["h"] = pairs(m.Headers)
	}
	if m.TTL > 0 {
		c["ttl"] = m.TTL.Milliseconds()
	}
	if m.Priority != "" {
		c["prio"] = json.RawMessage(m.Priority)
	}
	if m.Retain {
		c["retain"] = true
	}
	return c
}

func (d wsDialer) publish(t testing.TB, b *broker) (publishFunc, error) {
	w, err := d.dial(t, b, func(*jsonObject) {}, func(error) {})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { w.close() })
	return func(to address, m message) error {
		_, err := w.request(wsPublish(to, m))
		return err
	}, nil
}

// receive opens a receiver. From a queue or a group it acknowledges each
// message by itself.
func (d wsDialer) receive(t testing.TB, b *broker, s selection) (*inbox, error) {
	in := newInbox()
	acks := make(chan *jsonObject, 1024)
	settles := func(o *jsonObject) bool {
		i, err := strconv.Atoi(o.Sub)
		return err == nil && (s.from[i].queue != "" || s.group != "")
	}
	w, err := d.dial(t, b, func(o *jsonObject) {
		m, err := o.message()
		if err != nil {
			in.fail(err)
			return
		}
		if !settles(o) || !s.hold {
			acks <- o
		}
		in.add(m)
	}, in.fail)
	if err != nil {
		return nil, err
	}
	acked := make(chan error, 1)
	go func() {
		var failed error
		for o := <-acks; o != nil; o = <-acks {
			c := map[string]any{"op": "credit", "sub": o.Sub, "n": 1}
			if settles(o) {
				c = map[string]any{"op": "ack", "sub": o.Sub, "o": o.O}
			}
			_, err := w.request(c)
			failed = firstOf(failed, err)
		}
		acked <- failed
	}()
	in.end = onceFunc(func() error {
		acks <- nil // behind the acknowledgements of all that was added
		err := <-acked
		return firstOf(err, w.close())
	})
	in.drop = w.drop
	for i, a := range s.from {
		c := map[string]any{"op": "sub", "sub": strconv.Itoa(i), "credit": 100}
		if a.queue != "" {
			c["queue"] = a.queue
		} else {
			c["topic"] = a.topic
		}
		if s.group != "" {
			c["group"] = s.group
			if s.ordered {
				c["ordered"] = true
			}
		}
		if s.start != "" {
			c["from"] = s.start
		}
		if s.retained {
			c["retained"] = true
		}
		if _, err := w.request(c); err != nil {
			return nil, err
		}
	}
	return in, nil
}
