package http

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// An eventEncoder writes deliveries as server-sent events (HTML standard,
// 9.2).
//
// As text, an event's data is the payload, a line of data for each of its
// lines. What data cannot hold unchanged, because it is not UTF-8 or has a
// carriage return, which would end a line too, is an event named "binary" whose
// data is the payload in base64. As JSON, the data is the object of
// appendMessage, which has no line break in it.
type eventEncoder struct {
	json bool
	// topics adds a field with the topic, percent-encoded as in a path; a
	// browser does not look at it, but people and scripts may.
	topics bool
}

// append appends one event. A retained value has no id: it stands in the log
// before what the reader has seen, and a reader must not start again there.
func (e eventEncoder) append(dst []byte, d *core.Delivery, now time.Time) []byte {
	if !d.Retained {
		dst = append(dst, "id: "...)
		dst = append(strconv.AppendUint(dst, uint64(d.Offset), 10), '\n')
	}
	switch {
	case e.json:
		dst = append(dst, "data: "...)
		dst = appendMessage(dst, d, nil, now)
		return append(dst, "\n\n"...)
	case e.topics:
		dst = append(dst, "topic: "...)
		dst = append(append(dst, escapeLevels(d.Topic)...), '\n')
	}
	if !utf8.Valid(d.Payload) || bytes.IndexByte(d.Payload, '\r') >= 0 {
		dst = append(dst, "event: binary\ndata: "...)
		dst = base64.StdEncoding.AppendEncode(dst, d.Payload)
		return append(dst, "\n\n"...)
	}
	for rest, more := d.Payload, true; more; {
		var line []byte
		line, rest, more = bytes.Cut(rest, newline)
		dst = append(dst, "data: "...)
		dst = append(append(dst, line...), '\n')
	}
	return append(dst, '\n')
}

var newline = []byte{'\n'}

// events are the events of all streams of one form, each encoded once.
type events struct {
	bodies adapters.Bodies
	bursts adapters.Bursts
}

func (e *events) init(form eventEncoder) {
	e.bodies.Encode = func(dst []byte, d *core.Delivery, now time.Time) ([]byte, int) {
		return form.append(dst, d, now), 0
	}
}

// appendEach appends the event of each delivery.
func (e *events) appendEach(dst []byte, batch []core.Delivery, now time.Time) []byte {
	for i := range batch {
		dst, _ = e.bodies.Append(dst, &batch[i], now)
	}
	return dst
}

// appendShared is appendEach for what many streams get.
func (e *events) appendShared(dst []byte, batch []core.Delivery, now time.Time) []byte {
	return e.bursts.Append(dst, batch, nil, func(dst []byte) []byte { return e.appendEach(dst, batch, now) })
}

// appendGapEvent appends the event that tells of offsets that are not there any
// more. Its id is the last of them.
func appendGapEvent(dst []byte, from, to core.Offset) []byte {
	dst = append(strconv.AppendUint(append(dst, "id: "...), uint64(to-1), 10), "\nevent: gap\ndata: "...)
	return append(appendGap(dst, from, to), "\n\n"...)
}
