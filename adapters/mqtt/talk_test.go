package mqtt

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed"
)

// TestTalkByModel: three connections with two or three client ids say what is
// valid, what is not, and what is not just now, in any order. A small model says
// of every packet what is answered to it, byte for byte where that matters, what
// each session is sent, in which order and under which packet identifiers, and
// who is disconnected with which reason code.
func TestTalkByModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		seed, steps := rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(1, 150).Draw(rt, "steps")
		w := &talk{random: rand.New(rand.NewPCG(seed, 0)), steps: steps, sessions: make(map[string]*talkSession)}
		synctest.Test(t, w.run)
		if w.fault != "" {
			rt.Fatalf("%s\n%s", strings.Join(w.said, "\n"), w.fault)
		}
	})
}

// A talk is the model of a broker and of all who talk with it.
type talk struct {
	random   *rand.Rand
	steps    int
	said     []string
	fault    string
	site     *site
	talkers  [3]*talker
	sessions map[string]*talkSession
	payloads int
}

// A talkSession is one session, with a connection or without.
type talkSession struct {
	id       string
	lasting  bool
	of       *talker // nil while its client is away
	subs     map[string]talkSub
	queue    []*talkItem // what its client has not acknowledged to the end
	released []*talkItem // those of them that it has (PUBREC), in that order
	incoming map[uint16]bool
	// over are handshakes of QoS 2 that ended on this connection, ghosts those of
	// one that a killed broker had, which may not have kept that they ended: then
	// PUBREL comes again.
	over, ghosts []*talkItem
}

type talkSub struct {
	qos     byte
	id      uint32
	noLocal bool
}

// A talkItem is a message for a session.
type talkItem struct {
	topic, payload string
	qos            byte
	ids            []uint32
	sent           bool
	id             uint16 // once it was sent
	has            bool   // PUBREC came
	doubt          bool   // the broker was killed and cannot know whether it was sent
}

// A talker is a connection.
type talker struct {
	nc      net.Conn
	v       version
	s       *talkSession
	resumed bool
	will    *core.Envelope

	mu    sync.Mutex // guards what follows
	heard []byte
	ended bool

	// What is to come.

	answers []string
	items   []talkDelivery
}

type talkDelivery struct {
	*talkItem
	dup bool
}

func (w *talk) pick(n int) int { return w.random.IntN(n) }

// chance is true one time in n.
func (w *talk) chance(n int) bool { return w.pick(n) == 0 }

func (w *talk) run(t *testing.T) {
	w.site = newSite(t, inBubble, withLimits(func(l *adapters.Limits) { l.InFlight = l.MaxInFlight }))
	for range w.steps {
		i := w.pick(len(w.talkers))
		switch {
		case w.chance(60):
			w.lose()
		case w.talkers[i] == nil:
			w.arrive(i)
		default:
			w.talkers[i].step(w)
		}
		// All that comes of it has come.
		time.Sleep(time.Second)
		for i, c := range w.talkers {
			if c == nil {
				continue
			}
			if err := c.check(); err != nil {
				w.fault = fmt.Sprintf("connection %d: %v", i, err)
				return
			}
			if c.s == nil {
				c.nc.Close()
				w.talkers[i] = nil
			}
		}
	}
}

func (w *talk) note(c *talker, format string, args ...any) {
	w.said = append(w.said, fmt.Sprintf("%d: ", slices.Index(w.talkers[:], c))+fmt.Sprintf(format, args...))
}

// lose has the broker killed, or restarted, which all connections end with.
func (w *talk) lose() {
	var lost []*talker
	wills := 0
	for _, c := range w.talkers {
		if c != nil {
			lost = append(lost, c)
			if c.will != nil {
				wills++
			}
		}
	}
	// After a kill the wills of several are published in the order of their client
	// ids; in a restart in any, while others still are or are not connected.
	slices.SortFunc(lost, func(a, b *talker) int { return strings.Compare(a.s.id, b.s.id) })
	if w.chance(2) && wills == 0 {
		w.said = append(w.said, "restart")
		w.site.restart()
	} else {
		w.said = append(w.said, "kill")
		w.site.kill()
		for _, c := range lost {
			c.s.ghosts = append(c.s.ghosts, c.s.over...)
		}
	}
	clear(w.talkers[:])
	for _, c := range lost {
		c.nc.Close()
		if s := c.s; !s.lasting {
			delete(w.sessions, s.id)
		}
	}
	for _, c := range lost {
		w.end(c, true)
	}
	// A will of that moment may be there before its session is in doubt.
	for _, s := range w.sessions {
		for _, x := range s.queue {
			x.doubt = true
		}
	}
}

