package clienttest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// This file says a message in MQTT's words, for Paho and MQTT.js alike.

// mqttProperties are the properties of a PUBLISH as the drivers take and give
// them. A []byte is base64 in JSON.
type mqttProperties struct {
	ContentType            string      `json:"contentType,omitempty"`
	ResponseTopic          string      `json:"responseTopic,omitempty"`
	CorrelationData        []byte      `json:"correlationData,omitempty"`
	MessageExpiryInterval  int         `json:"messageExpiryInterval,omitempty"`
	PayloadFormatIndicator int         `json:"payloadFormatIndicator,omitempty"`
	UserProperties         [][2]string `json:"userProperties,omitempty"`
	TopicAlias             int         `json:"topicAlias,omitempty"`
	SubscriptionIDs        []int       `json:"subscriptionIds,omitempty"` // only of what is received
}

// mqttAddress is the topic or filter that addresses a.
func mqttAddress(a address, s selection) string {
	if s.group != "" {
		return "$share/" + s.group + "/" + a.topic
	}
	return a.name()
}

// mqttPublish are the arguments of a PUBLISH of m.
func mqttPublish(to address, m message) map[string]any {
	p := mqttProperties{
		ContentType: m.ContentType, ResponseTopic: m.ReplyTo, CorrelationData: m.Correlation,
		MessageExpiryInterval: int(m.TTL / time.Second),
	}
	for _, h := range m.Headers {
		p.UserProperties = append(p.UserProperties, [2]string{h.Name, h.Value})
	}
	for _, own := range []header{{"key", m.Key}, {"priority", m.Priority}, {"message-id", m.ID}} {
		if own.Value != "" {
			p.UserProperties = append(p.UserProperties, [2]string{own.Name, own.Value})
		}
	}
	payload := m.Payload
	if payload == nil {
		payload = []byte{}
	}
	return map[string]any{
		"topic": mqttAddress(to, selection{}), "payload": payload, "qos": 1, "retain": m.Retain, "properties": p,
	}
}

// mqttMessage reads a driver's event.
func mqttMessage(raw json.RawMessage) (message, error) {
	var e struct {
		Topic      string
		Payload    []byte
		Retain     bool
		Properties *mqttProperties
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return message{}, err
	}
	m := message{Topic: e.Topic, Payload: e.Payload, Retain: e.Retain}
	if p := e.Properties; p != nil {
		m.ContentType, m.ReplyTo, m.Correlation = p.ContentType, p.ResponseTopic, p.CorrelationData
		m.TTL = time.Duration(p.MessageExpiryInterval) * time.Second
		for _, u := range p.UserProperties {
			mqttUserProperty(&m, u[0], u[1])
		}
	}
	return m, nil
}

// mqttUserProperty sets the field that a user property stands for.
func mqttUserProperty(m *message, name, value string) {
	switch name {
	case "key":
		m.Key = value
	case "priority":
		m.Priority = value
	case "message-id":
		m.ID = value
	case "offset":
		m.Offset = value
	case "attempt":
		m.Attempt = value
	case "time", "publisher", "publisher-client", "publisher-protocol":
	default:
		m.Headers = append(m.Headers, header{name, value})
	}
}

// An mqttDialer opens an MQTT connection of one library.
type mqttDialer struct {
	driver func(testing.TB) *driver
	// where is the address in the driver's words.
	where func(*broker) map[string]any
}

func overTCP(b *broker) map[string]any {
	host, port := hostPort(b.MQTT)
	return map[string]any{"host": host, "port": port}
}

func overWebSocket(b *broker) map[string]any {
	return map[string]any{"url": "ws://" + b.HTTP + "/mqtt"}
}

var (
	paho       = mqttDialer{pahoDriver, overTCP}
	mqttJS     = mqttDialer{nodeDriver, overWebSocket}
	pageMQTTJS = mqttDialer{browserDriver, overWebSocket}
)

// mqttOptions are what a CONNECT says beside the address.
type mqttOptions struct {
	ClientID      string
	Resume        bool // clean start off
	SessionExpiry int
	Version       int // 4 or 5; 0 is 5
}

