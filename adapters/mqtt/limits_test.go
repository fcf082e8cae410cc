package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/adaptertest"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// say sends bytes in the transcripts' notation, and hear expects some.
func (s *site) say(c net.Conn, text string) {
	s.t.Helper()
	if _, err := c.Write(bytesOf(s.t, text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) hear(c net.Conn, text string) {
	s.t.Helper()
	if err := expect(c, text); err != nil {
		s.t.Fatal(err)
	}
}

// Every refusal is counted under its reason.
func TestRefusalsAreCounted(t *testing.T) {
	for _, x := range []struct {
		reason string
		limit  func(*adapters.Limits)
		say    string // behind CONNECT of MQTT 5, unless it is one
	}{
		{"malformed", nil, `30 FF FF FF FF 01`},
		{"protocol", nil, `10 L(s"MQTT" 05 02 003C 00 s"a")`},
		{"packet_too_large", nil, `30 FF FF FF 7F`},
		{"topic", nil, `30 L(s"a/+" 00 "x")`},
		{"topic", nil, `30 L(s"$delayed/never/t" 00 "x")`},
		{"topic_alias", nil, `30 L(s"" L(23 0007) "x")`},
		{"not_authorized", nil, `30 L(s"$SYS/x" 00 "x")`},
		{"not_found", nil, `30 L(s"$exchange/nowhere/k" 00 "x")`},
		{"message_too_large", func(l *adapters.Limits) { l.MessageBytes = 3 }, `30 L(s"t" 00 "1234")`},
		{"payload_format", nil, `30 L(s"t" L(01 01) FF)`},
		{"user_properties", func(l *adapters.Limits) { l.MQTTUserProperties = 1 }, `30 L(s"t" L(26 s"a" s"1" 26 s"b" s"2") "x")`},
		{"user_properties", func(l *adapters.Limits) { l.MQTTUserPropertyBytes = 3 }, `30 L(s"t" L(26 s"ab" s"12") "x")`},
		{"publish_in_flight", func(l *adapters.Limits) { l.PublishInFlight = 1 }, `34 L(s"t" 0001 00 "x") 34 L(s"t" 0002 00 "x")`},
		{"limit", func(l *adapters.Limits) { l.Subscriptions = 1 }, `82 L(0001 00 s"a" 00 s"b" 00)`},
		{"limit", func(l *adapters.Limits) { l.SubscriptionsPacket = 1 }, `82 L(0001 00 s"a" 00 s"b" 00)`},
		{"from", nil, `82 L(0001 00 s"$replay/never/a" 00)`},
	} {
		t.Run(x.reason, func(t *testing.T) {
			t.Parallel()
			var options []siteOption
			if x.limit != nil {
				options = append(options, withLimits(x.limit))
			}
			s := newSite(t, options...)
			c := s.dial()
			s.say(c, `10 L(s"MQTT" 05 02 003C 00 s"a")`)
			s.say(c, x.say)
			s.poll(fmt.Sprintf("nothing counted under %q", x.reason), func() bool { return s.refusals()[x.reason] > 0 })
		})
	}
}

// A client reads why its connection ends although it goes on sending: a socket
// that is closed with input unread would reset, and take the reason away.
func TestReasonBehindWhatIsStillSent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for range 20 {
		c := s.dial()
		s.say(c, `10 L(s"MQTT" 05 02 003C 00 s"a")`)
		s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
		big := append([]byte{0x30, 0x80, 0x80, 0x80, 0x01}, make([]byte, 2<<20)...)
		if _, err := c.Write(big); err != nil {
			t.Fatal("the server does not read on:", err)
		}
		s.hear(c, `E0 L(95 L(1F s"the packet is larger than allowed"))`)
		s.hear(c, "close")
		c.Close()
	}
}

// Who is told why the connection ends finds it counted, although the connection
// is not closed yet, as its peer still may read.
func TestRefusalIsCountedBeforeItIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for n, x := range []struct{ say, hear string }{
		{`36 L(s"t" 0001 00)`, `E0 L(81 L(1F s"there is no QoS 3"))`},
		{`30 FF FF FF FF 01`, `E0 L(81 L(1F s"a variable byte integer is longer than four bytes"))`},
	} {
		c := s.dial()
		s.say(c, `10 L(s"MQTT" 05 02 003C 00 s"a")`)
		s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
		s.say(c, x.say)
		s.hear(c, x.hear)
		if got := s.refusals()["malformed"]; got != float64(n+1) {
			t.Fatalf("%v refusals are counted behind %s, want %d", got, x.hear, n+1)
		}
	}
}

