package clienttest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An mqttGot is a PUBLISH that a client got, as its library tells of it.
type mqttGot struct {
	Topic      string
	Payload    []byte
	QoS        int
	Retain     bool
	Dup        bool
	Properties *mqttProperties
}

// An mqttHello is what a client says with CONNECT.
type mqttHello struct {
	id             string // empty is one of its own
	keep           bool   // go on with a session, and leave one behind
	user, password string
	will           *mqttWill
	receiveMaximum int
	aliases        int // how many topic aliases it takes
	safe           *safeBroker
	cert           string // the name of the certificate that it shows to it, over TLS
	webSocket      bool   // where the library can do otherwise, too
}

// An mqttWill is published to a topic, with QoS 1.
type mqttWill struct {
	topic, payload string
	retain         bool
	delay          int // seconds
}

// mqttWishes are the options of a subscription that are not its QoS.
type mqttWishes struct {
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    int
	ID                int
	From              string
}

// An mqttClient is a connection of one library, as the suite uses it. Every
// call returns once the broker has answered it.
type mqttClient interface {
	present() bool
	subscribe(filter string, qos int, w mqttWishes) error
	unsubscribe(filter string) error
	publish(topic, payload string, qos int, retain bool, p *mqttProperties) error
	next() (mqttGot, error)
	// hold makes what comes from now on not be acknowledged.
	hold() error
	close() error
	drop() error
}

// An mqttLibrary is what a suite runs with.
type mqttLibrary struct {
	name      string
	v5        bool
	certs     bool // it can show a certificate
	webSocket bool // it can be told to use one
	oneID     bool // it tells of one subscription identifier only
	ordered   bool // its user properties keep their order between names
	aliases   bool // it knows what topic aliases stand for
	open      func(t testing.TB, b *broker, h mqttHello) (mqttClient, error)
}

var mqttLibraries = []mqttLibrary{
	{name: "Paho Python", v5: true, certs: true, webSocket: true, ordered: true, open: paho.opener(5)},
	{name: "Paho Python, 3.1.1", certs: true, webSocket: true, open: paho.opener(4)},
	{name: "Paho Go, 3.1.1", certs: true, webSocket: true, open: openGo3},
	{name: "Paho Go, 5", v5: true, certs: true, oneID: true, ordered: true, aliases: true, open: openGo5},
	{name: "MQTT.js", v5: true, certs: true, aliases: true, open: mqttJS.opener(5)},
	{name: "MQTT.js in Chromium", v5: true, aliases: true, open: pageMQTTJS.opener(5)},
}

// TestMQTTSuites runs one suite with each library, each with a broker of its
// own, which is ended and killed.
func TestMQTTSuites(t *testing.T) {
	page := browserDriver(t)
	safe := startSafeBroker(t)
	for _, l := range mqttLibraries {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			s := &mqttSuite{T: t, mqttLibrary: l, broker: startBroker(t, allowing(page.origin)+"sys_interval: 1s\n"), safe: safe}
			s.qualities()
			s.retained()
			s.wills()
			s.sessions()
			s.shared()
			s.words()
			s.logins()
			if l.v5 {
				s.options()
				s.properties()
				s.inFlight()
			}
			if l.aliases {
				s.topicAliases()
			}
		})
	}
}

type mqttSuite struct {
	*testing.T
	mqttLibrary
	broker *broker
	safe   *safeBroker
	seen   map[string]bool // what fresh has given
}

