package mqtt

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	pahov3 "github.com/eclipse/paho.mqtt.golang"
)

// tool finds a client that somebody else wrote. The suite is not whole without
// it.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed: apt-get install mosquitto-clients python3-paho-mqtt", name)
	}
	return path
}

// mosquittoSub runs mosquitto_sub until it has subscribed; lines yields what it
// prints for messages.
func (s *site) mosquittoSub(args ...string) (lines *bufio.Scanner, wait func() error) {
	s.t.Helper()
	t := s.t.(*testing.T)
	host, port, _ := net.SplitHostPort(s.addr)
	cmd, lines := subscribed(t, append([]string{"-h", host, "-p", port, "-F", "MSG %t %q %r %p"}, args...)...)
	return lines, cmd.Wait
}

// subscribed runs mosquitto_sub and returns once it says that it has
// subscribed.
func subscribed(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	// Into a pipe, what it prints would come when its buffer is full.
	cmd := exec.CommandContext(ctx, tool(t, "stdbuf"), append([]string{"-oL", tool(t, "mosquitto_sub"), "-d"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "Subscribed") {
			return cmd, lines
		}
	}
	t.Fatal("mosquitto_sub did not subscribe")
	return nil, nil
}

// message reads the next message that mosquitto_sub prints.
func message(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	for lines.Scan() {
		if m, ok := strings.CutPrefix(lines.Text(), "MSG "); ok {
			return m
		}
	}
	t.Fatal("mosquitto_sub ended")
	return ""
}

func (s *site) mosquittoPub(args ...string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.addr)
	cmd := exec.Command(tool(s.t.(*testing.T), "mosquitto_pub"), append([]string{"-h", host, "-p", port}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("mosquitto_pub %q: %v\n%s", args, err, out)
	}
}

func TestMosquittoClients(t *testing.T) {
	for _, v := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for _, qos := range []string{"0", "1", "2"} {
			t.Run(v+",QoS"+qos, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				lines, wait := s.mosquittoSub("-V", v, "-t", "plant/+/temp", "-q", qos, "-C", "3")
				for i := range 3 {
					s.mosquittoPub("-V", v, "-t", fmt.Sprintf("plant/%d/temp", i), "-q", qos, "-m", fmt.Sprintf("%d °C", i))
				}
				for i := range 3 {
					if got, want := message(t, lines), fmt.Sprintf("plant/%d/temp %s 0 %d °C", i, qos, i); got != want {
						t.Errorf("got %q, want %q", got, want)
					}
				}
				if err := wait(); err != nil {
					t.Error("mosquitto_sub:", err)
				}
			})
		}
	}
}

func TestMosquittoSession(t *testing.T) {
	t.Parallel()
	for _, v := range [][]string{{"-V", "mqttv311"}, {"-V", "mqttv5", "-x", "3600"}} {
		s := newSite(t)
		session := append([]string{"-c", "-i", "truck", "-t", "jobs/#", "-q", "1"}, v...)
		lines, _ := s.mosquittoSub(append(session, "-C", "1")...)
		s.mosquittoPub("-t", "jobs/1", "-q", "1", "-m", "one")
		if got := message(t, lines); got != "jobs/1 1 0 one" {
			t.Errorf("got %q", got)
		}
		for lines.Scan() {
		}
		s.mosquittoPub("-t", "jobs/2", "-q", "1", "-m", "two")
		s.restart()
		s.mosquittoPub("-t", "jobs/3", "-q", "1", "-m", "three")
		// What came meanwhile may be there before the answer to SUBSCRIBE.
		host, port, _ := net.SplitHostPort(s.addr)
		out, err := exec.Command(tool(t, "mosquitto_sub"), append(session, "-h", host, "-p", port, "-C", "2", "-W", "60")...).CombinedOutput()
		if err != nil || string(out) != "two\nthree\n" {
			t.Errorf("%v: got %q, %v", v, out, err)
		}
	}
}

func TestMosquittoWillRetainAndShare(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mosquittoPub("-t", "state", "-r", "-q", "1", "-m", "up")
	lines, _ := s.mosquittoSub("-t", "state", "-t", "gone")
	if got := message(t, lines); got != "state 0 1 up" {
		t.Errorf("retained: got %q", got)
	}
	host, port, _ := net.SplitHostPort(s.addr)
	dying, _ := subscribed(t, "-h", host, "-p", port, "-t", "x", "--will-topic", "gone", "--will-payload", "help")
	dying.Process.Kill()
	dying.Wait()
	if got := message(t, lines); got != "gone 0 0 help" {
		t.Errorf("will: got %q", got)
	}
	one, _ := s.mosquittoSub("-V", "mqttv5", "-t", "$share/g/work", "-q", "1", "-C", "2")
	two, _ := s.mosquittoSub("-V", "mqttv311", "-t", "$share/g/work", "-q", "1", "-C", "2")
	for i := range 4 {
		s.mosquittoPub("-t", "work", "-q", "1", "-m", fmt.Sprint(i))
	}
	seen := make(map[string]bool)
	for range 2 {
		seen[message(t, one)] = true
		seen[message(t, two)] = true
	}
	if len(seen) != 4 {
		t.Errorf("a group of two got %v", seen)
	}
}

