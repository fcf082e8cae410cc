package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	nethttp "net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A CloudEvent (CloudEvents 1.0.2) is a message whose headers ce-… are the
// event's attributes, with its data as payload and its datacontenttype as
// content type: what the HTTP binding calls binary mode. Structured mode, one
// event as JSON, and batches of those are read into that and written from it.
const (
	typeEvent   = "application/cloudevents+json"
	typeEvents  = "application/cloudevents-batch+json"
	eventPrefix = "ce-"
)

// isEvent reports whether a request's body is a CloudEvent in structured mode,
// and whether it is a batch of them. The format is in the type's suffix.
func isEvent(r *nethttp.Request) (event, batch bool) {
	v := r.Header["Content-Type"]
	if len(v) == 0 || !containsFold(v[0], "cloudevents") {
		return false, false
	}
	media, _, _ := strings.Cut(strings.ToLower(v[0]), ";")
	media = strings.TrimSpace(media)
	return media == typeEvent, media == typeEvents
}

// decodeEvent reads an event in structured mode (JSON event format, 2 and 3)
// into an envelope: its attributes into headers, sorted by name, in front of
// those that there are.
func decodeEvent(data []byte, e *core.Envelope) error {
	if !utf8.Valid(data) {
		return errors.New("the event is not UTF-8")
	}
	var members map[string]json.RawMessage
	if err := unmarshalStrict(data, &members); err != nil {
		return errors.New("the event is not a JSON object: " + err.Error())
	}
	e.ContentType, e.Payload = "", nil
	var headers []core.Header
	for name, raw := range members {
		switch {
		case name == "data" || name == "data_base64":
			continue
		case !isAttribute(name):
			return fmt.Errorf("%s is not the name of an attribute: lower-case letters and digits", quote(name))
		case string(raw) == "null":
			continue // as if it were not there (2.2)
		}
		value, err := attributeValue(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch name {
		case "datacontenttype":
			e.ContentType = value
			continue
		case "partitionkey":
			if e.Key == "" {
				e.Key = value
			}
		}
		headers = append(headers, core.Header{Name: eventPrefix + name, Value: value})
	}
	slices.SortFunc(headers, func(a, b core.Header) int { return strings.Compare(a.Name, b.Name) })
	for _, name := range []string{"id", "source", "specversion", "type"} {
		i := slices.IndexFunc(headers, func(h core.Header) bool { return h.Name == eventPrefix+name })
		if i < 0 || headers[i].Value == "" {
			return fmt.Errorf("the event has no %s", name)
		}
		if name == "specversion" && headers[i].Value != "1.0" {
			return fmt.Errorf("specversion is %s: want 1.0", quote(headers[i].Value))
		}
	}
	e.Headers = append(headers, e.Headers...)
	return decodeEventData(members, e)
}

// decodeEventData takes the payload of an event (JSON event format, 3.1).
func decodeEventData(members map[string]json.RawMessage, e *core.Envelope) error {
	encoded, binary := members["data_base64"]
	data, is := members["data"]
	switch {
	case is && binary:
		return errors.New("the event has both data and data_base64")
	case binary:
		if err := json.Unmarshal(encoded, &e.Payload); err != nil {
			return errors.New("data_base64 is not base64")
		}
	case is && len(data) > 0 && data[0] == '"' && e.ContentType != "" && !isJSON(e.ContentType):
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return errors.New("data: " + err.Error())
		}
		e.Payload = []byte(text)
	case is:
		e.Payload = data
		if e.ContentType == "" {
			e.ContentType = "application/json"
		}
	}
	return nil
}

