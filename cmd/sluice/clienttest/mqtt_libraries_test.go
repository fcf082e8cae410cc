package clienttest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	pahov5 "github.com/eclipse/paho.golang/paho"
	pahov3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/sluicemq/sluice/adapters/adaptertest"
)

// This file opens connections of each library for the suite.

// A safeBroker wants to know who comes: ann by her password, bob by a token,
// carl by his certificate.
type safeBroker struct {
	*broker
	tls       string // where it speaks MQTT over TLS
	authority *adaptertest.Authority
	secret    []byte
}

func startSafeBroker(t *testing.T) *safeBroker {
	t.Helper()
	s := &safeBroker{tls: freeAddress(t), authority: adaptertest.NewAuthority(t), secret: []byte("0123456789abcdef0123456789abcdef")}
	dir := s.authority.Dir
	for _, name := range []string{"server", "carl", "nobody"} {
		s.authority.Sign(t, name)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), s.secret, 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	for name, password := range map[string]string{"ann": "ann-secret", "carl": ""} {
		cmd := exec.Command(program, "user", "add", filepath.Join(dir, "users.yaml"), name)
		if cmd.Stdin = bytes.NewBufferString(password + "\n" + password + "\n"); password == "" {
			cmd.Args = append(cmd.Args, "--no-password")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	s.broker = startBroker(t, allowing(browserDriver(t).origin)+fmt.Sprintf(`
mqtt:
  listen:
    - $MQTT
    - address: %s
      tls: {cert: %[2]s/server.crt, key: %[2]s/server.key, client_ca: %[2]s/authority.crt}
limits:
  login_failures_per_address: 1000
auth:
  users: %[2]s/users.yaml
  tokens:
    - {keys: %[2]s/secret, user: sub}
  rules:
    - {who: ["user:ann", "user:bob", "user:carl"], allow: [all]}
`, s.tls, dir))
	return s
}

// token is a JSON web token of the user, good for as long as is said.
func (s *safeBroker) token(user string, good time.Duration) string {
	part := base64.RawURLEncoding.EncodeToString
	signed := part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, user, time.Now().Add(good).Unix()))
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(signed))
	return signed + "." + part(mac.Sum(nil))
}

// files are the authority's certificate, and a client's with its key.
func (s *safeBroker) files(cert string) (ca, crt, key string) {
	at := func(name string) string { return filepath.Join(s.authority.Dir, name) }
	return at("authority.crt"), at(cert + ".crt"), at(cert + ".key")
}

func (s *safeBroker) config(t testing.TB, cert string) *tls.Config {
	t.Helper()
	c := s.authority.Client(t, "")
	_, crt, key := s.files(cert)
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c
}

// A drivenMQTT is an mqttClient in a driver's process.
type drivenMQTT struct {
	*conn
	session  mqttSession
	messages chan mqttGot
}

// opener opens connections of that protocol version.
func (d mqttDialer) opener(version int) func(t testing.TB, b *broker, h mqttHello) (mqttClient, error) {
	return func(t testing.TB, b *broker, h mqttHello) (mqttClient, error) {
		args := d.where(b)
		_, hasURL := args["url"]
		switch {
		case h.cert != "" && hasURL:
			args["url"] = "mqtts://" + h.safe.tls
			ca, crt, key := h.safe.files(h.cert)
			for name, path := range map[string]string{"ca": ca, "cert": crt, "key": key} {
				pem, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				args[name] = string(pem)
			}
		case h.cert != "":
			args["host"], args["port"] = hostPort(h.safe.tls)
			args["ca"], args["cert"], args["key"] = h.safe.files(h.cert)
		case h.webSocket && !hasURL:
			args["host"], args["port"] = hostPort(b.HTTP)
			args["path"] = "/mqtt"
		}
		args["clientId"], args["clean"], args["version"] = h.id, !h.keep, version
		if h.keep && version == 5 {
			args["sessionExpiry"] = 3600
		}
		if h.receiveMaximum > 0 {
			args["receiveMaximum"] = h.receiveMaximum
		}
		if h.aliases > 0 {
			args["topicAliasMaximum"] = h.aliases
		}
		if h.user != "" {
			args["username"], args["password"] = h.user, h.password
		}
		if w := h.will; w != nil {
			args["will"] = map[string]any{"topic": w.topic, "payload": w.payload, "qos": 1, "retain": w.retain, "delay": w.delay}
		}
		c := &drivenMQTT{messages: make(chan mqttGot, 1000)}
		conn, ok, err := d.driver(t).connect("mqtt.connect", args, func(e event) {
			if e.Event != "message" {
				return
			}
			var m mqttGot
			if err := json.Unmarshal(e.Raw, &m); err != nil {
				t.Error(err)
			}
			c.messages <- m
		})
		if err != nil {
			return nil, err
		}
		c.conn = conn
		return c, json.Unmarshal(ok, &c.session)
	}
}