// Paho for Go, MQTT 3.1.1: order and number under load, at every QoS, over a
// reconnect with a session.
func TestPahoGo3(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for qos := byte(0); qos <= 2; qos++ {
		got := make(chan string, 10_000)
		options := func(id string) *pahov3.ClientOptions {
			return pahov3.NewClientOptions().AddBroker("tcp://" + s.addr).SetClientID(fmt.Sprintf("%s-%d", id, qos)).
				SetCleanSession(false).SetOrderMatters(true).SetAutoReconnect(false)
		}
		receive := func(_ pahov3.Client, m pahov3.Message) { got <- string(m.Payload()) }
		sub := pahov3.NewClient(options("sub").SetDefaultPublishHandler(receive))
		done := func(what string, token pahov3.Token) {
			t.Helper()
			if !token.WaitTimeout(patience) || token.Error() != nil {
				t.Fatalf("%s: %v", what, token.Error())
			}
		}
		topic := fmt.Sprintf("load/%d", qos)
		done("connect", sub.Connect())
		done("subscribe", sub.Subscribe(topic, qos, receive))
		pub := pahov3.NewClient(options("pub"))
		done("connect", pub.Connect())
		const n = 500
		for i := range n {
			done("publish", pub.Publish(topic, qos, false, fmt.Sprint(i)))
		}
		expectNumbers(t, got, 0, n)
		// Disconnect may leave acknowledgements behind.
		s.settled(fmt.Sprintf("sub-%d", qos))
		sub.Disconnect(0)
		s.gone(fmt.Sprintf("sub-%d", qos))
		if qos > 0 {
			for i := range n {
				done("publish", pub.Publish(topic, qos, false, fmt.Sprint(n+i)))
			}
			sub = pahov3.NewClient(options("sub").SetDefaultPublishHandler(receive))
			done("connect", sub.Connect())
			expectNumbers(t, got, n, 2*n)
			sub.Disconnect(100)
		}
		pub.Disconnect(100)
	}
}

// expectNumbers expects the numbers from a up to b, in order and each once.
func expectNumbers(t *testing.T, got <-chan string, a, b int) {
	t.Helper()
	for i := a; i < b; i++ {
		select {
		case m := <-got:
			if m != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", m, i)
			}
		case <-time.After(patience):
			t.Fatalf("%d did not come", i)
		}
	}
}

// Paho for Go, MQTT 5: what a message carries, and its own flow control.
func TestPahoGo5(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	got := make(chan *paho.Publish, 1000)
	connect := func(id string) *paho.Client {
		t.Helper()
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := paho.NewClient(paho.ClientConfig{
			Conn: nc, PacketTimeout: patience,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				got <- p.Packet
				return true, nil
			}},
			OnClientError: func(err error) { t.Log(id, err) },
		})
		max := uint16(8)
		ack, err := c.Connect(ctx, &paho.Connect{ClientID: id, KeepAlive: 300, CleanStart: true, Properties: &paho.ConnectProperties{ReceiveMaximum: &max}})
		if err != nil {
			t.Fatal(err)
		}
		if ack.Properties.ReceiveMaximum == nil || *ack.Properties.ReceiveMaximum != 1024 {
			t.Errorf("CONNACK says %+v", ack.Properties)
		}
		return c
	}
	sub, pub := connect("sub"), connect("pub")
	id := 77
	if _, err := sub.Subscribe(ctx, &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: "a/#", QoS: 2, RetainAsPublished: true}},
		Properties:    &paho.SubscribeProperties{SubscriptionIdentifier: &id},
	}); err != nil {
		t.Fatal(err)
	}
	expiry, format := uint32(3600), byte(1)
	if _, err := pub.Publish(ctx, &paho.Publish{
		Topic: "a/b", QoS: 2, Retain: true, Payload: []byte("grüße"),
		Properties: &paho.PublishProperties{
			ContentType: "text/plain", ResponseTopic: "re/ply", CorrelationData: []byte{0, 1, 2}, MessageExpiry: &expiry, PayloadFormat: &format,
			User: paho.UserProperties{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}, {Key: "b", Value: "3"}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	m := <-got
	p := m.Properties
	if m.Topic != "a/b" || m.QoS != 2 || !m.Retain || string(m.Payload) != "grüße" || p.ContentType != "text/plain" || p.ResponseTopic != "re/ply" ||
		string(p.CorrelationData) != "\x00\x01\x02" || p.MessageExpiry == nil || *p.MessageExpiry > 3600 || *p.MessageExpiry < 3000 ||
		p.PayloadFormat == nil || *p.PayloadFormat != 1 || p.SubscriptionIdentifier == nil || *p.SubscriptionIdentifier != 77 {
		t.Errorf("got %+v %+v", m, p)
	}
	if user := fmt.Sprint(p.User); user != "[{b 1} {a 2} {b 3}]" {
		t.Errorf("got %v", p.User)
	}
	var publishers sync.WaitGroup
	const n = 300
	for i := range 4 {
		publishers.Go(func() {
			for j := range n {
				if _, err := pub.Publish(ctx, &paho.Publish{Topic: fmt.Sprintf("a/%d", i), QoS: byte(j % 3), Payload: []byte(fmt.Sprint(j))}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := make(map[string]int)
	for range 4 * n {
		select {
		case m := <-got:
			seen[m.Topic+" "+string(m.Payload)]++
		case <-ctx.Done():
			t.Fatalf("%d of %d came", len(seen), 4*n)
		}
	}
	publishers.Wait()
	if len(seen) != 4*n {
		t.Errorf("%d messages came, some of them twice", len(seen))
	}
	for _, c := range []*paho.Client{sub, pub} {
		c.Disconnect(&paho.Disconnect{})
	}
}

// Paho for Python: see testdata/paho_suite.py.
func TestPahoPython(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	host, port, _ := net.SplitHostPort(s.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/bin/python3", "testdata/paho_suite.py", host, port).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