func TestRefusalsBeforeConnectAreCounted(t *testing.T) {
	for _, x := range []struct {
		reason string
		limit  func(*adapters.Limits)
		say    string
	}{
		{"protocol", nil, `C0 00`},
		{"version", nil, `10 L(s"MQTT" 06 02 003C 00 s"a")`},
		{"client_id", nil, `10 L(s"MQTT" 04 00 003C s"")`},
		{"client_id_size", func(l *adapters.Limits) { l.ClientIDBytes = 1 }, `10 L(s"MQTT" 04 02 003C s"ab")`},
		{"auth_method", nil, `10 L(s"MQTT" 05 02 003C L(15 s"X") s"a")`},
		{"packet_too_large", func(l *adapters.Limits) { l.PreAuthBytes = 20 }, `10 L(s"MQTT" 04 02 003C s"123456789")`},
		{"handshake_timeout", func(l *adapters.Limits) { l.Handshake = 50 * time.Millisecond }, `10 0C 00`},
		{"user_properties", func(l *adapters.Limits) { l.MQTTUserProperties = 0 }, `10 L(s"MQTT" 05 06 003C 00 s"a" L(26 s"a" s"1") s"w" s"x")`},
	} {
		t.Run(x.reason, func(t *testing.T) {
			t.Parallel()
			var options []siteOption
			if x.limit != nil {
				options = append(options, withLimits(x.limit))
			}
			s := newSite(t, options...)
			c := s.dial()
			s.say(c, x.say)
			s.poll(fmt.Sprintf("nothing counted under %q", x.reason), func() bool { return s.refusals()[x.reason] == 1 })
			if x.reason == "handshake_timeout" {
				s.hear(c, "close")
			}
		})
	}
}

// The time for CONNECT is absolute: bytes that drip do not lengthen it.
func TestHandshakeTimeIsAbsolute(t *testing.T) {
	t.Parallel()
	s := newSite(t, withLimits(func(l *adapters.Limits) { l.Handshake = 200 * time.Millisecond }))
	c := s.dial()
	go func() {
		for _, b := range []byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a") {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	s.hear(c, "close") // without a CONNACK, which all of the packet would get
}

// rules is an Authorizer of one user and one forbidden prefix.
type rules struct{ core.AllowAll }

func (rules) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	if c.Certificate != nil {
		return &core.Principal{Name: c.Certificate.Subject.CommonName}, nil
	}
	if c.User == "bob" {
		return &core.Principal{Name: c.User}, nil
	}
	if c.User != "ann" || string(c.Password) != "secret" {
		return nil, core.ErrUnauthenticated
	}
	return &core.Principal{Name: c.User}, nil
}

func (rules) Authorize(p *core.Principal, a core.Action, resource string) error {
	if len(resource) >= 6 && resource[:6] == "secret" || resource == "#" && a == core.Subscribe {
		return fmt.Errorf("%w: %s %q", core.ErrNotAuthorized, a, resource)
	}
	return nil
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, withAuthorizer(rules{}), withLimits(func(l *adapters.Limits) { l.LoginFailuresPerAddress = 3 }))
	good := s.dial()
	s.say(good, `10 L(s"MQTT" 04 C2 003C s"a" s"ann" s"secret")`)
	s.hear(good, `20 02 00 00`)
	bad := s.dial()
	s.say(bad, `10 L(s"MQTT" 04 C2 003C s"b" s"ann" s"guess")`)
	s.hear(bad, `20 02 00 04`) // return code 4
	s.hear(bad, "close")
	bad = s.dial()
	s.say(bad, `10 L(s"MQTT" 05 C2 003C 00 s"b" s"ann" s"guess")`)
	s.hear(bad, `20 L(00 86 L(1F s"the login failed"))`)
	s.hear(bad, "close")
	bad = s.dial()
	s.say(bad, `10 L(s"MQTT" 04 02 003C s"b")`) // nobody, who guesses nothing
	s.hear(bad, `20 02 00 04`)
	s.hear(bad, "close")
	bad = s.dial()
	s.say(bad, `10 L(s"MQTT" 04 C2 003C s"b" s"" s"guess")`)
	s.hear(bad, `20 02 00 04`)
	s.hear(bad, "close")
	// Now even the right password has to wait.
	bad = s.dial()
	s.say(bad, `10 L(s"MQTT" 05 C2 003C 00 s"b" s"ann" s"secret")`)
	s.hear(bad, `20 L(00 9F L(1F s"too many failed logins from this address"))`)
	s.hear(bad, "close")
	s.poll("not all are counted", func() bool {
		n := s.refusals()
		return n["login"] == 4 && n["login_rate"] == 1
	})
	s.say(good, `C0 00`)
	s.hear(good, `D0 00`)
}

