package clienttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// This file says a message as the JSON object that HTTP, WebSocket and $meta/
// share.

// A jsonObject is that object. Lease is HTTP's, Sub and Op are WebSocket's.
type jsonObject struct {
	Op  string          `json:"op"`
	Req json.RawMessage `json:"req"`
	Sub string          `json:"sub"`

	T        string          `json:"t"`
	O        uint64          `json:"o"`
	TS       int64           `json:"ts"`
	N        int             `json:"n"`
	D        json.RawMessage `json:"d"`
	B        *[]byte         `json:"b"`
	Type     string          `json:"type"`
	H        json.RawMessage `json:"h"`
	Key      string          `json:"key"`
	Reply    string          `json:"reply"`
	Corr     string          `json:"corr"`
	Corr64   []byte          `json:"corr64"`
	Prio     *int            `json:"prio"`
	TTL      int64           `json:"ttl"`
	ID       string          `json:"id"`
	Retained bool            `json:"retained"`
	Lease    string          `json:"lease"`
}

// jsonMessage reads the object.
func jsonMessage(data []byte) (message, error) {
	var o jsonObject
	if err := json.Unmarshal(data, &o); err != nil {
		return message{}, fmt.Errorf("%w: %.200s", err, data)
	}
	return o.message()
}

func (o *jsonObject) message() (message, error) {
	m := message{
		Topic: o.T, ContentType: o.Type, Key: o.Key, ReplyTo: o.Reply, ID: o.ID, Retain: o.Retained,
		TTL: time.Duration(o.TTL) * time.Millisecond, Offset: strconv.FormatUint(o.O, 10), Time: time.UnixMilli(o.TS),
	}
	if o.N > 0 {
		m.Attempt = strconv.Itoa(o.N)
	}
	if o.Corr != "" {
		m.Correlation = []byte(o.Corr)
	} else {
		m.Correlation = o.Corr64
	}
	if o.Prio != nil {
		m.Priority = strconv.Itoa(*o.Prio)
	}
	switch {
	case o.B != nil:
		m.Payload = *o.B
	case len(o.D) > 0 && o.D[0] == '"':
		var text string
		if err := json.Unmarshal(o.D, &text); err != nil {
			return m, err
		}
		m.Payload = []byte(text)
	case o.D != nil:
		m.Payload = o.D
	default:
		return m, fmt.Errorf("the object has no payload")
	}
	return m, o.headers(&m)
}

// headers reads a list of pairs, or an object in its order.
func (o *jsonObject) headers(m *message) error {
	if len(o.H) == 0 {
		return nil
	}
	if o.H[0] == '[' {
		var pairs [][2]string
		if err := json.Unmarshal(o.H, &pairs); err != nil {
			return err
		}
		for _, p := range pairs {
			m.Headers = append(m.Headers, header{p[0], p[1]})
		}
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(o.H))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return err
		}
		m.Headers = append(m.Headers, header{name.(string), value})
	}
	return nil
}

// pairs is a list of headers in JSON.
func pairs(headers []header) [][2]string {
	out := make([][2]string, 0, len(headers))
	for _, h := range headers {
		out = append(out, [2]string{h.Name, h.Value})
	}
	return out
}
