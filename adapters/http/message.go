package http

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

// appendMessage appends a delivery as one JSON object without a line break.
// lease is nil where the message is not leased.
func appendMessage(dst []byte, d *core.Delivery, lease *core.Lease, now time.Time) []byte {
	dst = append(dst, `{"t":`...)
	dst = appendString(dst, d.Topic)
	dst = append(dst, `,"o":`...)
	dst = strconv.AppendUint(dst, uint64(d.Offset), 10)
	dst = append(dst, `,"ts":`...)
	dst = strconv.AppendInt(dst, d.Time.UnixMilli(), 10)
	if d.Attempt > 1 || lease != nil {
		dst = append(dst, `,"n":`...)
		dst = strconv.AppendUint(dst, uint64(max(d.Attempt, 1)), 10)
	}
	dst = appendPayload(dst, d.ContentType, d.Payload)
	field := func(name, value string) {
		if value != "" {
			dst = append(dst, name...)
			dst = appendString(dst, value)
		}
	}
	field(`,"type":`, d.ContentType)
	if len(d.Headers) > 0 {
		dst = append(dst, `,"h":`...)
		dst = appendHeaders(dst, d.Headers)
	}
	field(`,"key":`, d.Key)
	field(`,"reply":`, d.ReplyTo)
	if d.CorrelationID != nil {
		if utf8.Valid(d.CorrelationID) {
			dst = append(dst, `,"corr":`...)
			dst = appendString(dst, string(d.CorrelationID))
		} else {
			dst = append(dst, `,"corr64":"`...)
			dst = base64.StdEncoding.AppendEncode(dst, d.CorrelationID)
			dst = append(dst, '"')
		}
	}
	if level, ok := d.Priority.Level(); ok {
		dst = append(dst, `,"prio":`...)
		dst = strconv.AppendInt(dst, int64(level), 10)
	}
	if !d.Expires.IsZero() {
		dst = append(dst, `,"ttl":`...)
		dst = strconv.AppendInt(dst, remaining(d.Expires, now), 10)
	}
	field(`,"id":`, d.ID)
	dst = appendPublisher(dst, &d.Publisher)
	if d.Retain {
		dst = append(dst, `,"retain":true`...)
	}
	if d.Retained {
		dst = append(dst, `,"retained":true`...)
	}
	if lease != nil {
		dst = append(dst, `,"lease":`...)
		dst = appendString(dst, lease.Token)
		dst = append(dst, `,"until":`...)
		dst = strconv.AppendInt(dst, lease.Until.UnixMilli(), 10)
	}
	return append(dst, '}')
}

// appendPublisher appends who published it.
func appendPublisher(dst []byte, p *core.Publisher) []byte {
	if *p == (core.Publisher{}) {
		return dst
	}
	dst = append(dst, `,"pub":{`...)
	comma := false
	member := func(name, value string) {
		if value == "" {
			return
		}
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = append(dst, name...)
		dst = appendString(dst, value)
	}
	member(`"user":`, p.Principal)
	member(`"client":`, p.Client)
	member(`"via":`, p.Protocol)
	return append(dst, '}')
}

// appendPayload appends ,"d" or ,"b": text as a string, base64 where it is not
// UTF-8, and a JSON payload as the value that it is. A JSON string is not
// embedded, so that a string is always the payload's text; nor is what spans
// lines, as an object is one line.
func appendPayload(dst []byte, contentType string, payload []byte) []byte {
	switch {
	case len(payload) == 0:
		return append(dst, `,"d":""`...)
	case isJSON(contentType) && payload[0] != '"' && bytes.IndexByte(payload, '\n') < 0 && bytes.IndexByte(payload, '\r') < 0 && json.Valid(payload):
		dst = append(dst, `,"d":`...)
		return append(dst, payload...)
	case utf8.Valid(payload):
		dst = append(dst, `,"d":`...)
		return appendString(dst, payload)
	}
	dst = append(dst, `,"b":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, payload)
	return append(dst, '"')
}

// isJSON reports whether a content type is JSON's or ends in +json (RFC 6839).
func isJSON(contentType string) bool {
	if contentType == "" {
		return false
	}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.TrimSpace(media)
	return strings.EqualFold(media, "application/json") || len(media) > 5 && strings.EqualFold(media[len(media)-5:], "+json")
}

// appendHeaders appends headers as an object, or as pairs where a name repeats
// or some reader of an object would move or lose it: a name of digits, which
// JavaScript puts first, and the one that sets a prototype.
func appendHeaders(dst []byte, headers []core.Header) []byte {
	for i := range headers {
		name := headers[i].Name
		if name == "__proto__" || strings.Trim(name, "0123456789") == "" {
			return appendPairs(dst, headers, false)
		}
		for j := range headers[:i] {
			if headers[j].Name == name {
				return appendPairs(dst, headers, false)
			}
		}
	}
	dst = append(dst, '{')
	for i := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, headers[i].Name)
		dst = append(dst, ':')
		dst = appendString(dst, headers[i].Value)
	}
	return append(dst, '}')
}

// appendPairs appends headers as a list of pairs, in ASCII where that is
// asked for.
func appendPairs(dst []byte, headers []core.Header, ascii bool) []byte {
	text := appendString[string]
	if ascii {
		text = appendASCII
	}
	dst = append(dst, '[')
	for i := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '[')
		dst = text(dst, headers[i].Name)
		dst = append(dst, ',')
		dst = text(dst, headers[i].Value)
		dst = append(dst, ']')
	}
	return append(dst, ']')
}

// appendString appends a JSON string (RFC 8259, section 7). What is not UTF-8
// becomes U+FFFD.
func appendString[S string | []byte](dst []byte, s S) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
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
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

func decodeRune[S string | []byte](s S) (rune, int) {
	var buf [utf8.UTFMax]byte
	n := copy(buf[:], s)
	return utf8.DecodeRune(buf[:n])
}

// appendASCII appends a JSON string of ASCII alone.
func appendASCII(dst []byte, s string) []byte {
	for _, c := range string(appendString(nil, s)) {
		switch {
		case c >= 0x20 && c < 0x7f:
			dst = append(dst, byte(c))
		case c < 0x10000:
			dst = append(dst, `\u`...)
			dst = appendHex4(dst, uint16(c))
		default:
			c -= 0x10000
			dst = appendHex4(append(dst, `\u`...), uint16(0xd800+c>>10))
			dst = appendHex4(append(dst, `\u`...), uint16(0xdc00+c&0x3ff))
		}
	}
	return dst
}

func appendHex4(dst []byte, v uint16) []byte {
	const hex = "0123456789abcdef"
	return append(dst, hex[v>>12], hex[v>>8&15], hex[v>>4&15], hex[v&15])
}
