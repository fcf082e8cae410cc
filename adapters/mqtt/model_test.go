package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// A modelClient is a client with a lasting session that keeps its own part of
// both handshakes over connections, as the specifications ask of it, and knows
// naively what it must have been given.
type modelClient struct {
	id   string
	v    version
	nc   net.Conn
	buf  []byte
	hold bool // acknowledges nothing
	most byte // the receive maximum that it asks for; 0 is none

	next uint16
	out  []*modelPublish          // not acknowledged to their end, in order
	got2 map[uint16]bool          // QoS 2: what has come and is not released
	held []func() []byte          // acknowledgements that were held back
	acks map[byte]map[uint16]bool // SUBACK, UNSUBACK, PINGRESP that came

	accepted []string // payloads, in order
	levels   []byte   // and the QoS at which they came
	present  bool     // CONNACK said so

	// What is expected.

	has     bool // there is a session
	subs    map[string]byte
	epoch   int                 // counts sessions
	must    map[string]byte     // payloads to come, by the lower of the two QoS
	may     map[string]struct{} // payloads that may come
	once    map[string]struct{} // payloads that must not come twice
	inEpoch int                 // where in accepted the session began
}

// A modelPublish is a publish on its way.
type modelPublish struct {
	id      uint16
	qos     byte
	topic   string
	payload string
	retain  bool
	rel     bool           // PUBREC came
	before  map[string]int // epochs and QoS of the sessions that matched when it began
}

func (c *modelClient) publishPacket(p *modelPublish, dup bool) []byte {
	first := byte(typePublish<<4 | p.qos<<1)
	if dup && p.qos > 0 {
		first |= 8
	}
	if p.retain {
		first |= 1
	}
	body := appendString(nil, p.topic)
	if p.qos > 0 {
		body = appendUint16(body, p.id)
	}
	if c.v == v5 {
		body = append(body, 0)
	}
	body = append(body, p.payload...)
	return append(appendVarint([]byte{first}, len(body)), body...)
}

func (c *modelClient) connectPacket(clean bool) []byte {
	body := append(appendString(nil, "MQTT"), byte(c.v), 0, 0, 60)
	if clean {
		body[7] = 2
	}
	if c.v == v5 {
		properties := []byte{propSessionExpiry, 0, 0, 0x0E, 0x10}
		if c.most > 0 {
			properties = append(properties, 0x21, 0, c.most)
		}
		body = append(append(body, byte(len(properties))), properties...)
	}
	body = appendString(body, c.id)
	return append(appendVarint([]byte{typeConnect << 4}, len(body)), body...)
}

// read reads one packet.
func (c *modelClient) read() (h header, body []byte, err error) {
	for {
		h, ok, err := parseHeader(c.buf)
		if err != nil {
			return h, nil, err
		}
		if ok && len(c.buf) >= h.size+h.length {
			body := slices.Clone(c.buf[h.size : h.size+h.length])
			c.buf = c.buf[h.size+h.length:]
			return h, body, nil
		}
		var chunk [4096]byte
		n, err := c.nc.Read(chunk[:])
		if c.buf = append(c.buf, chunk[:n]...); n == 0 && err != nil {
			return h, nil, err
		}
	}
}

// handle takes a packet.
func (c *modelClient) handle(h header, body []byte) error {
	s := scanner{rest: body}
	switch h.kind() {
	case typePublish:
		var p publishPacket
		var e core.Envelope
		if c.v == v5 {
			topic := s.bytes()
			if h.first&6 != 0 {
				p.id = s.uint16()
			}
			n := s.varint()
			s.rest = s.rest[n:]
			e.Topic, e.Payload = string(topic), s.rest
			p.qos = h.first >> 1 & 3
		} else if err := p.decode(h.first&0x0F, body, c.v, &e); err != nil {
			return err
		}
		payload := string(e.Payload)
		before := len(c.accepted)
		defer func() {
			if len(c.accepted) > before {
				c.levels = append(c.levels, p.qos)
			}
		}()
		switch p.qos {
		case 0:
			c.accepted = append(c.accepted, payload)
		case 1:
			c.accepted = append(c.accepted, payload)
			c.answer(func() []byte { return appendAck(nil, typePuback, p.id, c.v, 0) })
		case 2:
			if !c.got2[p.id] {
				c.got2[p.id] = true
				c.accepted = append(c.accepted, payload)
			} else if h.first&8 == 0 {
				return fmt.Errorf("%s: PUBLISH under the identifier %d, which is in use, without DUP", c.id, p.id)
			}
			c.answer(func() []byte { return appendAck(nil, typePubrec, p.id, c.v, 0) })
		}
	case typePubrel:
		id := s.uint16()
		delete(c.got2, id)
		c.answer(func() []byte { return appendAck(nil, typePubcomp, id, c.v, 0) })
	case typePuback, typePubcomp:
		id := s.uint16()
		c.out = slices.DeleteFunc(c.out, func(p *modelPublish) bool { return p.id == id })
	case typePubrec:
		id := s.uint16()
		for _, p := range c.out {
			if p.id == id {
				p.rel = true
			}
		}
		c.nc.Write(appendAck(nil, typePubrel, id, c.v, 0))
	case typeSuback, typeUnsuback, typePingresp:
		id := uint16(0)
		if len(body) > 0 {
			id = s.uint16()
		}
		if c.acks[h.kind()] == nil {
			c.acks[h.kind()] = make(map[uint16]bool)
		}
		c.acks[h.kind()][id] = true
	case typeDisconnect:
		return fmt.Errorf("%s: DISCONNECT % x", c.id, body)
	default:
		return fmt.Errorf("%s: a packet of type %d", c.id, h.kind())
	}
	return nil
}

