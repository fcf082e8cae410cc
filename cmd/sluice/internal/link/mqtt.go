package link

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/sluicemq/sluice/core"
)

// mqttLink speaks MQTT 5 by Eclipse Paho's client.
type mqttLink struct {
	client *paho.Client
	come   chan *paho.Publish
	lost   chan error // gets why the connection ended
}

// mqttBuffered is how many messages may wait to be handled; those at QoS 1 and
// 2 are bounded by the receive maximum besides.
const mqttBuffered = 64

func dialMQTT(ctx context.Context, o Options) (Link, error) {
	conn, err := dialTCP(ctx, o)
	if err != nil {
		return nil, err
	}
	l := &mqttLink{come: make(chan *paho.Publish, mqttBuffered), lost: make(chan error, 1)}
	lose := func(err error) {
		select {
		case l.lost <- err:
		default:
		}
	}
	l.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), EnableManualAcknowledgment: true, SendAcksInterval: time.Millisecond, PacketTimeout: time.Hour,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			select {
			case l.come <- p.Packet:
			case <-p.Client.Done():
			}
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) {
			text := fmt.Sprintf("the broker disconnected with reason code %#x", d.ReasonCode)
			if d.Properties != nil && d.Properties.ReasonString != "" {
				text += ": " + d.Properties.ReasonString
			}
			lose(failure(mqttKind(d.ReasonCode), text))
		},
		OnClientError: func(err error) { lose(fmt.Errorf("%w: %w", errLost, err)) },
	})
	client := o.Client
	if client == "" {
		client = "sluice-" + rand.Text()[:10]
	}
	window := uint16(mqttBuffered / 2)
	connect := &paho.Connect{
		ClientID: client, CleanStart: true, KeepAlive: 30, Username: o.User, UsernameFlag: o.User != "",
		Password: []byte(o.Password), PasswordFlag: o.Password != "", Properties: &paho.ConnectProperties{RequestProblemInfo: true, ReceiveMaximum: &window},
	}
	ack, err := l.client.Connect(ctx, connect)
	if ack != nil && ack.ReasonCode >= 0x80 {
		text := fmt.Sprintf("the broker refused the connection with reason code %#x", ack.ReasonCode)
		if ack.Properties != nil && ack.Properties.ReasonString != "" {
			text += ": " + ack.Properties.ReasonString
		}
		return nil, failure(mqttKind(ack.ReasonCode), text)
	}
	return l, err
}

// mqttKind is what a reason code of 0x80 and more says (MQTT 5, 2.4).
func mqttKind(code byte) error {
	switch code {
	case 0x86, 0x8c:
		return core.ErrUnauthenticated
	case 0x87:
		return core.ErrNotAuthorized
	case 0x8f, 0x90:
		return core.ErrInvalidTopic
	case 0x95:
		return core.ErrTooLarge
	case 0x97:
		return core.ErrLimit
	}
	return nil
}

func (l *mqttLink) Publish(ctx context.Context, m *Message) (core.Offset, error) {
	p := &paho.Publish{Topic: m.Topic, Payload: m.Payload, Retain: m.Retain, QoS: byte(m.Guarantee), Properties: &paho.PublishProperties{
		ContentType: m.ContentType, ResponseTopic: m.ReplyTo, CorrelationData: m.CorrelationID,
	}}
	user := func(name, value string) {
		if value != "" {
			p.Properties.User.Add(name, value)
		}
	}
	for _, h := range m.Headers {
		p.Properties.User.Add(h.Name, h.Value)
	}
	user("key", m.Key)
	user("message-id", m.ID)
	if level, ok := m.Priority.Level(); ok {
		user("priority", strconv.Itoa(level))
	}
	if m.Delay > 0 {
		user("delay", m.Delay.String())
	}
	if m.TTL > 0 {
		seconds := uint32(min(math.Ceil(m.TTL.Seconds()), math.MaxUint32))
		p.Properties.MessageExpiry = &seconds
	}
	res, err := l.client.Publish(ctx, p)
	if res != nil && res.ReasonCode >= 0x80 {
		text := fmt.Sprintf("the broker refused the message with reason code %#x", res.ReasonCode)
		if res.Properties != nil && res.Properties.ReasonString != "" {
			text += ": " + res.Properties.ReasonString
		}
		return 0, failure(mqttKind(res.ReasonCode), text)
	}
	return 0, l.ended(err)
}

