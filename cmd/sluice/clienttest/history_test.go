package clienttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	gostomp "github.com/go-stomp/stomp/v3"
	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/core/coretest"
)

// TestQueueHistory has one queue, ordered by key, worked on by consumers over
// MQTT, STOMP, HTTP and WebSocket, which accept, release and reject, while the
// broker is killed twice. The history must show one holder at a time, exact attempts,
// the order of keys, every message settled, and each dead letter once.
func TestQueueHistory(t *testing.T) {
	const messages, keys = 120, 8
	b := startBroker(t)
	h := coretest.NewHistory()
	h.Ordered = true
	w := &workers{t: t, b: b, h: h, done: make(chan struct{}), up: make(chan struct{})}
	if err := w.request("PUT", "/v1/queues/jobs", `{"settings":{"ordered":true,"max_attempts":-1,"backoff":"1ms","backoff_max":"1ms"}}`, nil, nil); err != nil {
		t.Fatal(err)
	}
	close(w.up)
	w.start("mqtt", w.mqtt)
	w.start("stomp", w.stomp)
	w.start("http", w.lease)
	w.start("http too", w.lease)
	w.start("websocket", w.websocket)

	for i := range messages {
		name, key := strconv.Itoa(i), fmt.Sprint("k", draw(strconv.Itoa(i), 0, keys))
		h.Published(name, key)
		eventually(t, arrive, func() error {
			return w.request("POST", "/q/jobs", name, http.Header{"X-Key": {key}, "Idempotency-Key": {name}}, nil)
		})
		if i == messages/3 || i == messages*2/3 {
			w.kill()
		}
	}
	eventually(t, arrive, func() error {
		var q struct {
			Lag           *int
			Held, Waiting int
		}
		if err := w.request("GET", "/v1/queues/jobs", "", nil, &q); err != nil {
			return err
		}
		if q.Lag == nil || *q.Lag+q.Held+q.Waiting > 0 {
			return fmt.Errorf("%+v is left", q)
		}
		return nil
	})
	close(w.done)
	w.working.Wait()
	dead, err := w.get("/q/jobs.dead?limit=1000&format=ndjson")
	if err != nil && !strings.Contains(err.Error(), "404") {
		t.Fatal(err)
	}
	for _, m := range dead {
		h.Dead(m.Data)
	}
	for _, fault := range h.End() {
		t.Error(fault)
	}
	t.Logf("%d dead letters", len(dead))
}

// workers consume the queue.
type workers struct {
	t       *testing.T
	b       *broker
	h       *coretest.History
	done    chan struct{}
	working sync.WaitGroup

	mu     sync.Mutex // guards what follows
	up     chan struct{}
	absent sync.WaitGroup // who has not yet noticed that the broker is gone
	count  int
}