func (c *modelClient) answer(ack func() []byte) {
	if c.hold {
		c.held = append(c.held, ack)
		return
	}
	c.nc.Write(ack())
}

// until handles packets until something holds.
func (c *modelClient) until(done func() bool) error {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	for !done() {
		h, body, err := c.read()
		if err == nil {
			err = c.handle(h, body)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.id, err)
		}
	}
	return nil
}

// barrier waits until the server has answered all that was sent.
func (c *modelClient) barrier() error {
	delete(c.acks, typePingresp)
	c.nc.Write([]byte{typePingreq << 4, 0})
	return c.until(func() bool { return c.acks[typePingresp][0] })
}

// A modelWorld is a broker, its clients, and what was published.
type modelWorld struct {
	*site
	clients []*modelClient
	seq     int
	again   map[string]bool // sent again: at QoS 1 it may be there twice, later
	quick   []string        // QoS 0: nobody knows when they were taken
}

func (w *modelWorld) lose() {
	for _, c := range w.clients {
		c.drop()
	}
}

func (c *modelClient) drop() {
	if c.nc != nil {
		c.nc.Close()
	}
	c.nc, c.buf, c.held, c.hold = nil, nil, nil, false
	clear(c.acks)
}

// connect resumes the session or begins another one, on a new connection, and
// sends again what is not acknowledged.
func (w *modelWorld) connect(c *modelClient, clean bool) error {
	old := c.nc
	c.nc, c.buf, c.held, c.hold = nil, nil, nil, false
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		return err
	}
	if old != nil {
		defer old.Close() // taken over
	}
	c.nc = nc
	nc.Write(c.connectPacket(clean))
	nc.SetReadDeadline(time.Now().Add(patience))
	h, body, err := c.read()
	if err != nil || h.kind() != typeConnack || body[1] != 0 {
		return fmt.Errorf("%s: no CONNACK: %v, % x", c.id, err, body)
	}
	if c.present = body[0]&1 == 1; c.present != (c.has && !clean) {
		return fmt.Errorf("%s: session present is %v", c.id, c.present)
	}
	if !c.present {
		c.subs, c.must, c.may, c.once = make(map[string]byte), make(map[string]byte), make(map[string]struct{}), make(map[string]struct{})
		c.got2 = make(map[uint16]bool)
		c.epoch++
		c.inEpoch = len(c.accepted)
		c.out = nil // the client's part of the session is discarded, too
	}
	c.has = !(clean && c.v == v311) // which ends with its connection
	for _, p := range c.out {
		if p.rel {
			nc.Write(appendAck(nil, typePubrel, p.id, c.v, 0))
		} else {
			nc.Write(c.publishPacket(p, true))
			w.again[p.payload] = true
		}
	}
	return nil
}

// matching is what sessions match a topic, by QoS: "id/epoch" to QoS + 1.
func (w *modelWorld) matching(topic string, qos byte) map[string]int {
	m := make(map[string]int)
	for _, c := range w.clients {
		for f, q := range c.subs {
			if core.Filter(f).Match(topic) {
				key := fmt.Sprintf("%s/%d", c.id, c.epoch)
				m[key] = max(m[key], int(min(q, qos))+1)
			}
		}
	}
	return m
}

// publish publishes and, with finish, waits until it is acknowledged.
func (w *modelWorld) publish(c *modelClient, topic string, qos byte, finish bool) error {
	return w.send(c, &modelPublish{topic: topic, qos: qos}, finish)
}

