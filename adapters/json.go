package adapters

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/sluicemq/sluice/core"
)

// AppendJSONString appends a JSON string (RFC 8259, section 7). Bytes that are not UTF-8 become U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(dst, s[done:i]...)
			dst = append(dst, "\ufffd"...)
			i++
			done = i
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[done:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		done = i
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}

// AppendJSONText is AppendJSONString for bytes.
func AppendJSONText(dst, s []byte) []byte { return AppendJSONString(dst, alias(s)) }

// AppendJSONMember appends a comma and a member whose value is a string.
func AppendJSONMember(dst []byte, name, value string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return AppendJSONString(dst, value)
}

// AppendJSONInt appends a comma and a member whose value is a number.
func AppendJSONInt(dst []byte, name string, value int64) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return strconv.AppendInt(dst, value, 10)
}

// AppendJSONDelivery appends the members of the JSON object that a delivery is,
// each behind a comma: what it is to the broker first, then what its publisher
// said. The payload comes last: "d" is a JSON payload as the value that it is,
// but for a string, and text as a string; "b" is what is not UTF-8, in base64.
// It does not allocate but for growing dst.
func AppendJSONDelivery(dst []byte, d *core.Delivery, now time.Time) []byte {
	e := d.Envelope
	dst = AppendJSONInt(dst, "o", int64(d.Offset))
	dst = AppendJSONInt(dst, "ts", e.Time.UnixMilli())
	if d.Attempt > 1 {
		dst = AppendJSONInt(dst, "n", int64(d.Attempt))
	}
	if d.Retained {
		dst = append(dst, `,"retained":true`...)
	}
	dst = AppendJSONMember(dst, "t", e.Topic)
	if e.Key != "" {
		dst = AppendJSONMember(dst, "key", e.Key)
	}
	if e.ID != "" {
		dst = AppendJSONMember(dst, "id", e.ID)
	}
	if len(e.Headers) > 0 {
		dst = AppendJSONHeaders(append(dst, `,"h":`...), e.Headers)
	}
	if e.ReplyTo != "" {
		dst = AppendJSONMember(dst, "reply", e.ReplyTo)
	}
	if e.CorrelationID != nil {
		if utf8.Valid(e.CorrelationID) {
			dst = AppendJSONString(append(dst, `,"corr":`...), alias(e.CorrelationID))
		} else {
			dst = appendBase64(append(dst, `,"corr64":`...), e.CorrelationID)
		}
	}
	if !e.Expires.IsZero() {
		dst = AppendJSONInt(dst, "ttl", max(e.Expires.UnixMilli()-now.UnixMilli(), 0))
	}
	if level, ok := e.Priority.Level(); ok {
		dst = AppendJSONInt(dst, "prio", int64(level))
	}
	if e.ContentType != "" {
		dst = AppendJSONMember(dst, "type", e.ContentType)
	}
	dst = AppendJSONPublisher(dst, &e.Publisher)
	switch {
	case !utf8.Valid(e.Payload):
		return appendBase64(append(dst, `,"b":`...), e.Payload)
	case IsStructured(e.ContentType, e.Payload):
		return append(append(dst, `,"d":`...), e.Payload...)
	}
	return AppendJSONString(append(dst, `,"d":`...), alias(e.Payload))
}

// AppendJSONPublisher appends a comma and the member that says who published a
// message, or nothing where that is not known.
func AppendJSONPublisher(dst []byte, p *core.Publisher) []byte {
	if *p == (core.Publisher{}) {
		return dst
	}
	dst = append(dst, `,"pub":{`...)
	start := len(dst)
	for _, m := range [...]struct{ name, value string }{{"user", p.Principal}, {"client", p.Client}, {"via", p.Protocol}} {
		if m.value != "" {
			dst = AppendJSONMember(dst, m.name, m.value)
		}
	}
	copy(dst[start:], dst[start+1:]) // the comma in front
	dst[len(dst)-1] = '}'
	return dst
}

// AppendJSONHeaders appends an object, or, where an object would lose the order or
// a repeat in some reader, a list of pairs.
func AppendJSONHeaders(dst []byte, headers []core.Header) []byte {
	if !HeadersFitObject(headers) {
		for i := range headers {
			dst = append(dst, "[,"[min(i, 1)], '[')
			dst = AppendJSONString(dst, headers[i].Name)
			dst = append(dst, ',')
			dst = AppendJSONString(dst, headers[i].Value)
			dst = append(dst, ']')
		}
		return append(dst, ']')
	}
	for i := range headers {
		dst = append(dst, "{,"[min(i, 1)])
		dst = AppendJSONString(dst, headers[i].Name)
		dst = append(dst, ':')
		dst = AppendJSONString(dst, headers[i].Value)
	}
	return append(dst, '}')
}

// HeadersFitObject reports whether every reader gets the headers of an object as they
// are: no name repeats; none is an index, which JavaScript moves to the front,
// nor the name by which it sets a prototype.
func HeadersFitObject(headers []core.Header) bool {
	for i := range headers {
		name := headers[i].Name
		if name == "__proto__" || strings.Trim(name, "0123456789") == "" {
			return false
		}
		for j := range i {
			if headers[j].Name == name {
				return false
			}
		}
	}
	return true
}

func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// alias views bytes as a string for as long as nobody writes them.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// IsStructured reports whether a payload stands in an object as the value that it
// is: its content type says JSON, and it is JSON other than a string. A JSON
// string is not embedded, so that a string is always the payload's text.
func IsStructured(contentType string, payload []byte) bool {
	return isJSON(contentType) && isStructured(payload)
}

func isStructured(b []byte) bool {
	t := bytes.TrimLeft(b, " \t\r\n")
	return len(t) > 0 && t[0] != '"' && json.Valid(b)
}

// isJSON reports whether a content type says that the payload is JSON (RFC
// 6839, section 3.1).
func isJSON(contentType string) bool {
	switch contentType {
	case "":
		return false
	case JSONType:
		return true
	}
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == JSONType || strings.HasSuffix(t, "+json"))
}

// JSONType is the content type of JSON.
const JSONType = "application/json"