func (c *drivenMQTT) present() bool { return c.session.SessionPresent }

func (c *drivenMQTT) subscribe(filter string, qos int, w mqttWishes) error {
	args := map[string]any{"filters": []string{filter}, "qos": qos}
	if w.ID != 0 {
		args["subscriptionId"] = w.ID
	}
	if w.From != "" {
		args["userProperties"] = [][2]string{{"from", w.From}}
	}
	if w.NoLocal {
		args["noLocal"] = true
	}
	if w.RetainAsPublished {
		args["retainAsPublished"] = true
	}
	if w.RetainHandling != 0 {
		args["retainHandling"] = w.RetainHandling
	}
	ok, err := c.call("mqtt.subscribe", args)
	if err != nil {
		return err
	}
	var r struct{ Granted []int }
	if err := json.Unmarshal(ok, &r); err != nil || len(r.Granted) != 1 || r.Granted[0] != qos {
		return fmt.Errorf("SUBACK %s for QoS %d, %v", ok, qos, err)
	}
	return nil
}

func (c *drivenMQTT) unsubscribe(filter string) error {
	_, err := c.call("mqtt.unsubscribe", map[string]any{"filter": filter})
	return err
}

func (c *drivenMQTT) publish(topic, payload string, qos int, retain bool, p *mqttProperties) error {
	args := map[string]any{"topic": topic, "payload": []byte(payload), "qos": qos, "retain": retain}
	if p != nil {
		args["properties"] = p
	}
	_, err := c.call("mqtt.publish", args)
	return err
}

func (c *drivenMQTT) hold() error {
	_, err := c.call("mqtt.hold", nil)
	return err
}

func (c *drivenMQTT) next() (mqttGot, error) { return nextGot(c.messages) }

// A held is where a Go library's callback waits before its message is
// acknowledged.
type held struct {
	messages chan mqttGot
	holding  chan struct{} // not nil: a message waits until it is closed
	ended    chan struct{}
}

func newHeld() held {
	return held{messages: make(chan mqttGot, 1000), holding: make(chan struct{}, 1), ended: make(chan struct{})}
}

func (h *held) hold() error {
	h.holding <- struct{}{}
	return nil
}

func (h *held) got(m mqttGot) {
	h.messages <- m
	if len(h.holding) > 0 {
		<-h.ended
	}
}

func (h *held) next() (mqttGot, error) { return nextGot(h.messages) }

// A go3 is an mqttClient of Paho for Go, MQTT 3.1.1.
type go3 struct {
	held
	pahov3.Client
	session bool
	socket  net.Conn
}

func openGo3(t testing.TB, b *broker, h mqttHello) (mqttClient, error) {
	c := &go3{held: newHeld()}
	o := pahov3.NewClientOptions().SetClientID(h.id).SetCleanSession(!h.keep).SetAutoReconnect(false).SetOrderMatters(true).
		SetProtocolVersion(4).SetConnectTimeout(answerWithin).SetUsername(h.user).SetPassword(h.password)
	switch {
	case h.cert != "":
		o.AddBroker("tls://" + h.safe.tls).SetTLSConfig(h.safe.config(t, h.cert))
	case h.webSocket:
		o.AddBroker("ws://" + b.HTTP + "/mqtt")
	default:
		o.AddBroker("tcp://" + b.MQTT)
	}
	if w := h.will; w != nil {
		o.SetWill(w.topic, w.payload, 1, w.retain)
	}
	if h.cert == "" && !h.webSocket {
		o.SetDialer(&net.Dialer{Timeout: answerWithin}).SetCustomOpenConnectionFn(func(u *url.URL, o pahov3.ClientOptions) (net.Conn, error) {
			var err error
			c.socket, err = o.Dialer.Dial("tcp", u.Host)
			return c.socket, err
		})
	}
	o.SetDefaultPublishHandler(func(_ pahov3.Client, m pahov3.Message) {
		c.got(mqttGot{Topic: m.Topic(), Payload: m.Payload(), QoS: int(m.Qos()), Retain: m.Retained(), Dup: m.Duplicate()})
	})
	c.Client = pahov3.NewClient(o)
	token := c.Connect()
	if err := done(token); err != nil {
		return nil, err
	}
	c.session = token.(*pahov3.ConnectToken).SessionPresent()
	return c, nil
}

func done(token pahov3.Token) error {
	if !token.WaitTimeout(answerWithin) {
		return errors.New("no answer")
	}
	return token.Error()
}

