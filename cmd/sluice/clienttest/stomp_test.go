package clienttest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// This file says a message in STOMP's words, for stomp.py and STOMP.js alike.

// stompDestination is the destination of a. A dot separates levels only where
// no slash does; otherwise it is written as %2E.
func stompDestination(a address) string {
	if a.queue != "" {
		return "/queue/" + a.queue
	}
	if inbox, ok := strings.CutPrefix(a.topic, "$inbox/"); ok {
		return "/reply-queue/" + inbox
	}
	if !strings.Contains(a.topic, "/") {
		return "/topic/" + strings.ReplaceAll(a.topic, ".", "%2E")
	}
	return "/topic/" + a.topic
}

// topicOfDestination is the broker's own name of a destination.
func topicOfDestination(destination string) string {
	if queue, ok := strings.CutPrefix(destination, "/queue/"); ok {
		return "$queue/" + queue
	}
	if inbox, ok := strings.CutPrefix(destination, "/reply-queue/"); ok {
		return "$inbox/" + inbox
	}
	topic, ok := strings.CutPrefix(destination, "/topic/")
	if !ok {
		return "not a destination: " + destination
	}
	if !strings.Contains(topic, "/") {
		topic = strings.ReplaceAll(topic, ".", "/")
	}
	return unquoted.Replace(topic)
}

// unquoted undoes what stands for bytes that mean something in a destination.
var unquoted = strings.NewReplacer("%2E", ".", "%2A", "*", "%3E", ">", "%2C", ",", "%25", "%")

// stompHeaders are the headers of a SEND of m beside its destination.
func stompHeaders(m message) [][2]string {
	var out [][2]string
	for _, h := range m.Headers {
		out = append(out, [2]string{h.Name, h.Value})
	}
	set := func(name, value string) {
		if value != "" {
			out = append(out, [2]string{name, value})
		}
	}
	set("content-type", m.ContentType)
	if m.ReplyTo != "" {
		set("reply-to", stompDestination(topicAddress(m.ReplyTo)))
	}
	if utf8.Valid(m.Correlation) {
		set("correlation-id", string(m.Correlation))
	} else {
		set("correlation-id-base64", base64.StdEncoding.EncodeToString(m.Correlation))
	}
	set("key", m.Key)
	set("priority", m.Priority)
	set("message-id", m.ID)
	if m.TTL > 0 {
		set("expiration", strconv.FormatInt(m.TTL.Milliseconds(), 10))
	}
	if m.Retain {
		set("retain", "true")
	}
	return out
}

// stompMessage reads a driver's event.
func stompMessage(raw json.RawMessage) (m message, ack string, err error) {
	var e struct {
		Headers [][2]string
		Body    []byte
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return m, "", err
	}
	m.Payload = e.Body
	for _, h := range e.Headers {
		name, value := h[0], h[1]
		switch name {
		case "destination":
			m.Topic = topicOfDestination(value)
		case "content-type":
			m.ContentType = value
		case "reply-to":
			m.ReplyTo = topicOfDestination(value)
		case "correlation-id":
			m.Correlation = []byte(value)
		case "correlation-id-base64":
			if m.Correlation, err = base64.StdEncoding.DecodeString(value); err != nil {
				return m, "", err
			}
		case "key":
			m.Key = value
		case "original-message-id":
			m.ID = value
		case "priority":
			m.Priority = value
		case "expires":
			ms, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return m, "", err
			}
			m.TTL = time.Until(time.UnixMilli(ms))
		case "retain", "retained":
			m.Retain = value == "true"
		case "offset":
			m.Offset = value
		case "attempt":
			m.Attempt = value
		case "ack":
			ack = value
		case "persistent", "message-id", "subscription", "content-length", "time", "redelivered", "publisher", "expiration":
		default:
			m.Headers = append(m.Headers, header{name, value})
		}
	}
	return m, ack, nil
}

// A stompDialer opens a STOMP connection of one library.
type stompDialer struct {
	driver func(testing.TB) *driver
	where  func(*broker) map[string]any
}

func stompOverTCP(b *broker) map[string]any {
	host, port := hostPort(b.STOMP)
	return map[string]any{"host": host, "port": port}
}

func stompOverWebSocket(b *broker) map[string]any {
	return map[string]any{"url": "ws://" + b.HTTP + "/stomp"}
}

var (
	stompPy     = stompDialer{stompPyDriver, stompOverTCP}
	stompJS     = stompDialer{nodeDriver, stompOverWebSocket}
	pageStompJS = stompDialer{browserDriver, stompOverWebSocket}
)

func (d stompDialer) dial(t testing.TB, b *broker, on func(event)) (*conn, error) {
	c, _, err := d.driver(t).connect("stomp.connect", d.where(b), on)
	return c, err
}

// publish opens a publisher. Each SEND waits for its RECEIPT.
func (d stompDialer) publish(t testing.TB, b *broker) (publishFunc, error) {
	c, err := d.dial(t, b, func(event) {})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.close() })
	return func(to address, m message) error {
		body := m.Payload
		if body == nil {
			body = []byte{}
		}
		_, err := c.call("stomp.send", map[string]any{"destination": stompDestination(to), "headers": stompHeaders(m), "body": body})
		return err
	}, nil
}

// receive opens a receiver. From a queue or a group it acknowledges each
// message by itself, or, in bulk, with one ACK all that have come.
func (d stompDialer) receive(t testing.TB, b *broker, s selection) (*inbox, error) {
	in := newInbox()
	acks := make(chan string, 1024)
	c, err := d.dial(t, b, func(e event) {
		switch e.Event {
		case "message":
			m, ack, err := stompMessage(e.Raw)
			if err != nil {
				in.fail(err)
				return
			}
			if ack == "" || s.hold {
				in.add(m)
				return
			}
			acks <- ack
			in.add(m)
		case "error":
			in.fail(fmt.Errorf("ERROR: %s", e.Raw))
		case "closed":
			in.fail(errClosed)
		}
	})
	if err != nil {
		return nil, err
	}
	acked := make(chan error, 1)
	go func() {
		var failed error
		for last := false; !last; {
			id := <-acks
			for last = id == ""; s.bulk && !last && len(acks) > 0; {
				if next := <-acks; next != "" {
					id = next
				} else {
					last = true
				}
			}
			if id == "" {
				break
			}
			if _, err := c.call("stomp.ack", map[string]any{"id": id}); err != nil && failed == nil {
				failed = err
			}
		}
		acked <- failed
	}()
	in.end = onceFunc(func() error {
		acks <- "" // behind the acknowledgements of all that was added
		err := <-acked
		return firstOf(err, c.close())
	})
	in.drop = c.drop
	for i, a := range s.from {
		headers := map[string]string{}
		if s.start != "" {
			headers["from"] = s.start
		}
		if s.group != "" {
			headers["group"] = s.group
			if s.ordered {
				headers["x-ordered"] = "true"
			}
		}
		if s.retained {
			headers["retained"] = "true"
		}
		ack := "auto"
		switch {
		case a.queue == "" && s.group == "":
		case s.bulk:
			ack, headers["prefetch-count"] = "client", "1000"
		default:
			ack = "client-individual"
		}
		args := map[string]any{"destination": stompDestination(a), "id": fmt.Sprintf("s%d", i), "ack": ack, "headers": headers}
		if _, err := c.call("stomp.subscribe", args); err != nil {
			return nil, err
		}
	}
	return in, nil
}