// [MQTT-3.3.5-2], and the words that MQTT 5 has.
func TestRightsThatAreMissing(t *testing.T) {
	t.Parallel()
	s := newSite(t, withAuthorizer(rules{}))
	c := s.dial()
	s.say(c, `10 L(s"MQTT" 05 C2 003C L(17 00) s"a" s"ann" s"secret")`)
	s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
	s.say(c, `82 L(0001 00 s"secret/x" 01 s"open/x" 01 s"#" 00 s"$share/g/secret/x" 01 s"$replay/earliest/secret/x" 01)`)
	s.hear(c, `90 L(0001 00 87 01 87 87 87)`)
	s.say(c, `32 L(s"secret/x" 0001 00 "x") 34 L(s"secret/x" 0002 00 "x") 30 L(s"secret/x" 00 "x")`)
	s.hear(c, `40 03 0001 87 50 03 0002 87`)
	s.say(c, `C0 00`)
	s.hear(c, `D0 00`)
	old := s.dial()
	s.say(old, `10 L(s"MQTT" 04 C2 003C s"b" s"ann" s"secret") 82 L(0001 s"secret/x" 01)`)
	s.hear(old, `20 02 00 00 90 L(0001 80)`)
	s.say(old, `32 L(s"secret/x" 0001 "x")`)
	s.hear(old, "close")
	oldest := s.dial()
	s.say(oldest, `10 L(s"MQIsdp" 03 C2 003C s"c" s"ann" s"secret") 82 L(0001 s"secret/x" 01)`)
	s.hear(oldest, `20 02 00 00`)
	s.hear(oldest, "close")
}

// Who wants the order of keys of a group that was made without is refused, also where
// he is a member already.
func TestGroupWithoutOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.dial()
	s.say(c, `10 L(s"MQTT" 05 02 003C L(17 00) s"a")`)
	s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
	s.say(c, `82 L(0001 00 s"$share/g/t" 01)`)
	s.hear(c, `90 L(0001 00 01)`)
	s.say(c, `82 L(0002 L(26 s"ordered" s"true") s"$share/g/t" 02)`)
	s.hear(c, `90 L(0002 00 83)`)
	s.say(c, `82 L(0003 L(26 s"ordered" s"true") s"$share/h/t" 01)`)
	s.hear(c, `90 L(0003 00 01)`)
	s.say(c, `82 L(0004 L(26 s"ordered" s"true") s"$share/h/t" 02 s"$queue/q" 01)`)
	s.hear(c, `90 L(0004 00 02 01)`)
	s.say(c, `82 L(0005 L(26 s"ordered" s"true") s"$queue/q" 01)`)
	s.hear(c, `90 L(0005 00 01)`)
}

// [MQTT-3.1.4-2], [MQTT-3.1.4-3]: a CONNECT that is refused for its will touches
// neither the connection that the client has, nor its session, nor the will that
// was left with that.
func TestRefusedWill(t *testing.T) {
	t.Parallel()
	s := newSite(t, withAuthorizer(rules{}))
	refused := func() {
		t.Helper()
		for _, clean := range []string{"C4", "C6"} {
			c := s.dial()
			s.say(c, `10 L(s"MQTT" 05 `+clean+` 003C L(11 00000E10) s"a" 00 s"secret/w" s"bad" s"ann" s"secret")`)
			s.hear(c, `20 ?1 00 87`)
			c.Close()
		}
	}
	w := s.dial()
	s.say(w, `10 L(s"MQTT" 05 C2 003C 00 s"w" s"ann" s"secret") 82 L(0001 00 s"will" 00)`)
	s.hear(w, `20 L(00 00 L(21 0400 22 0040 27 00110000)) 90 L(0001 00 00)`)
	a := s.dial()
	s.say(a, `10 L(s"MQTT" 05 C4 003C L(11 00000E10) s"a" L(18 00000E10) s"will" s"good" s"ann" s"secret") 82 L(0001 00 s"t" 01)`)
	s.hear(a, `20 L(00 00 L(21 0400 22 0040 27 00110000)) 90 L(0001 00 01)`)
	refused()
	s.say(w, `30 L(s"t" 00 "1")`)
	s.hear(a, `30 L(s"t" 00 "1")`)
	a.Close() // the will is left, with an hour's delay
	s.gone("a")
	refused()
	s.say(w, `32 L(s"t" 0001 00 "2")`)
	s.hear(w, `40 02 0001`)
	a = s.dial()
	s.say(a, `10 L(s"MQTT" 05 C0 003C L(11 00000E10) s"a" s"ann" s"secret")`)
	s.hear(a, `20 L(01 00 L(21 0400 22 0040 27 00110000)) 32 L(s"t" ?2 00 "2")`)
	s.hear(w, "nothing")
}

