package mqtt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// appendJSON appends a delivery as the JSON object that a WebSocket client gets,
// for a $meta subscription. The payload is "d": as it is where its type says
// JSON and it is an object or an array, else as a string; and what is not UTF-8
// is "b", in base64.
func appendJSON(b []byte, d *core.Delivery, now time.Time) []byte {
	b = appendNumber(append(b, '{'), "o", int64(d.Offset))
	b = appendNumber(append(b, ','), "ts", d.Time.UnixMilli())
	if d.Attempt > 1 {
		b = appendNumber(append(b, ','), "n", int64(d.Attempt))
	}
	if d.Retained {
		b = append(b, `,"retained":true`...)
	}
	b = appendJSONString(append(b, `,"t":`...), d.Topic)
	b = appendMember(b, "key", d.Key)
	b = appendMember(b, "id", d.ID)
	if len(d.Headers) > 0 {
		b = append(b, `,"h":`...)
		for i := range d.Headers {
			b = append(b, "[,"[min(i, 1)], '[')
			b = appendJSONString(b, d.Headers[i].Name)
			b = appendJSONString(append(b, ','), d.Headers[i].Value)
			b = append(b, ']')
		}
		b = append(b, ']')
	}
	b = appendMember(b, "reply", d.ReplyTo)
	switch {
	case d.CorrelationID == nil:
	case utf8.Valid(d.CorrelationID):
		b = appendJSONString(append(b, `,"corr":`...), alias(d.CorrelationID))
	default:
		b = appendBase64(append(b, `,"corr64":`...), d.CorrelationID)
	}
	if !d.Expires.IsZero() {
		b = appendNumber(append(b, ','), "ttl", max(d.Expires.UnixMilli()-now.UnixMilli(), 0))
	}
	if level, ok := d.Priority.Level(); ok {
		b = appendNumber(append(b, ','), "prio", int64(level))
	}
	b = appendMember(b, "type", d.ContentType)
	switch {
	case !utf8.Valid(d.Payload):
		b = appendBase64(append(b, `,"b":`...), d.Payload)
	case isJSON(d.ContentType) && isStructured(d.Payload):
		b = append(append(b, `,"d":`...), d.Payload...)
	default:
		b = appendJSONString(append(b, `,"d":`...), alias(d.Payload))
	}
	return append(b, '}')
}

// isJSON reports whether a content type says JSON (RFC 6839, section 3.1).
func isJSON(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	return t == "application/json" || strings.HasSuffix(t, "+json")
}

// isStructured reports whether a payload is a JSON object or array.
func isStructured(b []byte) bool {
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	return len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') && json.Valid(b)
}

func appendNumber(b []byte, name string, n int64) []byte {
	b = append(b, '"')
	b = append(b, name...)
	return strconv.AppendInt(append(b, '"', ':'), n, 10)
}

func appendBase64(b, value []byte) []byte {
	b = base64.StdEncoding.AppendEncode(append(b, '"'), value)
	return append(b, '"')
}

func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendJSONString(b, value)
}

// appendJSONString appends a string in quotes; what is not UTF-8 becomes the
// replacement character.
func appendJSONString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}