func (c *talker) say(packet string) {
	b, _, err := parseBytes(packet)
	if err != nil {
		panic(packet + ": " + err.Error())
	}
	c.nc.Write(b)
}

func (c *talker) expect(format string, args ...any) {
	c.answers = append(c.answers, fmt.Sprintf(format, args...))
}

// arrive opens a connection, which may begin with something wrong.
func (w *talk) arrive(i int) {
	c := &talker{nc: w.site.dial(), v: v5}
	w.talkers[i] = c
	go c.listen()
	switch w.pick(10) {
	case 8:
		packet := []string{`C0 00`, `30 L(s"t/a" 00 "x")`, `E0 00`, `00 00`, `F0 00`, `30 FF FF FF FF`}[w.pick(6)]
		w.note(c, "first %s", packet)
		c.say(packet)
		c.expect("close")
		return
	case 9:
		x := hostile["connect"][w.pick(len(hostile["connect"]))]
		w.note(c, "first %s", x.packet)
		c.say(x.packet)
		c.expect("connack 0 %02x", x.code)
		c.expect("close")
		return
	}
	id := []string{"a", "b", "a"}[i]
	if i == 2 && w.chance(2) {
		id = "c"
	}
	if w.chance(3) {
		c.v = v311
	}
	clean, lasting := w.chance(3), w.chance(2)
	if c.v == v311 {
		lasting = !clean
	}
	flags, fields := byte(0), ""
	if clean {
		flags |= 2
	}
	if w.chance(3) {
		w.payloads++
		qos := w.pick(3)
		c.will = &core.Envelope{Topic: "t/a", Payload: fmt.Append(nil, "will ", w.payloads), Guarantee: core.Guarantee(qos)}
		flags |= 4 | byte(qos)<<3
		if c.v == v5 {
			fields = "00 "
		}
		fields += fmt.Sprintf(`s"t/a" s"%s"`, c.will.Payload)
	}
	properties := ""
	if c.v == v5 {
		properties = "00"
		if lasting {
			properties = "L(11 00000E10)"
		}
	}
	packet := fmt.Sprintf(`10 L(s"MQTT" %02X %02X 0000 %s s"%s" %s)`, byte(c.v), flags, properties, id, fields)
	w.note(c, "%s", packet)
	c.say(packet)

	s := w.sessions[id]
	if s != nil && s.of != nil {
		s.of.bye(codeTakenOver)
		w.end(s.of, true)
		s = w.sessions[id]
	}
	c.resumed = s != nil && !clean
	if !c.resumed {
		s = &talkSession{id: id, subs: make(map[string]talkSub), incoming: make(map[uint16]bool)}
		w.sessions[id] = s
	}
	s.lasting, s.of, c.s = lasting, c, s
	present := 0
	if c.resumed {
		present = 1
	}
	c.expect("connack %d 00", present)
	for _, x := range s.released {
		c.expect("pubrel %d 00", x.id)
	}
	for _, x := range s.queue {
		if !x.has {
			c.items = append(c.items, talkDelivery{x, x.sent})
		}
	}
}

// bye is the end of a connection by the broker.
func (c *talker) bye(code byte) {
	if c.v == v5 {
		c.expect("bye %02x", code)
	}
	c.expect("close")
}

// end ends a connection's part in its session.
func (w *talk) end(c *talker, will bool) {
	s := c.s
	c.s, s.of, s.over = nil, nil, nil
	if !s.lasting {
		delete(w.sessions, s.id)
	}
	if will && c.will != nil {
		w.publish(s.id, c.will.Topic, string(c.will.Payload), byte(c.will.Guarantee))
	}
}