// [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]: a client id that the server
// assigns is nobody else's, and names a session as any other does.
func TestAssignedClientID(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	anonymous := func() (net.Conn, string) {
		t.Helper()
		c := s.dial()
		s.say(c, `10 L(s"MQTT" 05 00 003C L(11 00000E10) s"")`)
		ack := make([]byte, 60)
		c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, ack); err != nil || ack[0] != 0x20 || ack[3] != 0 {
			t.Fatalf("% X, %v", ack, err)
		}
		return c, string(ack[8:49])
	}
	a, id := anonymous()
	if _, other := anonymous(); other == id {
		t.Fatalf("two clients are %q", id)
	}
	s.say(a, `82 L(0001 00 s"t" 01)`)
	s.hear(a, `90 L(0001 00 01)`)
	a.Close()
	s.gone(id)
	b := s.dial()
	s.say(b, `10 L(s"MQTT" 05 02 003C 00 s"b") 32 L(s"t" 0001 00 "x")`)
	s.hear(b, `20 L(00 00 L(21 0400 22 0040 27 00110000)) 40 02 0001`)
	a = s.dial()
	s.say(a, `10 L(s"MQTT" 05 00 003C L(11 00000E10) s"`+id+`")`)
	s.hear(a, `20 L(01 00 L(21 0400 22 0040 27 00110000)) 32 L(s"t" ?2 00 "x")`)
}