// isAttribute reports whether a name is an attribute's (1.0.2, "Attribute
// Naming Convention").
func isAttribute(name string) bool {
	for i := 0; i < len(name); i++ {
		if c := name[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return name != ""
}

// attributeValue is the canonical text of an attribute: a string, a boolean or
// an integer of 32 bits.
func attributeValue(raw json.RawMessage) (string, error) {
	switch c := raw[0]; {
	case c == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case c == 't' || c == 'f':
		return string(raw), nil
	case c == '-' || '0' <= c && c <= '9':
		n, err := strconv.ParseInt(string(raw), 10, 32)
		return strconv.FormatInt(n, 10), err
	}
	return "", errors.New("want a string, a boolean or an integer")
}

// appendEvent appends a delivery as an event in structured mode. A message that
// is none becomes one: its offset and topic say which it is.
func appendEvent(dst []byte, d *core.Delivery) []byte {
	attribute := func(name, value string) {
		dst = append(dst, ',')
		dst = append(adapters.AppendJSONString(dst, name), ':')
		dst = adapters.AppendJSONString(dst, value)
	}
	dst = append(dst, `{"specversion":"1.0"`...)
	if _, is := eventAttribute(d, "specversion"); is {
		for i, h := range d.Headers {
			name, ok := strings.CutPrefix(h.Name, eventPrefix)
			if ok && name != "specversion" && name != "datacontenttype" && isAttribute(name) && !slices.ContainsFunc(d.Headers[:i], func(b core.Header) bool { return b.Name == h.Name }) {
				attribute(name, h.Value)
			}
		}
	} else {
		attribute("id", strconv.FormatUint(uint64(d.Offset), 10))
		attribute("source", "/t/"+escapeLevels(d.Topic))
		attribute("type", "sluice.message")
		attribute("time", d.Time.UTC().Format(timeLayout))
		if d.Key != "" {
			attribute("partitionkey", d.Key)
		}
	}
	if d.ContentType != "" {
		attribute("datacontenttype", d.ContentType)
	}
	switch {
	case len(d.Payload) == 0:
	case isJSON(d.ContentType) && json.Valid(d.Payload) && utf8.Valid(d.Payload):
		dst = append(dst, `,"data":`...)
		dst = append(dst, bytes.TrimSpace(d.Payload)...)
	case d.ContentType != "" && !isJSON(d.ContentType) && utf8.Valid(d.Payload):
		attribute("data", string(d.Payload))
	default:
		dst = append(dst, `,"data_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, d.Payload)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

func eventAttribute(d *core.Delivery, name string) (string, bool) {
	return d.Header(eventPrefix + name)
}

// isEncoded reports whether the header of an attribute may be percent-encoded
// (HTTP binding, 3.1.3.2). URIs have percents of their own, and the senders
// that there are do not encode them again.
func isEncoded(header string) bool {
	name, ok := strings.CutPrefix(header, eventPrefix)
	return ok && name != "source" && name != "dataschema"
}

// decodeAttribute reads an attribute's value off a header of binary mode. What
// is not percent-encoded as it should be stays as it is.
func decodeAttribute(v string) string {
	if strings.IndexByte(v, '%') < 0 {
		return v
	}
	var b []byte
	for i := 0; i < len(v); i++ {
		if n, ok := percentByte(v[i:]); ok {
			b = append(b, n)
			i += 2
			continue
		}
		b = append(b, v[i])
	}
	if !utf8.Valid(b) {
		return v
	}
	return string(b)
}

// percentByte is the byte that a percent-encoding at the front of s stands for.
func percentByte(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[1:3], 16, 8)
	return byte(n), err == nil
}

// encodeAttribute writes one so that decodeAttribute reads it back. Spaces and
// quotes stay, as long as nothing else has to be encoded: many readers decode
// nothing.
func encodeAttribute(v string) string {
	ascii, plain := inspect(v)
	if ascii && plain && decodeAttribute(v) == v {
		return v
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if c := v[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// publishEvents publishes a batch of events, all or none.
func (s *Server) publishEvents(w nethttp.ResponseWriter, r *nethttp.Request, topic string, q query) error {
	if !q.flag("atomic", true) {
		q.fail(badRequest.with("a batch of events is published all or none"))
	}
	q.refuse("does not go with a batch of events", "retain", "durable", "mandatory", "reply")
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	body, err := s.readBody(w, r, nil, atomicBytes*s.limits.MessageBytes)
	if err != nil {
		return err
	}
	var events []json.RawMessage
	if err := unmarshalStrict(body, &events); err != nil {
		return badRequest.with("the batch is not a JSON list: " + err.Error())
	}
	var t core.Transaction
	for i, data := range events {
		e := &core.Envelope{Topic: topic, Guarantee: core.AtLeastOnce}
		if err := decodeEvent(data, e); err != nil {
			return badRequest.with(fmt.Sprintf("event %d: %v", i+1, err))
		}
		if len(t.Publish) == atomicMessages {
			return tooLarge.with(fmt.Sprintf("a batch has at most %d events", atomicMessages))
		}
		t.Publish = append(t.Publish, e)
	}
	if len(t.Publish) == 0 {
		return badRequest.with("the batch has no event")
	}
	return s.commitAll(w, r, h, t, true)
}

// takeEvent replaces a body in structured mode by what the event carries.
func (p *publishing) takeEvent() error {
	if err := decodeEvent(p.body, &p.envelope); err != nil {
		return badRequest.with(err.Error())
	}
	return nil
}

// answerEvents answers with one event, or with a batch of them.
func (s *Server) answerEvents(w nethttp.ResponseWriter, form form, ds []core.Delivery) {
	if form == formEvent {
		if len(ds) == 0 {
			s.answerNothing(w)
			return
		}
		s.answer(w, form, appendEvent(nil, &ds[0]))
		return
	}
	body := []byte{'['}
	for i := range ds {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendEvent(body, &ds[i])
	}
	s.answer(w, form, append(body, "]\n"...))
}
