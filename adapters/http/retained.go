package http

import (
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// readRetained is GET /last/<topic>: the topic's retained value as it is, or in
// the form asked for; with a filter, the values that it matches, by topic.
func (s *Server) readRetained(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r, "format", "limit", "after")
	filter := q.filter("/last/")
	form := formRaw
	if !filter.Exact() || q.has("format") || !anything(r) {
		form = q.form()
	}
	limit := q.int("limit", mostMessages, 1, mostMessages)
	if form == formStream {
		q.fail(notAcceptable.with("stream a filter with its retained values at /sse/…?retained"))
	}
	if form >= formEvent {
		return s.readRetainedEvents(w, r, &q, filter, form, limit)
	}
	if form == formRaw && !filter.Exact() {
		q.fail(notAcceptable.with("a filter's values are more than one message"))
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	now := time.Now()
	var body []byte
	n, more := 0, false
	if form == formJSON {
		body = append(body, `{"messages":[`...)
	}
	last := ""
	for d, err := range h.client.Retained(r.Context(), filter, q.string("after")) {
		if err != nil {
			return err
		}
		if n == limit || len(body) > pageBytes {
			more = true
			break
		}
		n++
		last = strings.Clone(d.Topic)
		if form == formRaw {
			if s.answerByTag(w, r, tagOfValue(d.Offset)) {
				return nil
			}
			s.metrics.Sent.Inc()
			s.answerRaw(w, d, now)
			return nil
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
		return notFound.with("the topic " + quote(string(filter)) + " has no retained value")
	}
	if form == formJSON {
		body = append(body, "]}\n"...)
	}
	header := w.Header()
	header["Cache-Control"] = noStore
	if more {
		header["X-More"] = []string{"true"}
		q.set("after", last)
		header["Link"] = []string{q.link("next")}
	}
	s.metrics.Sent.Add(float64(n))
	s.answer(w, form, body)
	return nil
}

// readRetainedEvents answers with retained values as CloudEvents.
func (s *Server) readRetainedEvents(w nethttp.ResponseWriter, r *nethttp.Request, q *query, filter core.Filter, form form, limit int) error {
	if form == formEvent && !filter.Exact() {
		q.fail(notAcceptable.with("a filter's values are more than one event"))
	}
	h, err := s.begin(r, q)
	if err != nil {
		return err
	}
	defer h.release()
	var ds []core.Delivery
	size := 0
	for d, err := range h.client.Retained(r.Context(), filter, q.string("after")) {
		if err != nil {
			return err
		}
		if len(ds) == limit || size > pageBytes {
			w.Header()["X-More"] = []string{"true"}
			q.set("after", ds[len(ds)-1].Topic)
			w.Header()["Link"] = []string{q.link("next")}
			break
		}
		ds = append(ds, d.Clone())
		size += d.Size()
	}
	if len(ds) == 0 && filter.Exact() {
		return notFound.with("the topic " + quote(string(filter)) + " has no retained value")
	}
	w.Header()["Cache-Control"] = noStore
	s.metrics.Sent.Add(float64(len(ds)))
	s.answerEvents(w, form, ds)
	return nil
}

// tagOfValue is the entity tag of a retained value as it is: no two have the same
// offset.
func tagOfValue(at core.Offset) string { return `"` + strconv.FormatUint(uint64(at), 10) + `"` }

// anything reports whether a request does not say what it accepts.
func anything(r *nethttp.Request) bool {
	a := r.Header["Accept"]
	return len(a) == 0 || len(a) == 1 && a[0] == "*/*"
}

// clearRetained is DELETE /last/<topic>: as on every protocol, an empty message
// that is retained removes the value.
func (s *Server) clearRetained(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r)
	e := core.Envelope{Topic: q.topic("/last/"), Retain: true, Guarantee: core.AtLeastOnce}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	if r.Header["If-Match"] != nil || r.Header["If-None-Match"] != nil {
		tag := ""
		for d, err := range h.client.Retained(r.Context(), core.Filter(e.Topic), "") {
			if err != nil {
				return err
			}
			tag = tagOfValue(d.Offset)
		}
		if err := checkMatch(r, tag); err != nil {
			return err
		}
	}
	if _, err := h.publishAndWait(r.Context(), &e); err != nil {
		return err
	}
	s.answerNothing(w)
	return nil
}
