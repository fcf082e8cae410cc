package ws

import (
	"encoding/base64"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// appendString appends a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
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

func appendMember(dst []byte, name, value string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return appendString(dst, value)
}

func appendInt(dst []byte, name string, value int64) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return strconv.AppendInt(dst, value, 10)
}

// appendDelivery appends a delivery's members, each behind a comma: what it is
// to the broker first, then what its publisher said.
func appendDelivery(dst []byte, d *core.Delivery, now time.Time) []byte {
	e := d.Envelope
	dst = appendInt(dst, "o", int64(d.Offset))
	dst = appendInt(dst, "ts", e.Time.UnixMilli())
	if d.Attempt > 1 {
		dst = appendInt(dst, "n", int64(d.Attempt))
	}
	if d.Retained {
		dst = append(dst, `,"retained":true`...)
	}
	dst = appendMember(dst, "t", e.Topic)
	if e.Key != "" {
		dst = appendMember(dst, "key", e.Key)
	}
	if e.ID != "" {
		dst = appendMember(dst, "id", e.ID)
	}
	if len(e.Headers) > 0 {
		dst = appendHeaders(append(dst, `,"h":`...), e.Headers)
	}
	if e.ReplyTo != "" {
		dst = appendMember(dst, "reply", e.ReplyTo)
	}
	if e.CorrelationID != nil {
		if utf8.Valid(e.CorrelationID) {
			dst = appendString(append(dst, `,"corr":`...), view(e.CorrelationID))
		} else {
			dst = appendBase64(append(dst, `,"corr64":`...), e.CorrelationID)
		}
	}
	if !e.Expires.IsZero() {
		dst = appendInt(dst, "ttl", max(e.Expires.UnixMilli()-now.UnixMilli(), 0))
	}
	if level, ok := e.Priority.Level(); ok {
		dst = appendInt(dst, "prio", int64(level))
	}
	if e.ContentType != "" {
		dst = appendMember(dst, "type", e.ContentType)
	}
	dst = appendPublisher(dst, &e.Publisher)
	switch {
	case !utf8.Valid(e.Payload):
		return appendBase64(append(dst, `,"b":`...), e.Payload)
	case isJSON(e.ContentType) && isStructured(e.Payload):
		return append(append(dst, `,"d":`...), e.Payload...)
	}
	return appendString(append(dst, `,"d":`...), view(e.Payload))
}

func appendPublisher(dst []byte, p *core.Publisher) []byte {
	if *p == (core.Publisher{}) {
		return dst
	}
	dst = append(dst, `,"pub":{`...)
	start := len(dst)
	for _, m := range [...]struct{ name, value string }{{"user", p.Principal}, {"client", p.Client}, {"via", p.Protocol}} {
		if m.value != "" {
			dst = appendMember(dst, m.name, m.value)
		}
	}
	copy(dst[start:], dst[start+1:]) // the comma in front
	dst[len(dst)-1] = '}'
	return dst
}

// appendHeaders appends an object, or, where an object would lose the order or
// a repeat in some reader, a list of pairs.
func appendHeaders(dst []byte, headers []core.Header) []byte {
	if !fitsObject(headers) {
		for i := range headers {
			dst = append(dst, "[,"[min(i, 1)], '[')
			dst = appendString(dst, headers[i].Name)
			dst = append(dst, ',')
			dst = appendString(dst, headers[i].Value)
			dst = append(dst, ']')
		}
		return append(dst, ']')
	}
	for i := range headers {
		dst = append(dst, "{,"[min(i, 1)])
		dst = appendString(dst, headers[i].Name)
		dst = append(dst, ':')
		dst = appendString(dst, headers[i].Value)
	}
	return append(dst, '}')
}

// fitsObject reports whether every reader gets the headers of an object as they
// are: no name repeats; none is an index, which JavaScript moves to the front,
// nor the name by which it sets a prototype.
func fitsObject(headers []core.Header) bool {
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

// isJSON reports whether a content type says that the payload is JSON (RFC
// 6839, section 3.1).
func isJSON(contentType string) bool {
	switch contentType {
	case "":
		return false
	case jsonType:
		return true
	}
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == jsonType || strings.HasSuffix(t, "+json"))
}

const jsonType = "application/json"