// ended is an error, or why the connection ended, which says more.
func (l *mqttLink) ended(err error) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	select {
	case lost := <-l.lost:
		return lost
	case <-time.After(100 * time.Millisecond):
		return err
	}
}

func (l *mqttLink) subscribe(ctx context.Context, s Subscription) error {
	sub := &paho.Subscribe{Properties: &paho.SubscribeProperties{}}
	sub.Properties.User.Add("meta", "true") // offset, time and attempt
	if s.From != "" {
		sub.Properties.User.Add("from", s.From)
	}
	if s.Ordered {
		sub.Properties.User.Add("ordered", "true")
	}
	filters := s.Filters
	qos := byte(s.Guarantee)
	switch {
	case s.Queue != "":
		filters, qos = []string{core.QueueTopic(s.Queue)}, max(qos, 1)
	case s.Group != "":
		filters, qos = []string{"$share/" + s.Group + "/" + s.Filters[0]}, max(qos, 1)
	}
	for _, f := range filters {
		o := paho.SubscribeOptions{Topic: f, QoS: qos, RetainAsPublished: true}
		if s.SkipRetained {
			o.RetainHandling = 2
		}
		sub.Subscriptions = append(sub.Subscriptions, o)
	}
	ack, err := l.client.Subscribe(ctx, sub)
	if ack != nil {
		for i, code := range ack.Reasons {
			if code >= 0x80 {
				text := fmt.Sprintf("the broker refused %q with reason code %#x", filters[i], code)
				if ack.Properties != nil && ack.Properties.ReasonString != "" {
					text += ": " + ack.Properties.ReasonString
				}
				return failure(mqttKind(code), text)
			}
		}
	}
	return l.ended(err)
}

func (l *mqttLink) Subscribe(ctx context.Context, s Subscription, handle func(*Message) error) error {
	if err := l.subscribe(ctx, s); err != nil {
		return err
	}
	if s.Ready != nil {
		s.Ready()
	}
	for {
		p, err := l.next(ctx)
		if err != nil {
			return err
		}
		err = handle(mqttMessage(p))
		if err == nil || errors.Is(err, ErrStop) {
			if failed := l.client.Ack(p); failed != nil {
				return failed
			}
		}
		if err != nil {
			return err
		}
	}
}

func (l *mqttLink) next(ctx context.Context) (*paho.Publish, error) {
	select {
	case p := <-l.come:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case err := <-l.lost:
		return nil, err
	}
}

func mqttMessage(p *paho.Publish) *Message {
	m := &Message{Attempt: 1, Retained: p.Retain}
	m.Topic, m.Payload, m.Guarantee = p.Topic, p.Payload, core.Guarantee(p.QoS)
	if p.Properties == nil {
		return m
	}
	m.ContentType, m.ReplyTo, m.CorrelationID = p.Properties.ContentType, p.Properties.ResponseTopic, p.Properties.CorrelationData
	if e := p.Properties.MessageExpiry; e != nil {
		m.TTL = time.Duration(*e) * time.Second
	}
	for _, u := range p.Properties.User {
		number, _ := strconv.ParseInt(u.Value, 10, 63)
		switch u.Key {
		case "key":
			m.Key = u.Value
		case "message-id":
			m.ID = u.Value
		case "priority":
			m.Priority = core.PriorityOf(int(number))
		case "offset":
			m.Offset = core.Offset(number)
		case "time":
			m.Time = time.UnixMilli(number)
		case "attempt":
			m.Attempt = max(int(number), 1)
		default:
			m.Headers = append(m.Headers, core.Header{Name: u.Key, Value: u.Value})
		}
	}
	return m
}

func (l *mqttLink) Request(ctx context.Context, m *Message) (*Message, error) {
	m.ReplyTo = core.InboxPrefix + rand.Text()
	if m.CorrelationID == nil {
		m.CorrelationID = []byte(rand.Text()[:8])
	}
	if err := l.subscribe(ctx, Subscription{Filters: []string{m.ReplyTo}}); err != nil {
		return nil, err
	}
	if _, err := l.Publish(ctx, m); err != nil {
		return nil, err
	}
	p, err := l.next(ctx)
	if err != nil {
		return nil, err
	}
	l.client.Ack(p)
	return mqttMessage(p), nil
}

func (l *mqttLink) Close() error {
	// Acknowledgements are sent in turn, a little later.
	time.Sleep(20 * time.Millisecond)
	err := l.client.Disconnect(&paho.Disconnect{})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