func (c *go3) present() bool { return c.session }

func (c *go3) subscribe(filter string, qos int, _ mqttWishes) error {
	token := c.Subscribe(filter, byte(qos), nil)
	if err := done(token); err != nil {
		return err
	}
	for _, got := range token.(*pahov3.SubscribeToken).Result() { // by a name of its own for $share
		if got != byte(qos) {
			return fmt.Errorf("SUBACK %#x for QoS %d", got, qos)
		}
	}
	return nil
}

func (c *go3) unsubscribe(filter string) error { return done(c.Unsubscribe(filter)) }

func (c *go3) publish(topic, payload string, qos int, retain bool, _ *mqttProperties) error {
	return done(c.Publish(topic, byte(qos), retain, payload))
}

func (c *go3) close() error {
	close(c.ended)
	c.Disconnect(250)
	return nil
}

func (c *go3) drop() error {
	err := c.socket.Close()
	close(c.ended)
	return err
}

// A go5 is an mqttClient of Paho for Go, MQTT 5.
type go5 struct {
	held
	*pahov5.Client
	session bool
	socket  net.Conn
	routed  mqttGot                // what it is handed
	router  *pahov5.StandardRouter // of the library's, where it is to resolve aliases
}

func openGo5(t testing.TB, b *broker, h mqttHello) (mqttClient, error) {
	return connectGo5(t, b, h, nil)
}

// connectGo5 may log in by an authentication method.
func connectGo5(t testing.TB, b *broker, h mqttHello, method *scram) (mqttClient, error) {
	t.Helper()
	c := &go5{held: newHeld()}
	var err error
	if h.cert != "" {
		c.socket, err = tls.Dial("tcp", h.safe.tls, h.safe.config(t, h.cert))
	} else {
		c.socket, err = net.Dial("tcp", b.MQTT)
	}
	if err != nil {
		return nil, err
	}
	config := pahov5.ClientConfig{
		Conn: c.socket, PacketTimeout: answerWithin,
		OnPublishReceived: []func(pahov5.PublishReceived) (bool, error){func(r pahov5.PublishReceived) (bool, error) {
			m := r.Packet
			p := m.Properties
			g := mqttGot{Topic: m.Topic, Payload: m.Payload, QoS: int(m.QoS), Retain: m.Retain, Dup: m.Duplicate(), Properties: &mqttProperties{
				ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData,
			}}
			if p.MessageExpiry != nil {
				g.Properties.MessageExpiryInterval = int(*p.MessageExpiry)
			}
			if p.PayloadFormat != nil {
				g.Properties.PayloadFormatIndicator = int(*p.PayloadFormat)
			}
			if p.SubscriptionIdentifier != nil {
				g.Properties.SubscriptionIDs = []int{*p.SubscriptionIdentifier}
			}
			if p.TopicAlias != nil {
				g.Properties.TopicAlias = int(*p.TopicAlias)
			}
			for _, u := range p.User {
				g.Properties.UserProperties = append(g.Properties.UserProperties, [2]string{u.Key, u.Value})
			}
			if c.router != nil { // it knows whose subscription it is for
				c.routed = g
				c.router.Route(m.Packet())
				return true, nil
			}
			c.got(g)
			return true, nil
		}},
	}
	connect := &pahov5.Connect{ClientID: h.id, KeepAlive: 60, CleanStart: !h.keep, Properties: &pahov5.ConnectProperties{}}
	if h.keep {
		connect.Properties.SessionExpiryInterval = new(uint32)
		*connect.Properties.SessionExpiryInterval = 3600
	}
	if h.receiveMaximum > 0 {
		most := uint16(h.receiveMaximum)
		connect.Properties.ReceiveMaximum = &most
	}
	if h.aliases > 0 {
		most := uint16(h.aliases)
		connect.Properties.TopicAliasMaximum = &most
		c.router = pahov5.NewStandardRouter()
	}
	if h.user != "" {
		connect.Username, connect.UsernameFlag, connect.Password, connect.PasswordFlag = h.user, true, []byte(h.password), true
	}
	if w := h.will; w != nil {
		delay := uint32(w.delay)
		connect.WillMessage = &pahov5.WillMessage{Topic: w.topic, Payload: []byte(w.payload), QoS: 1, Retain: w.retain}
		connect.WillProperties = &pahov5.WillProperties{WillDelayInterval: &delay, User: pahov5.UserProperties{{Key: "from", Value: "the will"}}}
	}
	if method != nil {
		config.AuthHandler = method
		method.begin(connect.Properties)
	}
	c.Client = pahov5.NewClient(config)
	ctx, cancel := within()
	defer cancel()
	ack, err := c.Connect(ctx, connect)
	if err != nil {
		return nil, err
	}
	c.session = ack.SessionPresent
	return c, nil
}