// mqttSession is what the broker answered a CONNECT.
type mqttSession struct{ SessionPresent bool }

func (d mqttDialer) dial(t testing.TB, b *broker, o mqttOptions, on func(event)) (*conn, mqttSession, error) {
	t.Helper()
	args := d.where(b)
	args["clean"] = !o.Resume
	args["clientId"] = o.ClientID
	if o.ClientID == "" {
		args["clientId"] = fmt.Sprintf("auto-%d", connections.Add(1))
	}
	if o.SessionExpiry != 0 {
		args["sessionExpiry"] = o.SessionExpiry
	}
	if o.Version != 0 {
		args["version"] = o.Version
	}
	c, ok, err := d.driver(t).connect("mqtt.connect", args, on)
	if err != nil {
		return nil, mqttSession{}, err
	}
	var s mqttSession
	return c, s, json.Unmarshal(ok, &s)
}

// into gives the messages of a connection to an inbox.
func (in *inbox) mqttEvents(e event) {
	switch e.Event {
	case "message":
		m, err := mqttMessage(e.Raw)
		if err != nil {
			in.fail(err)
			return
		}
		in.add(m)
	case "closed":
		in.fail(errClosed)
	case "disconnect":
		in.fail(fmt.Errorf("DISCONNECT: %s", e.Raw))
	}
}

// publish opens a publisher.
func (d mqttDialer) publish(t testing.TB, b *broker) (publishFunc, error) {
	c, _, err := d.dial(t, b, mqttOptions{}, func(event) {})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.close() })
	return func(to address, m message) error {
		ok, err := c.call("mqtt.publish", mqttPublish(to, m))
		if err != nil {
			return err
		}
		var r struct{ Code int }
		if err := json.Unmarshal(ok, &r); err != nil {
			return err
		}
		if r.Code >= 0x80 {
			return fmt.Errorf("PUBACK %#x", r.Code)
		}
		return nil
	}, nil
}

// receive opens a receiver.
func (d mqttDialer) receive(t testing.TB, b *broker, s selection) (*inbox, error) {
	in := newInbox()
	c, _, err := d.dial(t, b, mqttOptions{}, in.mqttEvents)
	if err != nil {
		return nil, err
	}
	in.end, in.drop = c.close, c.drop
	if s.hold {
		if _, err := c.call("mqtt.hold", nil); err != nil {
			return nil, err
		}
	}
	return in, mqttSubscribe(c, s)
}

func mqttSubscribe(c *conn, s selection) error {
	var filters []string
	for _, a := range s.from {
		filters = append(filters, mqttAddress(a, s))
	}
	args := map[string]any{"filters": filters, "qos": 1}
	asked := [][2]string{{"meta", "true"}} // for the offset and the attempt
	if s.start != "" {
		asked = append(asked, [2]string{"from", s.start})
	}
	args["userProperties"] = asked
	ok, err := c.call("mqtt.subscribe", args)
	if err != nil {
		return err
	}
	var granted struct{ Granted []int }
	if err := json.Unmarshal(ok, &granted); err != nil {
		return err
	}
	for i, code := range granted.Granted {
		if code >= 0x80 {
			return fmt.Errorf("SUBACK %#x for %q", code, filters[i])
		}
	}
	return nil
}

// mqttReplay is the filter that replays over MQTT 3.1.1.
func mqttReplay(start, filter string) string { return "$replay/" + start + "/" + filter }

// unhex reads mosquitto_sub's %x.
func unhex(s string) ([]byte, error) {
	b := make([]byte, 0, len(s)/2)
	for s = strings.TrimSpace(s); len(s) >= 2; s = s[2:] {
		v, err := strconv.ParseUint(s[:2], 16, 8)
		if err != nil {
			return nil, err
		}
		b = append(b, byte(v))
	}
	return b, nil
}

// mqttTextFlag is the payload format indicator of a driver's event.
func mqttTextFlag(t testing.TB, raw json.RawMessage) int {
	var e struct{ Properties mqttProperties }
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Error(err)
	}
	return e.Properties.PayloadFormatIndicator
}