// Shutting down confirms what came, says why, and publishes wills.
func TestShutdown(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	engine := coretest.NewEngine()
	s := newSite(t, withEngine(&reopened{Engine: engine}))
	c, keep := s.dial(), s.dial()
	s.say(keep, `10 L(s"MQTT" 04 00 003C s"k") 82 L(0001 s"#" 01)`)
	s.hear(keep, `20 02 00 00 90 L(0001 01)`)
	s.say(c, `10 L(s"MQTT" 05 06 003C 00 s"a" 00 s"w" s"down")`)
	s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
	engine.Hold = func() { <-hold }
	s.say(c, `32 L(s"t" 0007 00 "x")`)
	s.poll("the publish did not arrive", func() bool {
		x := s.conn("a")
		if x == nil {
			return false
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.waiting == 1
	})
	restarted := make(chan struct{})
	x := s.conn("a")
	go func() {
		s.restart()
		close(restarted)
	}()
	s.poll("the connection does not end", x.stopped.Load)
	s.hear(keep, "close") // before the publish is there to be sent to it
	close(hold)
	s.hear(c, `40 02 0007`)
	s.hear(c, `E0 L(8B L(1F s"the server shuts down"))`)
	s.hear(c, "close")
	<-restarted
	keep = s.dial()
	s.say(keep, `10 L(s"MQTT" 04 00 003C s"k")`)
	s.hear(keep, `20 02 01 00 32 L(s"t" 0003 "x") 30 L(s"w" "down")`)
}

// A log that fails ends the publisher's connection in 3.1.1 and is told in 5.0.
func TestStorageFailureIsNotConfirmed(t *testing.T) {
	t.Parallel()
	engine := coretest.NewEngine()
	s := newSite(t, withEngine(&reopened{Engine: engine}))
	five, four := s.dial(), s.dial()
	s.say(five, `10 L(s"MQTT" 05 02 003C L(17 00) s"a")`)
	s.hear(five, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
	s.say(four, `10 L(s"MQTT" 04 02 003C s"b")`)
	s.hear(four, `20 02 00 00`)
	engine.Fail(errors.New("the disk is gone"))
	s.say(five, `32 L(s"t" 0007 00 "x")`)
	s.hear(five, `40 03 0007 80`)
	s.say(four, `32 L(s"t" 0007 "x")`)
	s.hear(four, "close")
}

// The identity of a client certificate reaches the authorizer.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	limits := adapters.DefaultLimits()
	limits.Handshake, limits.Stall = patience, patience
	broker, err := core.Open(t.Context(), core.Options{Engine: coretest.NewEngine(), Authorizer: rules{}, Limits: limits.Limits})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close(context.Background())
	authority := adaptertest.NewAuthority(t)
	gate := adapters.NewGate(limits)
	log := slog.New(slog.DiscardHandler)
	m := New(broker, Options{Limits: limits, Gate: gate, Metrics: adapters.NewMetrics(prometheus.NewRegistry()), Logger: log})
	l := adapters.NewServer("mqtt", []adapters.Endpoint{{Address: "127.0.0.1:0", TLS: authority.Server(t, "server")}}, gate, m, log)
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	go l.Serve()
	defer l.Close(context.Background())
	dial := func(name string) net.Conn {
		c, err := tls.Dial("tcp", l.Addrs()[0].String(), authority.Client(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s := &site{t: t}
	with := dial("device-7")
	defer with.Close()
	s.say(with, `10 L(s"MQTT" 04 02 003C s"a") C0 00`)
	s.hear(with, `20 02 00 00 D0 00`)
	if name := func() string { m.mu.Lock(); defer m.mu.Unlock(); return m.conns["a"].client.Principal().Name }(); name != "device-7" {
		t.Errorf("the client is %q", name)
	}
	without := dial("")
	defer without.Close()
	s.say(without, `10 L(s"MQTT" 04 02 003C s"b")`)
	s.hear(without, `20 02 00 04`)
}

// A confirmation that comes while its session ends finds nothing to confirm.
func TestConfirmationBehindTheEnd(t *testing.T) {
	t.Parallel()
	for _, hello := range []string{
		`10 L(s"MQTT" 05 02 003C 00 s"a")`,
		`10 L(s"MQTT" 05 00 003C L(11 00000E10) s"a")`,
	} {
		engine := coretest.NewEngine()
		s := newSite(t, withEngine(&reopened{Engine: engine}))
		c := s.dial()
		s.say(c, hello)
		s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
		hold := make(chan struct{})
		engine.Hold = func() { <-hold }
		s.say(c, `34 L(s"t" 0007 00 "x")`)
		s.poll("the publish did not arrive", func() bool {
			x := s.conn("a")
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.waiting == 1
		})
		x := s.conn("a")
		c.Close()
		s.poll("the connection does not end", x.stopped.Load)
		close(hold)
		s.gone("a")
		again := s.dial()
		s.say(again, `10 L(s"MQTT" 05 00 003C 00 s"a") 3C L(s"t" 0007 00 "x")`)
		s.hear(again, `20 L(?1 00 L(21 0400 22 0040 27 00110000)) 50 02 0007`)
		s.say(again, `62 02 0007`)
		s.hear(again, `70 02 0007`)
	}
}

// Who knows a client id can end neither another user's connection nor session.
func TestAnotherUsersClientID(t *testing.T) {
	t.Parallel()
	s := newSite(t, withAuthorizer(rules{}))
	ann := s.dial()
	s.say(ann, `10 L(s"MQTT" 05 C0 003C L(11 00000E10) s"truck" s"ann" s"secret")`)
	s.hear(ann, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
	for _, flags := range []string{"82", "80"} {
		bob := s.dial()
		s.say(bob, `10 L(s"MQTT" 04 `+flags+` 003C s"truck" s"bob")`)
		s.hear(bob, `20 02 00 05`)
		s.hear(bob, "close")
	}
	s.say(ann, `82 L(0001 00 s"open" 01) E0 00`)
	s.hear(ann, `90 L(0001 00 01)`)
	s.gone("truck")
	for _, flags := range []string{"82", "80"} {
		bob := s.dial()
		s.say(bob, `10 L(s"MQTT" 04 `+flags+` 003C s"truck" s"bob")`)
		s.hear(bob, `20 02 00 05`)
		s.hear(bob, "close")
	}
	ann = s.dial()
	s.say(ann, `10 L(s"MQTT" 05 C0 003C L(11 00000E10) s"truck" s"ann" s"secret")`)
	s.hear(ann, `20 L(01 00 L(21 0400 22 0040 27 00110000))`)
}