func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), answerWithin)
}

func (c *go5) present() bool { return c.session }

func (c *go5) subscribe(filter string, qos int, w mqttWishes) error {
	ctx, cancel := within()
	defer cancel()
	s := &pahov5.Subscribe{Properties: &pahov5.SubscribeProperties{}, Subscriptions: []pahov5.SubscribeOptions{{
		Topic: filter, QoS: byte(qos), NoLocal: w.NoLocal, RetainAsPublished: w.RetainAsPublished, RetainHandling: byte(w.RetainHandling),
	}}}
	if w.ID != 0 {
		s.Properties.SubscriptionIdentifier = &w.ID
	}
	if c.router != nil {
		c.router.RegisterHandler(filter, func(*pahov5.Publish) {
			g := c.routed
			g.Topic = filter
			c.got(g)
		})
	}
	if w.From != "" {
		s.Properties.User = pahov5.UserProperties{{Key: "from", Value: w.From}}
	}
	ack, err := c.Subscribe(ctx, s)
	if err == nil && ack.Reasons[0] != byte(qos) {
		err = fmt.Errorf("SUBACK %#x for QoS %d", ack.Reasons, qos)
	}
	return err
}

func (c *go5) unsubscribe(filter string) error {
	ctx, cancel := within()
	defer cancel()
	_, err := c.Unsubscribe(ctx, &pahov5.Unsubscribe{Topics: []string{filter}})
	return err
}

func (c *go5) publish(topic, payload string, qos int, retain bool, p *mqttProperties) error {
	ctx, cancel := within()
	defer cancel()
	m := &pahov5.Publish{Topic: topic, Payload: []byte(payload), QoS: byte(qos), Retain: retain}
	if p != nil {
		m.Properties = &pahov5.PublishProperties{ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData}
		if p.MessageExpiryInterval > 0 {
			seconds := uint32(p.MessageExpiryInterval)
			m.Properties.MessageExpiry = &seconds
		}
		if p.TopicAlias > 0 {
			alias := uint16(p.TopicAlias)
			m.Properties.TopicAlias = &alias
		}
		if p.PayloadFormatIndicator > 0 {
			format := byte(p.PayloadFormatIndicator)
			m.Properties.PayloadFormat = &format
		}
		for _, u := range p.UserProperties {
			m.Properties.User = append(m.Properties.User, pahov5.UserProperty{Key: u[0], Value: u[1]})
		}
	}
	_, err := c.Publish(ctx, m)
	return err
}

func (c *go5) close() error {
	close(c.ended)
	return c.Disconnect(&pahov5.Disconnect{})
}

func (c *go5) drop() error {
	err := c.socket.Close()
	close(c.ended)
	return err
}

// A scram is the client's part of SCRAM-SHA-256 (RFC 7677).
type scram struct {
	user, password string
	first          string
	err            error
}

const scramNonce = "rOprNGfwEbeRWgbNEkqO"

func (s *scram) begin(p *pahov5.ConnectProperties) {
	s.first = "n=" + s.user + ",r=" + scramNonce
	p.AuthMethod, p.AuthData = "SCRAM-SHA-256", []byte("n,,"+s.first)
}

func (s *scram) Authenticated() {}

// Authenticate answers the server's first message.
func (s *scram) Authenticate(a *pahov5.Auth) *pahov5.Auth {
	var nonce, salt string
	var iterations int
	for _, part := range strings.Split(string(a.Properties.AuthData), ",") {
		switch name, value, _ := strings.Cut(part, "="); name {
		case "r":
			nonce = value
		case "s":
			salt = value
		case "i":
			iterations, _ = strconv.Atoi(value)
		}
	}
	salted, err := base64.StdEncoding.DecodeString(salt)
	if err != nil || !strings.HasPrefix(nonce, scramNonce) {
		s.err = fmt.Errorf("the server says %q", a.Properties.AuthData)
	}
	key, err := pbkdf2.Key(sha256.New, s.password, salted, iterations, sha256.Size)
	if err != nil {
		s.err = err
	}
	sum := func(key []byte, text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	last := "c=biws,r=" + nonce
	clientKey := sum(key, "Client Key")
	stored := sha256.Sum256(clientKey)
	proof := sum(stored[:], s.first+","+string(a.Properties.AuthData)+","+last)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	last += ",p=" + base64.StdEncoding.EncodeToString(proof)
	return &pahov5.Auth{ReasonCode: 0x18, Properties: &pahov5.AuthProperties{AuthMethod: "SCRAM-SHA-256", AuthData: []byte(last)}}
}
