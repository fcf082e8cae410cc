package link

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// An object is a message as HTTP and WebSocket write it in JSON.
type object struct {
	Topic    string          `json:"t"`
	Offset   core.Offset     `json:"o"`
	Time     int64           `json:"ts"`
	Attempt  int             `json:"n"`
	Retained bool            `json:"retained"`
	Key      string          `json:"key"`
	ID       string          `json:"id"`
	Headers  json.RawMessage `json:"h"`
	Reply    string          `json:"reply"`
	Corr     *string         `json:"corr"`
	Corr64   []byte          `json:"corr64"`
	TTL      *int64          `json:"ttl"`
	Priority *int            `json:"prio"`
	Type     string          `json:"type"`
	Data     json.RawMessage `json:"d"`
	Binary   []byte          `json:"b"`
	Lease    string          `json:"lease"`
}

func (o *object) message() (*Message, error) {
	m := &Message{Offset: o.Offset, Attempt: max(o.Attempt, 1), Retained: o.Retained}
	m.Topic, m.Key, m.ID, m.ReplyTo, m.ContentType = o.Topic, o.Key, o.ID, o.Reply, o.Type
	m.Payload, m.CorrelationID = o.Binary, o.Corr64
	if o.Time != 0 {
		m.Time = time.UnixMilli(o.Time)
	}
	if o.Corr != nil {
		m.CorrelationID = []byte(*o.Corr)
	}
	if o.Priority != nil {
		m.Priority = core.PriorityOf(*o.Priority)
	}
	if o.TTL != nil {
		m.TTL = time.Duration(*o.TTL) * time.Millisecond
	}
	var err error
	if m.Headers, err = ParseHeaders(o.Headers); err != nil {
		return nil, err
	}
	if len(o.Data) > 0 {
		var s string
		if json.Unmarshal(o.Data, &s) == nil {
			m.Payload = []byte(s)
		} else {
			m.Payload = o.Data
		}
	}
	return m, nil
}

// ParseHeaders reads a message's headers in JSON, which are a list of pairs, or an object, whose order
// is kept.
func ParseHeaders(raw json.RawMessage) ([]core.Header, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if raw[0] == '[' {
		var pairs [][2]string
		if err := json.Unmarshal(raw, &pairs); err != nil {
			return nil, fmt.Errorf("headers: %w", err)
		}
		var list []core.Header
		for _, p := range pairs {
			list = append(list, core.Header{Name: p[0], Value: p[1]})
		}
		return list, nil
	}
	return orderedMembers(raw)
}

// publishObject is what publishes a message, without where it goes.
func publishObject(m *Message) map[string]any {
	o := map[string]any{}
	set := func(name string, value any, is bool) {
		if is {
			o[name] = value
		}
	}
	set("key", m.Key, m.Key != "")
	set("id", m.ID, m.ID != "")
	set("type", m.ContentType, m.ContentType != "")
	set("reply", m.ReplyTo, m.ReplyTo != "")
	set("retain", true, m.Retain)
	set("durable", false, m.Guarantee == core.AtMostOnce)
	set("ttl", m.TTL.Milliseconds(), m.TTL > 0)
	set("delay", m.Delay.Milliseconds(), m.Delay > 0)
	if level, ok := m.Priority.Level(); ok {
		o["prio"] = level
	}
	if len(m.Headers) > 0 {
		o["h"] = pairs(m.Headers)
	}
	if m.CorrelationID != nil {
		if utf8.Valid(m.CorrelationID) {
			o["corr"] = string(m.CorrelationID)
		} else {
			o["corr64"] = base64.StdEncoding.EncodeToString(m.CorrelationID)
		}
	}
	if utf8.Valid(m.Payload) {
		o["d"] = string(m.Payload)
	} else {
		o["b"] = base64.StdEncoding.EncodeToString(m.Payload)
	}
	return o
}

func pairs(headers []core.Header) [][2]string {
	var list [][2]string
	for _, h := range headers {
		list = append(list, [2]string{h.Name, h.Value})
	}
	return list
}

// orderedMembers reads an object of strings in the order of its text.
func orderedMembers(raw json.RawMessage) ([]core.Header, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var list []core.Header
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("header %v: %w", name, err)
		}
		list = append(list, core.Header{Name: name.(string), Value: value})
	}
	return list, nil
}
