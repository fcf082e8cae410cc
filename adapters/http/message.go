package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// appendMessage appends a delivery as one JSON object without a line break.
// lease is nil where the message is not leased.
func appendMessage(dst []byte, d *core.Delivery, lease *core.Lease, now time.Time) []byte {
	dst = append(dst, `{"t":`...)
	dst = adapters.AppendJSONString(dst, d.Topic)
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
			dst = adapters.AppendJSONString(dst, value)
		}
	}
	field(`,"type":`, d.ContentType)
	if len(d.Headers) > 0 {
		dst = append(dst, `,"h":`...)
		dst = adapters.AppendJSONHeaders(dst, d.Headers)
	}
	field(`,"key":`, d.Key)
	field(`,"reply":`, d.ReplyTo)
	if d.CorrelationID != nil {
		if utf8.Valid(d.CorrelationID) {
			dst = append(dst, `,"corr":`...)
			dst = adapters.AppendJSONString(dst, string(d.CorrelationID))
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
	dst = adapters.AppendJSONPublisher(dst, &d.Publisher)
	if d.Retain {
		dst = append(dst, `,"retain":true`...)
	}
	if d.Retained {
		dst = append(dst, `,"retained":true`...)
	}
	if lease != nil {
		dst = append(dst, `,"lease":`...)
		dst = adapters.AppendJSONString(dst, lease.Token)
		dst = append(dst, `,"until":`...)
		dst = strconv.AppendInt(dst, lease.Until.UnixMilli(), 10)
	}
	return append(dst, '}')
}

// appendPayload appends ,"d" or ,"b": text as a string, base64 where it is not
// UTF-8, and a JSON payload as the value that it is. A JSON string is not
// embedded, so that a string is always the payload's text; nor is what spans
// lines, as an object is one line, nor what has space around it, which a parser
// would drop.
func appendPayload(dst []byte, contentType string, payload []byte) []byte {
	switch {
	case len(payload) == 0:
		return append(dst, `,"d":""`...)
	case isJSON(contentType) && payload[0] != '"' && payload[0] > ' ' && payload[len(payload)-1] > ' ' && bytes.IndexByte(payload, '\n') < 0 && bytes.IndexByte(payload, '\r') < 0 && json.Valid(payload):
		dst = append(dst, `,"d":`...)
		return append(dst, payload...)
	case utf8.Valid(payload):
		dst = append(dst, `,"d":`...)
		return adapters.AppendJSONText(dst, payload)
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

// appendPairs appends headers as a list of pairs, in ASCII where that is
// asked for.
func appendPairs(dst []byte, headers []core.Header, ascii bool) []byte {
	text := adapters.AppendJSONString
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

// appendASCII appends a JSON string of ASCII alone.
func appendASCII(dst []byte, s string) []byte {
	for _, c := range string(adapters.AppendJSONString(nil, s)) {
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