// start has a worker work again and again. What ends its connection ends what
// it holds.
func (w *workers) start(name string, work func(name string) error) {
	w.mu.Lock()
	w.count++
	w.mu.Unlock()
	w.working.Go(func() {
		known := w.up
		for {
			w.mu.Lock()
			if w.up != known {
				known = w.up
				w.absent.Done()
			}
			w.mu.Unlock()
			select {
			case <-w.done:
				return
			case <-known:
			}
			err := work(name)
			w.h.Left(name)
			if err != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
}

// kill kills the broker and starts it again once every worker has noticed.
func (w *workers) kill() {
	w.mu.Lock()
	w.up = make(chan struct{})
	w.absent.Add(w.count)
	w.mu.Unlock()
	w.b.kill()
	w.absent.Wait()
	w.b.start()
	close(w.up)
}

// draw is a number below n that belongs to an attempt of a message, whoever has it
// and when.
func draw(message string, attempt, n int) int {
	i, _ := strconv.Atoi(message)
	return rand.New(rand.NewPCG(uint64(i), uint64(attempt))).IntN(n)
}

// outcome is what becomes of a message at one of its attempts.
func outcome(message string, attempt int) string {
	switch n := draw(message, attempt, 10); {
	case n < 2:
		return "release"
	case n < 3:
		return "reject"
	}
	return "accept"
}

func (w *workers) request(method, path, body string, header http.Header, into any) error {
	r, err := http.NewRequest(method, "http://"+w.b.HTTP+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	a, err := (&http.Client{Timeout: 2 * time.Minute}).Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return err
	}
	if a.StatusCode >= 300 {
		return fmt.Errorf("%d: %s", a.StatusCode, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// A queued is a message in the broker's JSON.
type queued struct {
	Offset  uint64 `json:"o"`
	Attempt int    `json:"n"`
	Data    string `json:"d"`
	Lease   string `json:"lease"`
}

func (w *workers) get(path string) (all []queued, err error) {
	a, err := http.Get("http://" + w.b.HTTP + path)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != 200 {
		return nil, fmt.Errorf("%s", a.Status)
	}
	for d := json.NewDecoder(a.Body); ; {
		var m queued
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

// lease takes one message after the other over HTTP.
func (w *workers) lease(name string) error {
	for {
		select {
		case <-w.done:
			return nil
		default:
		}
		r, err := (&http.Client{Timeout: 2 * time.Minute}).Post("http://"+w.b.HTTP+"/q/jobs/lease?max=1&wait=200ms", "", nil)
		if err != nil {
			return err
		}
		var m queued
		err = json.NewDecoder(r.Body).Decode(&m)
		r.Body.Close()
		if errors.Is(err, io.EOF) {
			continue
		} else if err != nil {
			return err
		}
		w.h.Delivered(name, m.Data, m.Attempt)
		do := outcome(m.Data, m.Attempt)
		w.h.Settling(m.Data, do != "release")
		if err := w.request("POST", "/lease/"+m.Lease+"/"+do, "", nil, nil); err != nil {
			return err
		}
		if do == "accept" {
			w.h.Settled(m.Data)
		}
	}
}

// untilDone closes a connection when the work is done, until stop is called.
func (w *workers) untilDone(c io.Closer) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-w.done:
			c.Close()
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

// mqtt acknowledges with PUBACK, rejects by a reason code, and releases, which
// MQTT has no word for, by going away with what it holds.
func (w *workers) mqtt(name string) error {
	c, err := net.Dial("tcp", w.b.MQTT)
	if err != nil {
		return err
	}
	defer c.Close()
	defer w.untilDone(c)()
	send := func(kind byte, fill func(any)) error {
		p := packets.NewControlPacket(kind)
		fill(p.Content)
		_, err := p.WriteTo(c)
		return err
	}
	most, id := uint16(3), connections.Add(1)
	err = send(packets.CONNECT, func(p any) {
		connect := p.(*packets.Connect)
		connect.ClientID, connect.CleanStart = fmt.Sprint("history-", id), true
		connect.Properties.ReceiveMaximum = &most
	})
	if err != nil {
		return err
	}
	err = send(packets.SUBSCRIBE, func(p any) {
		p.(*packets.Subscribe).PacketID = 1
		p.(*packets.Subscribe).Subscriptions = []packets.SubOptions{{Topic: "$queue/jobs", QoS: 1}}
	})
	if err != nil {
		return err
	}
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return err
		}
		m, ok := p.Content.(*packets.Publish)
		if !ok {
			continue
		}
		attempt := 0
		for _, u := range m.Properties.User {
			if u.Key == "attempt" {
				attempt, err = strconv.Atoi(u.Value)
			}
		}
		if err != nil || attempt == 0 {
			return fmt.Errorf("the attempt is missing: %v", m.Properties.User)
		}
		body := string(m.Payload)
		w.h.Delivered(name, body, attempt)
		do := outcome(body, attempt)
		if do == "release" && draw(body, -attempt, 5) == 0 {
			w.h.Left(name)
			return nil
		}
		w.h.Settling(body, true)
		err = send(packets.PUBACK, func(p any) {
			if p.(*packets.Puback).PacketID = m.PacketID; do == "reject" {
				p.(*packets.Puback).ReasonCode = packets.PubackUnspecifiedError
			}
		})
		if err != nil {
			return err
		}
	}
}

func (w *workers) stomp(name string) error {
	c, err := gostomp.Dial("tcp", w.b.STOMP)
	if err != nil {
		return err
	}
	defer c.MustDisconnect()
	s, err := c.Subscribe("/queue/jobs", gostomp.AckClientIndividual, gostomp.SubscribeOpt.Header("prefetch-count", "3"))
	if err != nil {
		return err
	}
	for {
		select {
		case <-w.done:
			return nil
		case m := <-s.C:
			if m == nil || m.Err != nil {
				return errors.New("the connection ended")
			}
			attempt, err := strconv.Atoi(m.Header.Get("attempt"))
			if err != nil {
				return err
			}
			body := string(m.Body)
			w.h.Delivered(name, body, attempt)
			accepts := outcome(body, attempt) != "release" // its Nack only releases
			if w.h.Settling(body, accepts); accepts {
				err = c.Ack(m)
			} else {
				err = c.Nack(m)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (w *workers) websocket(name string) error {
	c, _, err := websocket.DefaultDialer.Dial("ws://"+w.b.HTTP+"/ws", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	defer w.untilDone(c)()
	if err := c.WriteJSON(map[string]any{"op": "sub", "req": 1, "sub": "jobs", "queue": "jobs", "credit": 3, "ack": true}); err != nil {
		return err
	}
	for {
		var m struct {
			Op string `json:"op"`
			queued
		}
		if err := c.ReadJSON(&m); err != nil {
			return err
		}
		if m.Op != "msg" {
			continue
		}
		w.h.Delivered(name, m.Data, max(m.Attempt, 1)) // the first is left out
		do := outcome(m.Data, m.Attempt)
		w.h.Settling(m.Data, do != "release")
		answer := map[string]any{"op": "ack", "sub": "jobs", "o": m.Offset}
		if do != "accept" {
			answer["op"], answer["requeue"] = "nack", do == "release"
		}
		if err := c.WriteJSON(answer); err != nil {
			return err
		}
	}
}
