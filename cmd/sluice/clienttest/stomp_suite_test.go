package clienttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	gostomp "github.com/go-stomp/stomp/v3"
	"github.com/go-stomp/stomp/v3/frame"
)

// A stompFrame is a MESSAGE or ERROR that a client got.
type stompFrame struct {
	command string
	headers map[string]string
	body    string
	token   any // what the client acknowledges it by
}

// A stompClient is a connection of one library, as the suite uses it. Every
// call returns once the broker has confirmed it.
type stompClient interface {
	subscribe(id, destination, ack string, headers map[string]string) error
	unsubscribe(id string) error
	send(destination, body string, headers map[string]string) error
	ack(f stompFrame, transaction string) error
	nack(f stompFrame, headers map[string]string) error
	transact(verb, transaction string) error
	next() (stompFrame, error)
	close() error
	drop() error
}

// TestStompSuites runs one suite with each library.
func TestStompSuites(t *testing.T) {
	b := startBroker(t, allowing(browserDriver(t).origin))
	for name, open := range map[string]func(t testing.TB, b *broker, headers map[string]string) stompClient{
		"stomp.py":             stompPy.open,
		"go-stomp":             openGoStomp,
		"STOMP.js":             stompJS.open,
		"STOMP.js in Chromium": pageStompJS.open,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stompSuite{T: t, name: strings.NewReplacer(" ", "-", ".", "-").Replace(name), open: func(headers map[string]string) stompClient { return open(t, b, headers) }}
			s.topics()
			s.acknowledgements()
			s.refusals()
			s.transactions()
			s.selectors()
			s.browsing()
			s.durable()
			s.errors()
		})
	}
}

type stompSuite struct {
	*testing.T
	name string
	open func(headers map[string]string) stompClient
}