func (w *modelWorld) send(c *modelClient, p *modelPublish, finish bool) error {
	w.seq++
	if c.next++; c.next == 0 {
		c.next++
	}
	topic, qos := p.topic, p.qos
	p.id, p.payload, p.before = c.next, fmt.Sprintf("%s %s %d", c.id, topic, w.seq), w.matching(topic, qos)
	for _, x := range w.clients {
		if p.before[fmt.Sprintf("%s/%d", x.id, x.epoch)] > 0 {
			x.may[p.payload] = struct{}{}
			if qos == 2 && p.before[fmt.Sprintf("%s/%d", x.id, x.epoch)] == 3 {
				x.once[p.payload] = struct{}{}
			}
		}
	}
	if qos > 0 {
		c.out = append(c.out, p)
	}
	if _, err := c.nc.Write(c.publishPacket(p, false)); err != nil {
		return err
	}
	if qos == 0 {
		w.quick = append(w.quick, p.payload)
	}
	if qos == 0 || !finish {
		return nil
	}
	if err := c.until(func() bool { return !slices.Contains(c.out, p) }); err != nil {
		return err
	}
	after := w.matching(topic, qos)
	for _, x := range w.clients {
		key := fmt.Sprintf("%s/%d", x.id, x.epoch)
		if q := min(p.before[key], after[key]) - 1; q > 0 {
			x.must[p.payload] = byte(q)
		}
	}
	return nil
}

func (w *modelWorld) subscribe(c *modelClient, filter string, qos byte) error {
	c.next++
	body := appendUint16(nil, c.next)
	if c.v == v5 {
		body = append(body, 0)
	}
	body = append(appendString(body, filter), qos)
	// What others have on its way may match from now on.
	for _, x := range w.clients {
		for _, p := range x.out {
			if core.Filter(filter).Match(p.topic) {
				c.may[p.payload] = struct{}{}
			}
		}
	}
	for _, payload := range w.quick {
		if core.Filter(filter).Match(strings.Fields(payload)[1]) {
			c.may[payload] = struct{}{}
		}
	}
	delete(c.acks, typeSuback)
	c.nc.Write(append(appendVarint([]byte{typeSubscribe<<4 | 2}, len(body)), body...))
	if err := c.until(func() bool { return c.acks[typeSuback][c.next] }); err != nil {
		return err
	}
	for payload := range c.may {
		if topic := strings.Fields(payload)[1]; core.Filter(filter).Match(topic) {
			delete(c.once, payload) // it may have been given away at a lower QoS
			if _, is := c.must[payload]; is && qos < 2 {
				c.must[payload] = min(c.must[payload], 1)
			}
		}
	}
	c.subs[filter] = qos
	return nil
}

func (w *modelWorld) unsubscribe(c *modelClient, filter string) error {
	c.next++
	body := appendUint16(nil, c.next)
	if c.v == v5 {
		body = append(body, 0)
	}
	body = appendString(body, filter)
	delete(c.acks, typeUnsuback)
	c.nc.Write(append(appendVarint([]byte{typeUnsubscribe<<4 | 2}, len(body)), body...))
	if err := c.until(func() bool { return c.acks[typeUnsuback][c.next] }); err != nil {
		return err
	}
	delete(c.subs, filter)
	// What it had not been given yet need not come any more, or comes at the
	// QoS of another subscription.
	clear(c.must)
	clear(c.once)
	return nil
}

// settle ends the handshakes of what has come. A message whose handshake has
// begun at one QoS comes again at the QoS that its subscriptions have then.
func (c *modelClient) settle() error {
	c.hold = false
	for _, ack := range c.held {
		c.nc.Write(ack())
	}
	c.held = nil
	if err := c.barrier(); err != nil {
		return err
	}
	return c.until(func() bool { return len(c.got2) == 0 })
}

// disturb does to a client, or to the broker, what a model's operation names.
func (w *modelWorld) disturb(c *modelClient, op string) error {
	switch op {
	case "barrier":
		return c.barrier()
	case "hold":
		c.hold = true
	case "drop":
		c.drop()
	case "take over":
		return w.connect(c, false)
	case "kill":
		w.lose()
		w.kill()
	case "restart":
		w.lose()
		w.restart()
	default:
		return fmt.Errorf("there is no operation %q", op)
	}
	return nil
}