// publish gives a message to whom it is for.
func (w *talk) publish(from, topic, payload string, qos byte) {
	for _, s := range w.sessions {
		x := &talkItem{topic: topic, payload: payload}
		matches := false
		for filter, sub := range s.subs {
			if !core.Filter(filter).Match(topic) || sub.noLocal && s.id == from {
				continue
			}
			matches = true
			x.qos = max(x.qos, min(qos, sub.qos))
			if sub.id != 0 {
				x.ids = append(x.ids, sub.id)
			}
		}
		if !matches {
			continue
		}
		s.queue = append(s.queue, x)
		if s.of != nil {
			s.of.items = append(s.of.items, talkDelivery{x, false})
		}
	}
}

func (c *talker) step(w *talk) {
	s := c.s
	five := "" // what stands where 5.0 has properties
	if c.v == v5 {
		five = "00"
	}
	id := uint16(w.pick(3) + 1)
	filter := []string{"t/a", "t/+", "#", "u"}[w.pick(4)]
	say := func(format string, args ...any) {
		packet := fmt.Sprintf(format, args...)
		w.note(c, "%s", packet)
		c.say(packet)
	}
	switch w.pick(16) {
	case 0, 1, 2, 3, 4:
		topic, qos := []string{"t/a", "t/b", "u"}[w.pick(3)], byte(w.pick(3))
		w.payloads++
		payload := fmt.Sprint("m", w.payloads)
		first, idText := 0x30|qos<<1, ""
		if qos > 0 {
			idText = fmt.Sprintf("%04X", id)
			if w.chance(3) {
				first |= 8
			}
		}
		say(`%02X L(s"%s" %s %s "%s")`, first, topic, idText, five, payload)
		switch {
		case qos == 2 && s.incoming[id]:
			c.expect("pubrec %d 00", id)
			return
		case qos == 2:
			s.incoming[id] = true
			c.expect("pubrec %d 00", id)
		case qos == 1:
			c.expect("puback %d 00", id)
		}
		w.publish(s.id, topic, payload, qos)
	case 5, 6:
		say("62 02 %04X", id)
		code := byte(0)
		if !s.incoming[id] && !c.resumed && c.v == v5 {
			code = codeIDNotFound
		}
		delete(s.incoming, id)
		c.expect("pubcomp %d %02x", id, code)
	case 7, 8:
		sub := talkSub{qos: byte(w.pick(3))}
		options, properties := sub.qos, five
		if c.v == v5 {
			if sub.id = uint32(w.pick(3)); sub.id > 0 {
				properties = fmt.Sprintf("L(0B %02X)", sub.id)
			}
			if sub.noLocal = w.chance(4); sub.noLocal {
				options |= 4
			}
		}
		say(`82 L(%04X %s s"%s" %02X)`, id, properties, filter, options)
		c.expect("suback %d %02x", id, sub.qos)
		s.subs[filter] = sub
	case 9:
		say(`A2 L(%04X %s s"%s")`, id, five, filter)
		_, had := s.subs[filter]
		switch {
		case c.v != v5:
			c.expect("unsuback %d ", id)
		case had:
			c.expect("unsuback %d 00", id)
		default:
			c.expect("unsuback %d 11", id)
		}
		delete(s.subs, filter)
	case 10, 11, 12:
		c.acknowledge(w, say)
	case 13:
		switch w.pick(5) {
		case 0:
			say("E0 00")
			c.expect("close")
			w.end(c, false)
		case 1:
			w.note(c, "drop")
			c.nc.Close()
			c.expect("close")
			w.end(c, true)
		default:
			say("C0 00")
			c.expect("pong")
		}
	case 14:
		if !w.chance(2) {
			return
		}
		if c.v != v5 {
			packets := []string{`00 00`, `F0 00`, `C0 01 00`, `20 02 00 00`, `10 00`, `36 L(s"t" 0001 "x")`, `32 L(s"t/a" 0000 "x")`, `30 L(s"a/+" "x")`, `62 02 0000`, `82 L(0001 s"t" 03)`, `E1 00`}
			say("%s", packets[w.pick(len(packets))])
			c.bye(codeMalformed)
			w.end(c, true)
			return
		}
		kinds := slices.Sorted(maps.Keys(hostile))
		kind := kinds[w.pick(len(kinds))]
		if kind == "connect" || kind == "DISCONNECT" { // which may be right for a lasting session
			return
		}
		x := hostile[kind][w.pick(len(hostile[kind]))]
		say("%s", x.packet)
		c.bye(x.code)
		w.end(c, true)
	case 15:
		if c.v == v5 {
			say("E0 01 04")
			c.expect("close")
			w.end(c, true)
		}
	}
}

