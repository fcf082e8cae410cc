package clienttest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// This file says a message in HTTP's words: paths and header fields.

// levelsPath percent-encodes a topic or filter level by level.
func levelsPath(topic string) string {
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		levels[i] = url.PathEscape(l)
	}
	return strings.Join(levels, "/")
}

// publishPath is where m is posted to.
func publishPath(to address, m message) string {
	path := "/t/" + levelsPath(to.topic)
	if to.queue != "" {
		path = "/q/" + url.PathEscape(to.queue)
	}
	if m.Retain {
		path += "?retain"
	}
	return path
}

// withQuery appends parameters that are set.
func withQuery(path string, parameters ...string) string {
	q := make(url.Values)
	for i := 0; i < len(parameters); i += 2 {
		if parameters[i+1] != "" {
			q.Set(parameters[i], parameters[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// ssePath is the event stream of a selection's address.
func ssePath(a address, s selection) string {
	retained, ordered := "", ""
	if s.retained {
		retained = "true"
	}
	if s.ordered {
		ordered = "true"
	}
	return withQuery("/sse/"+levelsPath(a.topic), "format", "json", "from", s.start, "group", s.group, "ordered", ordered, "retained", retained)
}

// httpHeaders are the header fields of a POST of m.
func httpHeaders(m message) []header {
	var out []header
	set := func(name, value string) {
		if value != "" {
			out = append(out, header{name, value})
		}
	}
	set("Content-Type", m.ContentType)
	if len(m.Headers) > 0 {
		all, err := json.Marshal(pairs(m.Headers))
		if err != nil {
			panic(err)
		}
		set("X-Headers", string(all))
	}
	set("X-Reply-To", m.ReplyTo)
	if utf8.Valid(m.Correlation) {
		set("X-Correlation-Id", string(m.Correlation))
	} else {
		set("X-Correlation-Id-Base64", base64.StdEncoding.EncodeToString(m.Correlation))
	}
	set("X-Key", m.Key)
	set("X-Priority", m.Priority)
	set("Idempotency-Key", m.ID)
	if m.TTL > 0 {
		set("X-TTL", m.TTL.String())
	}
	return out
}

// rawMessage reads an answer that is one message: its payload, and the rest in
// the header.
func rawMessage(h http.Header, payload []byte) (m message, err error) {
	text := func(name string) string {
		v := h.Get(name)
		if extended := h.Get(name + "*"); extended != "" {
			// RFC 8187, section 3.2.
			escaped, ok := strings.CutPrefix(extended, "UTF-8''")
			if !ok {
				err = fmt.Errorf("%s*: %s is not UTF-8", name, extended)
			}
			v, err = firstText(url.PathUnescape(escaped))
		}
		return v
	}
	m = message{
		Topic: text("X-Topic"), Payload: payload, ContentType: h.Get("Content-Type"), ReplyTo: text("X-Reply-To"),
		Key: text("X-Key"), ID: text("Idempotency-Key"), Priority: h.Get("X-Priority"),
		Offset: h.Get("X-Offset"), Attempt: h.Get("X-Attempt"), Correlation: []byte(h.Get("X-Correlation-Id")),
	}
	if b := h.Get("X-Correlation-Id-Base64"); b != "" {
		if m.Correlation, err = base64.StdEncoding.DecodeString(b); err != nil {
			return m, err
		}
	}
	if ttl := h.Get("X-TTL"); ttl != "" {
		if m.TTL, err = time.ParseDuration(ttl); err != nil {
			return m, err
		}
	}
	if all := h.Get("X-Headers"); all != "" {
		o := jsonObject{H: json.RawMessage(all)}
		if err := o.headers(&m); err != nil {
			return m, err
		}
	} else {
		for name, values := range h {
			if n, ok := strings.CutPrefix(name, "X-H-"); ok {
				for _, v := range values {
					m.Headers = append(m.Headers, header{strings.ToLower(n), v})
				}
			}
		}
	}
	return m, err
}

func firstText(s string, err error) (string, error) { return s, err }

// ms is a time in milliseconds as a query has it.
func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + "ms" }

// queuePath is a queue's name as one path segment.
func queuePath(queue string) string { return url.PathEscape(queue) }

// jsonLease reads a line that has a lease.
func jsonLease(line []byte) (message, string, error) {
	var o jsonObject
	if err := json.Unmarshal(line, &o); err != nil {
		return message{}, "", fmt.Errorf("%w: %.200s", err, line)
	}
	m, err := o.message()
	if err == nil && o.Lease == "" {
		err = fmt.Errorf("no lease: %.200s", line)
	}
	return m, o.Lease, err
}