// check lets a session have all that it must get, and compares.
func (w *modelWorld) check(c *modelClient) error {
	if c.nc == nil {
		if err := w.connect(c, false); err != nil {
			return err
		}
	}
	c.hold = false
	for _, ack := range c.held {
		c.nc.Write(ack())
	}
	c.held = nil
	missing := func() []string {
		got := c.accepted[c.inEpoch:]
		var m []string
		for _, payload := range slices.Sorted(maps.Keys(c.must)) {
			if !slices.Contains(got, payload) {
				m = append(m, payload)
			}
		}
		return m
	}
	err := c.until(func() bool { return len(missing()) == 0 && len(c.out) == 0 && len(c.got2) == 0 })
	if err != nil {
		return fmt.Errorf("%w; missing %q, %d to be acknowledged, %d to be released", err, missing(), len(c.out), len(c.got2))
	}
	if err := c.barrier(); err != nil {
		return err
	}
	count := make(map[string]int)
	last := make(map[string]int)
	for i, payload := range c.accepted[c.inEpoch:] {
		if count[payload]++; count[payload] > 1 {
			if _, is := c.once[payload]; is {
				return fmt.Errorf("%s: %q came twice", c.id, payload)
			}
			continue
		}
		if _, is := c.may[payload]; !is {
			return fmt.Errorf("%s: %q came although nothing matched", c.id, payload)
		}
		var from, topic string
		var n int
		fmt.Sscanf(payload, "%s %s %d", &from, &topic, &n)
		if key := fmt.Sprint(from, " ", topic, c.levels[c.inEpoch+i]); n < last[key] && !w.again[payload] && c.levels[c.inEpoch+i] > 0 {
			return fmt.Errorf("%s: %q came behind number %d", c.id, payload, last[key])
		} else {
			last[key] = max(last[key], n)
		}
	}
	return nil
}

var (
	modelTopics  = []string{"a/1", "a/2", "b"}
	modelFilters = []string{"a/+", "a/1", "#", "b"}
)

// TestSessionsByModel: random operations of several clients with sessions,
// takeovers, breaks, kills and restarts, compared with what a naive model says
// must have been delivered.
func TestSessionsByModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		o := siteOptions{limits: patientLimits(), engine: &reopened{Engine: coretest.NewEngine()}}
		w := &modelWorld{site: &site{t: t, options: o, limits: o.limits}, again: make(map[string]bool)}
		w.start()
		defer func() { w.lose(); w.close() }()
		for i, v := range []version{v5, v311, v5} {
			w.clients = append(w.clients, &modelClient{id: fmt.Sprintf("c%d", i), v: v, acks: make(map[byte]map[uint16]bool), got2: make(map[uint16]bool)})
		}
		try := func(what string, err error) {
			if err != nil {
				rt.Fatalf("%s: %v", what, err)
			}
		}
		for _, c := range w.clients {
			try("connect", w.connect(c, true))
		}
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			c := rapid.SampledFrom(w.clients).Draw(rt, "client")
			if c.nc == nil {
				try("connect", w.connect(c, rapid.IntRange(0, 9).Draw(rt, "clean") == 0))
			}
			filter := rapid.SampledFrom(modelFilters).Draw(rt, "filter")
			qos := byte(rapid.IntRange(0, 2).Draw(rt, "qos"))
			switch op := rapid.SampledFrom([]string{
				"publish", "publish", "publish", "publish", "leave", "subscribe", "subscribe", "unsubscribe", "barrier", "hold",
				"drop", "take over", "kill", "restart",
			}).Draw(rt, "do"); op {
			case "publish":
				try(op, w.publish(c, rapid.SampledFrom(modelTopics).Draw(rt, "topic"), qos, true))
			case "leave":
				try(op, w.publish(c, rapid.SampledFrom(modelTopics).Draw(rt, "topic"), qos, false))
			case "subscribe", "unsubscribe":
				try("settle", c.settle())
				if op == "subscribe" {
					try(op, w.subscribe(c, filter, qos))
				} else {
					try(op, w.unsubscribe(c, filter))
				}
			default:
				try(op, w.disturb(c, op))
			}
		}
		for _, c := range w.clients {
			try("check", w.check(c))
		}
	})
}