// acknowledge answers a message as it should be, or not.
func (c *talker) acknowledge(w *talk, say func(string, ...any)) {
	s := c.s
	var x *talkItem
	if open := slices.DeleteFunc(slices.Clone(s.queue), func(x *talkItem) bool { return x.id == 0 }); len(open) > 0 && !w.chance(6) {
		x = open[w.pick(len(open))]
	}
	id := uint16(60000)
	if x != nil {
		id = x.id
	}
	kind := []byte{typePuback, typePubrec, typePubcomp}[w.pick(3)]
	if x != nil && !w.chance(6) { // what is right
		switch {
		case x.qos == 1:
			kind = typePuback
		case x.has:
			kind = typePubcomp
		default:
			kind = typePubrec
		}
	}
	refuse := kind != typePubcomp && c.v == v5 && w.chance(5)
	if refuse {
		say("%X0 03 %04X 97", kind, id)
	} else {
		say("%X0 02 %04X", kind, id)
	}
	done := func() {
		s.queue = slices.DeleteFunc(s.queue, func(o *talkItem) bool { return o == x })
		s.released = slices.DeleteFunc(s.released, func(o *talkItem) bool { return o == x })
		if x.has {
			s.over = append(s.over, x)
		}
	}
	switch {
	case x == nil && kind == typePubrec && !refuse && c.v == v5:
		c.expect("pubrel %d 92", id)
	case x == nil && kind == typePubrec && !refuse:
		c.expect("pubrel %d 00", id)
	case x == nil:
	case x.qos == 1 && kind == typePuback, x.has && kind == typePubcomp, x.qos == 2 && !x.has && kind == typePubrec && refuse:
		done()
	case x.has && kind == typePubrec:
		c.expect("pubrel %d 00", id)
	case x.qos == 2 && kind == typePubrec:
		x.has = true
		s.released = append(s.released, x)
		c.expect("pubrel %d 00", id)
	default:
		c.bye(codeProtocol)
		w.end(c, true)
	}
}