// must fails the suite with the place where it is called.
func (s *stompSuite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// want reads a message with that body.
func (s *stompSuite) want(c stompClient, body string) stompFrame {
	s.Helper()
	f, err := c.next()
	if err != nil || f.command != "MESSAGE" || f.body != body {
		s.Fatalf("want the message %q, not %+v, %v", body, f, err)
	}
	return f
}

func (s *stompSuite) queue(name string) string { return "/queue/" + s.name + "." + name }

func (s *stompSuite) topics() {
	c := s.open(nil)
	topic := "/topic/" + s.name + "/größe/→"
	s.must(c.subscribe("one", topic, "auto", nil))
	s.must(c.subscribe("all", "/topic/"+s.name+"/#", "auto", nil))
	for _, body := range []string{"käse", "a\x00b\x00", "", strings.Repeat("0123456789", 20_000)} {
		s.must(c.send(topic, body, map[string]string{"x": "a:b\nc\\d", "content-type": "text/plain"}))
		for range 2 {
			f := s.want(c, body)
			if f.headers["x"] != "a:b\nc\\d" || f.headers["destination"] != topic || f.headers["content-type"] != "text/plain" {
				s.Errorf("%v", f.headers)
			}
		}
	}
	s.must(c.unsubscribe("all"))
	s.must(c.send(topic, "for one", nil))
	if f := s.want(c, "for one"); f.headers["subscription"] != "one" {
		s.Errorf("%v", f.headers)
	}
	s.must(c.close())
}

func (s *stompSuite) acknowledgements() {
	c := s.open(nil)
	s.must(c.subscribe("s", s.queue("acks"), "client-individual", nil))
	for i := range 3 {
		s.must(c.send(s.queue("acks"), fmt.Sprint(i), nil))
	}
	s.want(c, "0")
	middle := s.want(c, "1")
	s.want(c, "2")
	s.must(c.ack(middle, ""))
	s.must(c.close())
	c = s.open(nil)
	s.must(c.subscribe("s", s.queue("acks"), "client", nil))
	for _, body := range []string{"0", "2"} {
		f := s.want(c, body)
		if f.headers["redelivered"] != "true" {
			s.Errorf("%v", f.headers)
		}
		if body == "2" {
			s.must(c.ack(f, "")) // and the one before it
		}
	}
	s.must(c.send(s.queue("acks"), "last", nil))
	s.must(c.close())
	c = s.open(nil)
	s.must(c.subscribe("s", s.queue("acks"), "auto", nil))
	s.want(c, "last")
	s.must(c.close())
}

func (s *stompSuite) refusals() {
	c := s.open(nil)
	s.must(c.subscribe("s", s.queue("nacks"), "client-individual", nil))
	s.must(c.send(s.queue("nacks"), "again", nil))
	s.must(c.nack(s.want(c, "again"), nil))
	f := s.want(c, "again")
	if f.headers["redelivered"] != "true" || f.headers["attempt"] != "2" {
		s.Errorf("%v", f.headers)
	}
	if s.name == "go-stomp" {
		s.must(c.ack(f, "")) // its NACK takes no headers
	} else {
		s.must(c.nack(f, map[string]string{"requeue": "false"}))
		s.must(c.subscribe("dead", s.queue("nacks.dead"), "auto", nil))
		if f := s.want(c, "again"); f.headers["dead-letter-reason"] != "rejected" {
			s.Errorf("%v", f.headers)
		}
	}
	s.must(c.close())
}

func (s *stompSuite) transactions() {
	c := s.open(nil)
	s.must(c.subscribe("in", s.queue("in"), "client-individual", nil))
	s.must(c.subscribe("out", s.queue("out"), "auto", nil))
	s.must(c.send(s.queue("in"), "work", nil))
	work := s.want(c, "work")
	for _, end := range []string{"abort", "commit"} {
		tx := s.name + end
		s.must(c.transact("begin", tx))
		s.must(c.send(s.queue("out"), end, map[string]string{"transaction": tx}))
		s.must(c.ack(work, tx))
		s.must(c.transact(end, tx))
	}
	s.want(c, "commit")
	s.must(c.close())
	c = s.open(nil)
	s.must(c.subscribe("in", s.queue("in"), "auto", nil))
	s.must(c.send(s.queue("in"), "next", nil))
	s.want(c, "next")
	s.must(c.close())
}

func (s *stompSuite) selectors() {
	c := s.open(nil)
	s.must(c.subscribe("s", "/topic/"+s.name+"/colours", "auto", map[string]string{"selector": "colour = 'red' AND weight > 2.5"}))
	for i, colour := range []string{"red", "blue", "red"} {
		s.must(c.send("/topic/"+s.name+"/colours", fmt.Sprint(i), map[string]string{"colour": colour, "weight": fmt.Sprint(1 + i)}))
	}
	s.want(c, "2")
	s.must(c.close())
}

func (s *stompSuite) browsing() {
	c := s.open(nil)
	for i := range 3 {
		s.must(c.send(s.queue("looked-at"), fmt.Sprint(i), nil))
	}
	for _, id := range []string{"first", "second"} {
		s.must(c.subscribe(id, s.queue("looked-at"), "auto", map[string]string{"browser": "true"}))
		for i := range 3 {
			s.want(c, fmt.Sprint(i))
		}
		if f := s.want(c, ""); f.headers["browser"] != "end" {
			s.Errorf("%v", f.headers)
		}
		s.must(c.unsubscribe(id))
	}
	s.must(c.close())
}

func (s *stompSuite) durable() {
	owner := map[string]string{"client-id": s.name}
	how := map[string]string{"activemq.subscriptionName": "news"}
	topic := "/topic/" + s.name + "/news"
	c := s.open(owner)
	s.must(c.subscribe("d", topic, "auto", how))
	s.must(c.close())
	c = s.open(nil)
	s.must(c.send(topic, "while away", nil))
	s.must(c.close())
	c = s.open(owner)
	s.must(c.subscribe("d", topic, "auto", how))
	s.want(c, "while away")
	s.must(c.close())
}

func (s *stompSuite) errors() {
	c := s.open(nil)
	if err := c.send("/exchange/none/k", "x", nil); err == nil {
		s.Error("a message to an exchange that is not there is confirmed")
	}
	c.drop()
	if s.name == "go-stomp" {
		return // it asks no receipt of SUBSCRIBE
	}
	c = s.open(nil)
	if err := c.subscribe("s", s.queue("errors"), "auto", map[string]string{"selector": "colour ="}); err == nil {
		s.Error("a wrong selector is confirmed")
	}
	if f, err := c.next(); err != nil || f.command != "ERROR" || f.headers["message"] != "invalid selector" || !strings.Contains(f.body, "at byte 8") {
		s.Errorf("%+v, %v", f, err)
	}
	c.drop()
}

// A drivenStomp is a stompClient in a driver's process.
type drivenStomp struct {
	*conn
	frames chan stompFrame
}

func (d stompDialer) open(t testing.TB, b *broker, headers map[string]string) stompClient {
	t.Helper()
	c := &drivenStomp{frames: make(chan stompFrame, 100)}
	args := d.where(b)
	if headers != nil {
		args["headers"] = headers
	}
	var err error
	c.conn, _, err = d.driver(t).connect("stomp.connect", args, func(e event) {
		var raw struct {
			Headers [][2]string
			Body    []byte
		}
		if err := json.Unmarshal(e.Raw, &raw); err != nil {
			t.Error(err)
		}
		f := stompFrame{command: strings.ToUpper(e.Event), headers: make(map[string]string), body: string(raw.Body)}
		for _, h := range raw.Headers {
			f.headers[h[0]] = h[1]
		}
		f.token = f.headers["ack"]
		c.frames <- f
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *drivenStomp) do(op string, args map[string]any) error {
	_, err := c.call("stomp."+op, args)
	return err
}

func (c *drivenStomp) subscribe(id, destination, ack string, headers map[string]string) error {
	return c.do("subscribe", map[string]any{"id": id, "destination": destination, "ack": ack, "headers": headers})
}

func (c *drivenStomp) unsubscribe(id string) error {
	return c.do("unsubscribe", map[string]any{"id": id})
}

func (c *drivenStomp) send(destination, body string, headers map[string]string) error {
	list := [][2]string{}
	for name, value := range headers {
		list = append(list, [2]string{name, value})
	}
	return c.do("send", map[string]any{"destination": destination, "body": []byte(body), "headers": list})
}

func (c *drivenStomp) ack(f stompFrame, transaction string) error {
	args := map[string]any{"id": f.token}
	if transaction != "" {
		args["headers"] = map[string]string{"transaction": transaction}
	}
	return c.do("ack", args)
}

func (c *drivenStomp) nack(f stompFrame, headers map[string]string) error {
	return c.do("nack", map[string]any{"id": f.token, "headers": headers})
}

func (c *drivenStomp) transact(verb, transaction string) error {
	return c.do(verb, map[string]any{"transaction": transaction})
}

func (c *drivenStomp) next() (stompFrame, error) { return nextFrame(c.frames) }

func nextFrame(frames <-chan stompFrame) (stompFrame, error) {
	select {
	case f := <-frames:
		return f, nil
	case <-time.After(answerWithin):
		return stompFrame{}, errors.New("no message")
	}
}

// A goStomp is a stompClient of go-stomp's.
type goStomp struct {
	*gostomp.Conn
	subscriptions map[string]*gostomp.Subscription
	transactions  map[string]*gostomp.Transaction
	frames        chan stompFrame
}

func openGoStomp(t testing.TB, b *broker, headers map[string]string) stompClient {
	t.Helper()
	options := []func(*gostomp.Conn) error{gostomp.ConnOpt.HeartBeat(time.Minute, time.Minute), gostomp.ConnOpt.HeartBeatError(time.Minute)}
	for name, value := range headers {
		options = append(options, gostomp.ConnOpt.Header(name, value))
	}
	host, port := hostPort(b.STOMP)
	nc, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := gostomp.Connect(nc, options...)
	if err != nil {
		t.Fatal(err)
	}
	return &goStomp{c, make(map[string]*gostomp.Subscription), make(map[string]*gostomp.Transaction), make(chan stompFrame, 100)}
}

func (c *goStomp) subscribe(id, destination, ack string, headers map[string]string) error {
	modes := map[string]gostomp.AckMode{"auto": gostomp.AckAuto, "client": gostomp.AckClient, "client-individual": gostomp.AckClientIndividual}
	options := []func(*frame.Frame) error{gostomp.SubscribeOpt.Id(id)}
	for name, value := range headers {
		options = append(options, gostomp.SubscribeOpt.Header(name, value))
	}
	s, err := c.Subscribe(destination, modes[ack], options...)
	if err != nil {
		return err
	}
	c.subscriptions[id] = s
	go func() {
		for m := range s.C {
			f := stompFrame{command: "MESSAGE", headers: make(map[string]string), token: m, body: string(m.Body)}
			if m.Err != nil {
				f.command = "ERROR"
			} else {
				for i := range m.Header.Len() {
					name, value := m.Header.GetAt(i)
					f.headers[name] = value
				}
			}
			c.frames <- f
		}
	}()
	// The library asks no receipt of SUBSCRIBE; the one of a frame behind it
	// speaks for it.
	return c.Send("/topic/nobody", "", nil, gostomp.SendOpt.Receipt)
}

// unsubscribe waits for the RECEIPT. The library looks whether it has come and
// waits to be woken, and may be woken in between, in vain: so it is looked at what
// the RECEIPT did, which closes the channel. Nothing else does without a message.
func (c *goStomp) unsubscribe(id string) error {
	s := c.subscriptions[id]
	err := s.Unsubscribe()
	if errors.Is(err, &gostomp.ErrUnsubscribeReceiptTimeout) {
		if _, more := <-s.C; !more {
			return nil
		}
	}
	return err
}

func (c *goStomp) send(destination, body string, headers map[string]string) error {
	if tx := headers["transaction"]; tx != "" {
		return c.transactions[tx].Send(destination, "text/plain", []byte(body))
	}
	options := []func(*frame.Frame) error{gostomp.SendOpt.Receipt}
	for name, value := range headers {
		if name != "content-type" {
			options = append(options, gostomp.SendOpt.Header(name, value))
		}
	}
	return c.Send(destination, headers["content-type"], []byte(body), options...)
}

func (c *goStomp) ack(f stompFrame, transaction string) error {
	m := f.token.(*gostomp.Message)
	if transaction != "" {
		return c.transactions[transaction].Ack(m)
	}
	return c.Ack(m)
}

func (c *goStomp) nack(f stompFrame, _ map[string]string) error {
	return c.Nack(f.token.(*gostomp.Message))
}

func (c *goStomp) transact(verb, transaction string) error {
	switch verb {
	case "begin":
		c.transactions[transaction] = c.Begin()
		return nil
	case "abort":
		return c.transactions[transaction].Abort()
	}
	return c.transactions[transaction].Commit()
}

func (c *goStomp) next() (stompFrame, error) { return nextFrame(c.frames) }
func (c *goStomp) close() error              { return c.Disconnect() }
func (c *goStomp) drop() error               { return c.MustDisconnect() }