// must fails the suite with the place where it is called.
func (s *mqttSuite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

var mqttClients atomic.Int64

func (s *mqttSuite) connect(h mqttHello) mqttClient {
	s.Helper()
	c, err := s.dial(s.broker, h)
	s.must(err)
	return c
}

func (s *mqttSuite) dial(b *broker, h mqttHello) (mqttClient, error) {
	if h.id == "" {
		h.id = fmt.Sprintf("suite-%d", mqttClients.Add(1))
	}
	return s.open(s.T, b, h)
}

// want reads the next message and wants it to be that.
func (s *mqttSuite) want(c mqttClient, topic, payload string, qos int, retain bool) mqttGot {
	s.Helper()
	m, err := c.next()
	if err != nil || m.Topic != topic || string(m.Payload) != payload || m.QoS != qos || m.Retain != retain {
		s.Fatalf("want %s %q with QoS %d, RETAIN %v; got %s %q with QoS %d, RETAIN %v, %v", topic, payload, qos, retain, m.Topic, m.Payload, m.QoS, m.Retain, err)
	}
	return m
}

// fresh reads the next message that has not come before. A library may leave
// before it has sent its last acknowledgements: then a message comes again, and
// says so.
func (s *mqttSuite) fresh(c mqttClient) mqttGot {
	s.Helper()
	for {
		m, err := c.next()
		s.must(err)
		id := m.Topic + " " + string(m.Payload)
		if !s.seen[id] {
			if s.seen == nil {
				s.seen = make(map[string]bool)
			}
			s.seen[id] = true
			return m
		}
		if !m.Dup {
			s.Fatalf("%s comes again without DUP", id)
		}
	}
}

// qualities: each QoS to each, and nothing comes twice or out of order.
func (s *mqttSuite) qualities() {
	sub, pub := s.connect(mqttHello{}), s.connect(mqttHello{webSocket: s.webSocket})
	for granted := range 3 {
		s.must(sub.subscribe(fmt.Sprintf("q/%d/+/#", granted), granted, mqttWishes{}))
	}
	for sent := range 3 {
		for granted := range 3 {
			for i, payload := range []string{"größe", "a\x00b", "", strings.Repeat("0123456789", 20_000)} {
				topic := fmt.Sprintf("q/%d/%d/größe/%d", granted, sent, i)
				s.must(pub.publish(topic, payload, sent, false, nil))
				s.want(sub, topic, payload, min(sent, granted), false)
			}
		}
	}
	s.must(sub.unsubscribe("q/1/+/#"))
	s.must(pub.publish("q/1/x", "nobody", 1, false, nil))
	s.must(pub.publish("q/2/x", "one", 2, false, nil))
	s.want(sub, "q/2/x", "one", 2, false)
	s.must(sub.close())
	s.must(pub.close())
}

func (s *mqttSuite) retained() {
	c := s.connect(mqttHello{})
	for i := range 3 {
		s.must(c.publish(fmt.Sprintf("r/%d/t", i), fmt.Sprint(i), i, true, nil))
	}
	s.must(c.publish("r/1/t", "", 1, true, nil))
	s.must(c.subscribe("r/+/t", 1, mqttWishes{}))
	s.want(c, "r/0/t", "0", 0, true)
	s.want(c, "r/2/t", "2", 1, true)
	s.must(c.publish("r/2/t", "new", 1, true, nil))
	s.want(c, "r/2/t", "new", 1, false)
	s.must(c.subscribe("r/2/#", 0, mqttWishes{}))
	s.want(c, "r/2/t", "new", 0, true)
	s.must(c.close())
}

func (s *mqttSuite) wills() {
	watch := s.connect(mqttHello{})
	s.must(watch.subscribe("w/#", 1, mqttWishes{}))
	left := s.connect(mqttHello{will: &mqttWill{topic: "w/left", payload: "no"}})
	s.must(left.close())
	gone := s.connect(mqttHello{will: &mqttWill{topic: "w/gone", payload: "gone", retain: true}})
	s.must(gone.drop())
	m := s.want(watch, "w/gone", "gone", 1, false)
	if s.v5 && fmt.Sprint(m.Properties.UserProperties) != "[[from the will]]" {
		s.Errorf("the will's properties are %v", m.Properties)
	}
	s.must(watch.subscribe("w/gone", 0, mqttWishes{}))
	s.want(watch, "w/gone", "gone", 0, true)
	if s.v5 {
		// One that comes back in time takes its will along.
		late := mqttHello{id: "late", keep: true, will: &mqttWill{topic: "w/late", payload: "too early", delay: 3600}}
		s.must(s.connect(late).drop())
		late.will = &mqttWill{topic: "w/late", payload: "late", delay: 1}
		s.must(s.connect(late).drop())
		s.want(watch, "w/late", "late", 1, false)
	}
	s.must(watch.close())
}

// sessions: what was on its way, and what came meanwhile, in order and once,
// over lost connections and a broker that is ended and killed.
func (s *mqttSuite) sessions() {
	me := mqttHello{id: "me", keep: true}
	c := s.connect(me)
	if c.present() {
		s.Error("there is a session before there was one")
	}
	s.must(c.subscribe("s/1", 1, mqttWishes{}))
	s.must(c.subscribe("s/2", 2, mqttWishes{}))
	for round, end := range []func(*broker){func(*broker) {}, (*broker).stop, (*broker).kill} {
		pub := s.connect(mqttHello{})
		s.must(c.hold())
		onItsWay := fmt.Sprint("on its way in ", round)
		s.must(pub.publish("s/1", onItsWay, 1, false, nil))
		for m, err := c.next(); string(m.Payload) != onItsWay; m, err = c.next() {
			s.must(err) // one that came already
		}
		s.must(c.drop())
		for i := range 6 {
			s.must(pub.publish(fmt.Sprintf("s/%d", 1+i%2), fmt.Sprintf("%d.%d ", round, i), 1+i%2, false, nil))
		}
		if end(s.broker); s.broker.cmd == nil {
			pub.drop() // of a broker that is gone: whatever it says
			s.broker.start()
		} else {
			s.must(pub.close())
		}
		c = s.connect(me)
		if !c.present() {
			s.Error("the session is gone")
		}
		// Some libraries hand on a message of QoS 2 only at its PUBREL.
		came := make(map[string]string)
		for range 7 {
			m := s.fresh(c)
			if string(m.Payload) == onItsWay && !m.Dup {
				s.Error("sent again without DUP")
			}
			came[fmt.Sprintf("%s QoS %d", m.Topic, m.QoS)] += string(m.Payload)
		}
		want := map[string]string{"s/1 QoS 1": fmt.Sprintf("%s%d.0 %[2]d.2 %[2]d.4 ", onItsWay, round), "s/2 QoS 2": fmt.Sprintf("%d.1 %[1]d.3 %[1]d.5 ", round)}
		if !maps.Equal(came, want) {
			s.Errorf("want %q, got %q", want, came)
		}
	}
	s.must(c.close())
	c = s.connect(mqttHello{id: "me"})
	if c.present() {
		s.Error("a clean start went on with a session")
	}
	s.must(c.close())
}

// shared: what a member that leaves has not acknowledged goes to the others, and
// nothing goes to one that is away.
func (s *mqttSuite) shared() {
	away := s.connect(mqttHello{id: "away", keep: true})
	s.must(away.subscribe("$share/g/work/+", 1, mqttWishes{}))
	s.must(away.close())
	one, two, pub := s.connect(mqttHello{}), s.connect(mqttHello{}), s.connect(mqttHello{})
	s.must(one.hold())
	s.must(one.subscribe("$share/g/work/+", 1, mqttWishes{}))
	s.must(two.subscribe("$share/g/work/+", 1, mqttWishes{}))
	for i := range 4 {
		s.must(pub.publish(fmt.Sprintf("work/%d", i), fmt.Sprint(i), 1, false, nil))
	}
	m, err := one.next()
	s.must(err)
	s.must(one.drop())
	seen := make(map[string]bool)
	for range 4 {
		seen[string(s.fresh(two).Payload)] = true
	}
	if len(seen) != 4 || !seen[string(m.Payload)] {
		s.Errorf("the one that stayed got %v; the one that left had %q", seen, m.Payload)
	}
	s.must(two.close())
	// Nobody is there: who comes back first has it.
	s.must(pub.publish("work/5", "5", 1, false, nil))
	away = s.connect(mqttHello{id: "away", keep: true})
	if m := s.fresh(away); string(m.Payload) != "5" {
		s.Errorf("the one that came back got %q", m.Payload)
	}
	for _, c := range []mqttClient{away, pub} {
		s.must(c.close())
	}
}

// words are the topics and filters that mean something of Sluice's.
func (s *mqttSuite) words() {
	c := s.connect(mqttHello{})
	for i := range 3 {
		s.must(c.publish("h/t", fmt.Sprint(i), 1, false, nil))
	}
	s.must(c.subscribe("$replay/-2/h/+", 1, mqttWishes{}))
	s.want(c, "h/t", "1", 1, false)
	s.want(c, "h/t", "2", 1, false)
	s.must(c.unsubscribe("$replay/-2/h/+"))
	if s.v5 {
		s.must(c.subscribe("h/#", 1, mqttWishes{From: "-1"}))
		m := s.want(c, "h/t", "2", 1, false)
		if got := fmt.Sprint(m.Properties.UserProperties); !strings.Contains(got, "[offset ") || !strings.Contains(got, "[attempt 1]") {
			s.Errorf("a replay without its offset: %v", got)
		}
		s.must(c.unsubscribe("h/#"))
	}

	s.must(c.subscribe("$meta/m", 1, mqttWishes{}))
	s.must(c.publish("m", "x", 1, false, nil))
	m, err := c.next()
	s.must(err)
	inside, err := jsonMessage(m.Payload)
	if err != nil || inside.Topic != "m" || string(inside.Payload) != "x" {
		s.Errorf("$meta gave %q: %v", m.Payload, err)
	}

	s.must(c.subscribe("d", 1, mqttWishes{}))
	asked := time.Now()
	s.must(c.publish("$delayed/1/d", "later", 1, false, nil))
	s.want(c, "d", "later", 1, false)
	if waited := time.Since(asked); waited < time.Second-time.Millisecond { // a message's time is in whole milliseconds
		s.Errorf("a message that waits for a second came after %v", waited)
	}

	s.must(c.publish("$queue/jobs", "job", 1, false, nil))
	s.must(c.subscribe("$queue/jobs", 1, mqttWishes{}))
	s.want(c, "$queue/jobs", "job", 1, false)

	// Some libraries take no wildcard that shares a level, such as "stock.#".
	s.must(c.subscribe("$exchange/amq.topic/stock.*", 1, mqttWishes{}))
	s.must(c.publish("$exchange/amq.topic/bond.eur", "no", 1, false, nil))
	s.must(c.publish("$exchange/amq.topic/stock.eur", "yes", 1, false, nil))
	s.want(c, "$exchange/amq.topic/stock.eur", "yes", 1, false)

	s.must(c.subscribe("$SYS/broker/version", 0, mqttWishes{}))
	if m, err := c.next(); err != nil || !strings.HasPrefix(string(m.Payload), "sluice version ") || !m.Retain {
		s.Errorf("$SYS says %q, %v", m.Payload, err)
	}
	s.must(c.close())
}

// logins: who says who it is comes in, and nobody else.
func (s *mqttSuite) logins() {
	try := func(h mqttHello, may bool) {
		s.Helper()
		c, err := s.dial(s.safe.broker, h)
		if err == nil {
			err = c.subscribe("mine/+/"+s.name, 1, mqttWishes{})
		}
		if may != (err == nil) {
			s.Fatalf("user %q, certificate %q: %v", h.user, h.cert, err)
		}
		if c == nil {
			return
		}
		if !may {
			s.must(c.close())
			return
		}
		s.must(c.publish("mine/x/"+s.name, "x", 1, false, nil))
		s.want(c, "mine/x/"+s.name, "x", 1, false)
		s.must(c.close())
	}
	try(mqttHello{user: "ann", password: "ann-secret"}, true)
	try(mqttHello{user: "ann", password: "no"}, false)
	try(mqttHello{}, false)
	try(mqttHello{user: "jwt", password: s.safe.token("bob", time.Hour)}, true)
	try(mqttHello{user: "jwt", password: s.safe.token("bob", -time.Hour)}, false)
	if s.certs {
		try(mqttHello{safe: s.safe, cert: "carl"}, true)
		try(mqttHello{safe: s.safe, cert: "nobody"}, false)
	}
}

// TestScramByPaho: Paho for Go logs in by SCRAM-SHA-256.
func TestScramByPaho(t *testing.T) {
	safe := startSafeBroker(t)
	login := func(password string) error {
		method := &scram{user: "ann", password: password}
		c, err := connectGo5(t, safe.broker, mqttHello{id: "by-scram"}, method)
		if err := firstOf(method.err, err); err != nil {
			return err
		}
		return firstOf(c.subscribe("a", 1, mqttWishes{}), c.close())
	}
	if err := login("ann-secret"); err != nil {
		t.Error(err)
	}
	if err := login("no"); err == nil {
		t.Error("a wrong password comes in")
	}
}

// options of a subscription of MQTT 5.
func (s *mqttSuite) options() {
	c, other := s.connect(mqttHello{}), s.connect(mqttHello{})
	s.must(c.publish("o/r", "kept", 1, true, nil))
	s.must(c.subscribe("o/r", 1, mqttWishes{RetainHandling: 2}))
	s.must(c.subscribe("o/r", 1, mqttWishes{RetainHandling: 1}))
	s.must(c.unsubscribe("o/r"))
	s.must(c.subscribe("o/r", 1, mqttWishes{RetainHandling: 1, RetainAsPublished: true}))
	s.want(c, "o/r", "kept", 1, true)
	s.must(c.publish("o/r", "as published", 1, true, nil))
	s.want(c, "o/r", "as published", 1, true)
	s.must(c.subscribe("o/l", 1, mqttWishes{NoLocal: true}))
	s.must(c.publish("o/l", "mine", 1, false, nil))
	s.must(other.publish("o/l", "theirs", 1, false, nil))
	s.want(c, "o/l", "theirs", 1, false)
	s.must(c.subscribe("o/i/+", 0, mqttWishes{ID: 7}))
	s.must(c.subscribe("o/i/#", 1, mqttWishes{ID: 268_435_455}))
	s.must(other.publish("o/i/x", "x", 1, false, nil))
	m := s.want(c, "o/i/x", "x", 1, false)
	slices.Sort(m.Properties.SubscriptionIDs)
	if got := fmt.Sprint(m.Properties.SubscriptionIDs); got != "[7 268435455]" && !(s.oneID && len(m.Properties.SubscriptionIDs) == 1) {
		s.Errorf("the subscription identifiers are %v", got)
	}
	s.must(c.close())
	// No local is about the client id, whatever MQTT came over.
	id := fmt.Sprintf("suite-%d", mqttClients.Add(1))
	before, err := openGo3(s.T, s.broker, mqttHello{id: id, webSocket: true})
	s.must(err)
	s.must(before.publish("o/n/1", "mine", 1, true, nil))
	s.must(before.close())
	s.must(other.publish("o/n/2", "theirs", 1, true, nil))
	c = s.connect(mqttHello{id: id})
	s.must(c.subscribe("o/n/+", 1, mqttWishes{NoLocal: true}))
	s.want(c, "o/n/2", "theirs", 1, true)
	s.must(c.close())
	s.must(other.close())
}

// properties of a message, and a request with its response.
func (s *mqttSuite) properties() {
	c, server := s.connect(mqttHello{}), s.connect(mqttHello{})
	s.must(server.subscribe("ask/+", 1, mqttWishes{}))
	s.must(c.subscribe("answer/c", 1, mqttWishes{}))
	p := &mqttProperties{
		ContentType: "text/plain", ResponseTopic: "answer/c", CorrelationData: []byte("\x00\x01\xff"), MessageExpiryInterval: 3600,
		PayloadFormatIndicator: 1, UserProperties: [][2]string{{"b", "1"}, {"a", "größe"}, {"b", "2"}, {"", ""}},
	}
	s.must(c.publish("ask/a", "?", 1, false, p))
	m := s.want(server, "ask/a", "?", 1, false)
	g := m.Properties
	want := fmt.Sprint(p.UserProperties)
	if !s.ordered {
		want = "[[b 1] [b 2] [a größe] [ ]]" // it gathers what repeats
	}
	if g.ContentType != p.ContentType || g.ResponseTopic != p.ResponseTopic || string(g.CorrelationData) != string(p.CorrelationData) ||
		g.PayloadFormatIndicator != 1 || g.MessageExpiryInterval < 3590 || g.MessageExpiryInterval > 3600 || fmt.Sprint(g.UserProperties) != want {
		s.Errorf("sent %+v, got %+v", p, g)
	}
	s.must(server.publish(g.ResponseTopic, "!", 1, false, &mqttProperties{CorrelationData: g.CorrelationData}))
	if m := s.want(c, "answer/c", "!", 1, false); string(m.Properties.CorrelationData) != "\x00\x01\xff" {
		s.Errorf("the correlation data came back as %q", m.Properties.CorrelationData)
	}
	s.must(c.close())
	s.must(server.close())
}

// inFlight: a client gets no more than it takes at once.
func (s *mqttSuite) inFlight() {
	me := mqttHello{id: "slow", keep: true, receiveMaximum: 2}
	c, pub := s.connect(me), s.connect(mqttHello{})
	s.must(c.hold())
	s.must(c.subscribe("f", 1, mqttWishes{}))
	for i := range 5 {
		s.must(pub.publish("f", strconv.Itoa(i), 1, false, nil))
	}
	s.want(c, "f", "0", 1, false)
	// What it does not acknowledge is there again; the two that it was sent
	// say so, and the others do not.
	s.must(c.drop())
	c = s.connect(me)
	for i := range 5 {
		if m := s.want(c, "f", strconv.Itoa(i), 1, false); m.Dup != (i < 2) {
			s.Errorf("%d came with DUP %v", i, m.Dup)
		}
	}
	s.must(c.close())
	s.must(pub.close())
}

// topicAliases in both directions: the client's stand for their topics until it
// gives them others, and it gets as many as it takes.
func (s *mqttSuite) topicAliases() {
	c, pub := s.connect(mqttHello{aliases: 2}), s.connect(mqttHello{})
	for _, topic := range []string{"alias/a", "alias/b", "alias/c"} {
		s.must(c.subscribe(topic, 1, mqttWishes{}))
	}
	for i, x := range []struct {
		topic string
		alias int
		to    string
		got   int // the alias that it comes with
	}{
		{"alias/a", 1, "alias/a", 1},
		{"", 1, "alias/a", 1},
		{"alias/b", 1, "alias/b", 2},
		{"", 1, "alias/b", 2},
		{"alias/c", 64, "alias/c", 0},
		{"", 64, "alias/c", 0},
		{"alias/a", 0, "alias/a", 1},
	} {
		s.must(pub.publish(x.topic, strconv.Itoa(i), 1, false, &mqttProperties{TopicAlias: x.alias}))
		got := 0
		if p := s.want(c, x.to, strconv.Itoa(i), 1, false).Properties; p != nil { // MQTT.js has none where there is none
			got = p.TopicAlias
		}
		if got != x.got {
			s.Errorf("%d came with the alias %d, want %d", i, got, x.got)
		}
	}
	s.must(c.close())
	s.must(pub.close())
}

// nextGot waits for a message.
func nextGot(messages <-chan mqttGot) (mqttGot, error) {
	select {
	case m := <-messages:
		return m, nil
	case <-time.After(answerWithin):
		return mqttGot{}, errors.New("no message")
	}
}