// listen gathers what comes.
func (c *talker) listen() {
	var b [4096]byte
	for {
		n, err := c.nc.Read(b[:])
		c.mu.Lock()
		c.heard = append(c.heard, b[:n]...)
		c.ended = c.ended || err != nil
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// check compares what has come with what was to come.
func (c *talker) check() error {
	c.mu.Lock()
	heard, ended := c.heard, c.ended
	c.heard = nil
	c.mu.Unlock()
	var answers []string
	for len(heard) > 0 {
		h, ok, err := parseHeader(heard)
		if err != nil || !ok || len(heard) < h.size+h.length {
			return fmt.Errorf("% X: %v", heard, io.ErrUnexpectedEOF)
		}
		body := heard[h.size : h.size+h.length]
		heard = heard[h.size+h.length:]
		if h.kind() != typePublish {
			answers = append(answers, answerText(h, body, c.v))
			continue
		}
		if len(c.items) == 0 {
			return fmt.Errorf("unexpected PUBLISH %02x %q", h.first, body)
		}
		x := c.items[0]
		c.items = c.items[1:]
		if err := c.arrived(x, h, body); err != nil {
			return fmt.Errorf("%w: %02x %q, want %+v, dup %v", err, h.first, body, *x.talkItem, x.dup)
		}
	}
	if ended {
		answers = append(answers, "close")
	}
	answers = c.exorcise(answers)
	if !slices.Equal(answers, c.answers) {
		return fmt.Errorf("answers %q, want %q", answers, c.answers)
	}
	c.answers = nil
	if len(c.items) > 0 && !ended {
		return fmt.Errorf("%+v did not come", *c.items[0].talkItem)
	}
	return nil
}

// exorcise takes the PUBRELs of ghosts out of answers, which go on as what they
// were.
func (c *talker) exorcise(answers []string) []string {
	if c.s == nil || !c.resumed {
		return answers
	}
	for _, x := range c.s.ghosts {
		if i := slices.Index(answers, fmt.Sprintf("pubrel %d 00", x.id)); i > 0 {
			answers = slices.Delete(answers, i, i+1)
			c.s.queue, c.s.released = append(c.s.queue, x), append(c.s.released, x)
		}
	}
	c.s.ghosts = nil
	return answers
}

// arrived compares a PUBLISH.
func (c *talker) arrived(x talkDelivery, h header, body []byte) error {
	s := scanner{rest: body}
	topic, id, ids := string(s.bytes()), uint16(0), []uint32(nil)
	if h.first&6 != 0 {
		id = s.uint16()
	}
	if c.v == v5 {
		n := s.varint()
		p := scanner{rest: s.rest[:n]}
		s.rest = s.rest[n:]
		for len(p.rest) > 0 {
			if p.byte() != propSubscriptionID {
				return fmt.Errorf("a property")
			}
			ids = append(ids, uint32(p.varint()))
		}
		slices.Sort(ids)
		slices.Sort(x.ids)
		if !slices.Equal(ids, x.ids) {
			return fmt.Errorf("subscription identifiers %v", ids)
		}
	}
	first := byte(typePublish<<4 | x.qos<<1)
	if x.qos > 0 && (x.dup || x.doubt && h.first&8 != 0) {
		first |= 8
	}
	switch {
	case topic != x.topic || string(s.rest) != x.payload:
		return fmt.Errorf("another message")
	case h.first != first:
		return fmt.Errorf("flags, want %02x", first)
	case (id == 0) != (x.qos == 0) || x.id != 0 && id != x.id:
		return fmt.Errorf("packet identifier %d", id)
	}
	for _, o := range c.queue() {
		if o != x.talkItem && id != 0 && o.id == id {
			return fmt.Errorf("packet identifier %d is %q's", id, o.payload)
		}
	}
	x.sent, x.id = true, id
	if x.qos == 0 && c.s != nil {
		c.s.queue = slices.DeleteFunc(c.s.queue, func(o *talkItem) bool { return o == x.talkItem })
	}
	return nil
}

func (c *talker) queue() []*talkItem {
	if c.s == nil {
		return nil
	}
	return c.s.queue
}

// answerText is a packet of the broker's, without what nobody relies on.
func answerText(h header, body []byte, v version) string {
	s := scanner{rest: body}
	names := map[byte]string{
		typePuback: "puback", typePubrec: "pubrec", typePubrel: "pubrel", typePubcomp: "pubcomp", typeSuback: "suback", typeUnsuback: "unsuback",
	}
	switch h.kind() {
	case typeConnack:
		return fmt.Sprintf("connack %d %02x", body[0], body[1])
	case typePuback, typePubrec, typePubrel, typePubcomp:
		id, code := s.uint16(), byte(0)
		if len(s.rest) > 0 {
			code = s.byte()
		}
		return fmt.Sprintf("%s %d %02x", names[h.kind()], id, code)
	case typeSuback, typeUnsuback:
		id := s.uint16()
		if v == v5 {
			n := s.varint()
			s.rest = s.rest[n:]
		}
		return fmt.Sprintf("%s %d %x", names[h.kind()], id, s.rest)
	case typePingresp:
		return "pong"
	case typeDisconnect:
		return fmt.Sprintf("bye %02x", body[0])
	}
	return fmt.Sprintf("a packet of type %d", h.kind())
}