// packetsOfAllKinds are what FuzzConversation draws from besides noise.
var packetsOfAllKinds = []string{
	`10 L(s"MQTT" 05 02 003C 00 s"a")`, `10 L(s"MQTT" 05 00 003C L(11 0000003C) s"a")`, `10 L(s"MQTT" 04 02 003C s"b")`,
	`10 L(s"MQTT" 04 00 003C s"b")`, `10 L(s"MQTT" 05 06 003C 00 s"w" 00 s"t" "..gone")`, `10 L(s"MQIsdp" 03 02 003C s"c")`,
	`30 L(s"t" 00 "x")`, `31 L(s"t" 00 "x")`, `32 L(s"t" 0001 00 "x")`, `34 L(s"t" 0001 00 "x")`, `3C L(s"t" 0001 00 "x")`,
	`34 L(s"t" 0002 "x")`, `32 L(s"" 0003 L(23 0001) "x")`, `32 L(s"t" 0003 L(23 0001) "x")`,
	`40 02 0001`, `40 02 0002`, `50 02 0002`, `50 L(0002 80)`, `62 02 0001`, `62 02 0002`, `70 02 0002`, `70 02 0001`,
	`82 L(0001 00 s"t" 02)`, `82 L(0001 s"#" 01)`, `82 L(0002 L(0B 07) s"$share/g/t" 01)`, `82 L(0003 00 s"$queue/q" 01)`,
	`82 L(0004 00 s"$replay/earliest/t" 01)`, `82 L(0005 00 s"$meta/t" 01)`, `A2 L(0006 00 s"t")`, `A2 L(0007 s"t")`,
	`C0 00`, `E0 00`, `E0 01 04`, `F0 L(19 L(15 s"TEST"))`, `00 00`, `20 02 00 00`, `82 00`, `30 00`, `FF FF FF FF FF`,
}

// FuzzConversation: several clients say anything, valid or not, in any order.
// Whatever it was, the broker does not panic, no session is stuck, and a client
// that comes next is served as if nothing had been: that is the model.
func FuzzConversation(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add([]byte{0, 1, 22, 2, 8, 1, 3, 23, 0, 14, 4, 30, 1, 28})
	f.Add([]byte{0, 1, 0, 1, 0, 24, 2, 9, 0, 31})
	f.Add([]byte{0, 4, 1, 2, 1, 22, 0, 31, 0, 4, 0, 32, 2, 200, 7})
	o := siteOptions{limits: patientLimits(), authorizer: challenger{}, engine: &reopened{Engine: coretest.NewEngine()}}
	o.limits.ConnsPerAddress, o.limits.ConnRatePerAddress = 1<<20, 1<<20
	errs := &errorLog{said: make(chan string, 1)}
	s := &site{t: f, options: o, limits: o.limits}
	s.options.log = slog.New(errs)
	s.start()
	f.Cleanup(func() { s.close() })
	var all [][]byte
	for _, p := range packetsOfAllKinds {
		all = append(all, bytesOf(f, p))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		var conns [3]net.Conn
		defer func() {
			for _, c := range conns {
				if c != nil {
					c.Close()
				}
			}
		}()
		for len(script) >= 2 {
			who, what := script[0]%3, int(script[1])
			script = script[2:]
			if conns[who] == nil {
				c, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Fatal(err)
				}
				conns[who] = c
				go io.Copy(io.Discard, c)
			}
			switch {
			case what < len(all):
				conns[who].Write(all[what])
			case what < 200:
				conns[who].Close()
				conns[who] = nil
			default:
				n := min(what-200, len(script))
				conns[who].Write(script[:n])
				script = script[n:]
			}
		}
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
		// None is stuck, and the next one is served. What the others have sent
		// may still be read, and take its client id over.
		err := errors.New("not tried")
		for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
			err = probe(s.addr)
		}
		if err != nil {
			t.Fatal(err)
		}
		if said := errs.first(); said != "" {
			t.Fatal("the broker logged an error: ", said)
		}
	})
}

// probe has a short conversation as a client that knows nothing of others.
func probe(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, x := range [][2]string{
		{`10 L(s"MQTT" 05 02 003C 00 s"a")`, `20 L(00 00 L(21 0400 22 0040 27 00110000))`},
		{`82 L(0001 00 s"probe" 02)`, `90 L(0001 00 02)`},
		{`34 L(s"probe" 0001 00 "x")`, `50 02 0001 || 34 L(s"probe" ?2 00 "x")`},
	} {
		say, _, _ := parseBytes(x[0])
		c.Write(say)
		if err := expectWithin(c, x[1], patience); err != nil {
			return fmt.Errorf("%s: %w", x[0], err)
		}
	}
	return nil
}

// errorLog keeps the first error that is logged, such as a panic.
type errorLog struct {
	said chan string
}

func (l *errorLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *errorLog) WithGroup(string) slog.Handler                    { return l }
func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	select {
	case l.said <- text:
	default:
	}
	return nil
}
func (l *errorLog) first() string {
	select {
	case said := <-l.said:
		return said
	default:
		return ""
	}
}
