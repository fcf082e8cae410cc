package http

import (
	nethttp "net/http"
	"time"

	"github.com/sluicemq/sluice/core"
)

// readRetained is GET /last/<topic>: the topic's retained value as it is, or in
// the form asked for; with a filter, the values that it matches, by topic.
func (s *Server) readRetained(w nethttp.ResponseWriter, r *nethttp.Request) {
	filter, err := filterOf(r, "/last/")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q := queryOf(r, "format", "limit")
	form, err := formOf(r, &q)
	if filter.Exact() && !q.has("format") && len(r.Header["Accept"]) <= 1 && anything(r) {
		form, err = formRaw, q.err
	}
	limit := q.int("limit", mostMessages, 1, mostMessages)
	if err == nil {
		err = q.err
	}
	if err == nil && form == formStream {
		err = notAcceptable.with("stream a filter with its retained values at /sse/…?retained")
	}
	if err == nil && form == formRaw && !filter.Exact() {
		err = notAcceptable.with("a filter's values are more than one message")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h, err := s.connect(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer h.release()
	now := time.Now()
	var body []byte
	n, more := 0, false
	if form == formJSON {
		body = append(body, `{"messages":[`...)
	}
	for d, err := range h.client.Retained(r.Context(), filter) {
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if n == limit || len(body) > pageBytes {
			more = true
			break
		}
		n++
		if form == formRaw {
			s.metrics.Sent.Inc()
			s.answerRaw(w, d, now)
			return
		}
		if n > 1 && form == formJSON {
			body = append(body, ',')
		}
		body = appendMessage(body, d, nil, now)
		if form == formLines {
			body = append(body, '\n')
		}
	}
	if n == 0 && filter.Exact() {
		s.fail(w, r, notFound.with("the topic "+quote(string(filter))+" has no retained value"))
		return
	}
	if form == formJSON {
		body = append(body, "]}\n"...)
	}
	header := w.Header()
	header["Cache-Control"] = noStore
	if more {
		header["X-More"] = []string{"true"}
	}
	s.metrics.Sent.Add(float64(n))
	s.answer(w, form, body)
}

// anything reports whether a request does not say what it accepts.
func anything(r *nethttp.Request) bool {
	a := r.Header["Accept"]
	return len(a) == 0 || a[0] == "*/*"
}

// clearRetained is DELETE /last/<topic>: as on every protocol, an empty message
// that is retained removes the value.
func (s *Server) clearRetained(w nethttp.ResponseWriter, r *nethttp.Request) {
	topic, err := topicOf(r, "/last/")
	if q := queryOf(r); err == nil {
		err = q.err
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h, err := s.connect(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer h.release()
	wait := h.wait()
	defer wait.end()
	e := core.Envelope{Topic: topic, Retain: true, Guarantee: core.AtLeastOnce}
	err = h.publish(r.Context(), &e, wait.first)
	if err == nil {
		var c core.Confirmation
		if c, err = wait.one(r.Context()); err == nil {
			err = c.Err
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.answerNothing(w)
}
