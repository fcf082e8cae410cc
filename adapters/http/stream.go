package http

import (
	"errors"
	nethttp "net/http"
	"strconv"
	"time"

	"github.com/sluicemq/sluice/core"
)

// retryAfter is how long a browser waits before it comes again (HTML standard,
// 9.2.6).
const retryAfter = 2 * time.Second

// streamTopic is GET /sse/<filter>.
func (s *Server) streamTopic(w nethttp.ResponseWriter, r *nethttp.Request) error {
	return s.streamFilter(w, r, "/sse/", queryOf(r, "from", "group", "ordered", "where", "format", "retained"))
}

// streamFilter answers with the events of a filter until the peer or the server
// ends it.
func (s *Server) streamFilter(w nethttp.ResponseWriter, r *nethttp.Request, prefix string, q query) error {
	filter := q.filter(prefix)
	e := &s.texts
	if !filter.Exact() {
		e = &s.topicTexts
	}
	switch q.string("format") {
	case "", "text", "sse":
	case "json":
		e = &s.objects
	default:
		q.bad("format", "text or json")
	}
	q.refuse("does not go with a stream", "until", "limit", "wait", "for", "settle")
	st := &stream{s: s, events: e, group: q.has("group"), chunked: r.ProtoAtLeast(1, 1)}
	if st.group && r.Method == nethttp.MethodHead {
		return headOfGroup(w)
	}
	where := q.where()
	retained := q.flag("retained", false)
	from := q.from(core.Latest)
	resumed := false
	last := ""
	if v := r.Header["Last-Event-Id"]; len(v) > 0 {
		var err error
		if last, err = one("Last-Event-ID", v); err != nil {
			q.fail(err)
		}
	}
	if last != "" && !st.group {
		// A browser that comes again asks for the same address, so this is
		// newer than from.
		n, err := strconv.ParseUint(last, 10, 63)
		if err != nil {
			q.fail(badFrom.with("Last-Event-ID: " + quote(last) + " is not the offset of an event"))
		}
		from, resumed, retained = core.FromOffset(core.Offset(n+1)), true, false
	}
	if st.group && retained {
		q.fail(badRequest.with("retained does not go with group"))
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	if st.client = h.client; !h.own {
		peerOf(r).let() // it has no other request any more
	}
	k, err := s.openStream(r, st, &q, filter, from, resumed, retained, where)
	if err != nil || r.Method == nethttp.MethodHead {
		st.client.Close()
		if err == nil {
			k.Close()
			setStreamHeader(w.Header())
		}
		return err
	}
	st.consumer = k
	return st.begin(w, r)
}

// openStream attaches a stream to what it streams.
func (s *Server) openStream(r *nethttp.Request, st *stream, q *query, filter core.Filter, from core.From, resumed, retained bool, where string) (*core.Consumer, error) {
	if st.group {
		c, err := q.consumption(filter, from)
		if err != nil {
			return nil, err
		}
		c.Where = where
		return st.client.Consume(r.Context(), c, st)
	}
	sub := core.Subscription{Bindings: []core.Binding{{Filter: filter, Where: where}}, From: from, Retained: retained}
	k, err := st.client.Subscribe(r.Context(), sub, st)
	var outside *core.OffsetRemovedError
	if resumed && errors.As(err, &outside) && outside.Offset < outside.Earliest {
		// A browser gives up where it is refused. It is told what it missed
		// instead, and gets the rest.
		st.Notice(core.Notice{Kind: core.NoticeGap, From: outside.Offset, To: outside.Earliest})
		sub.From = core.FromOffset(outside.Earliest)
		return st.client.Subscribe(r.Context(), sub, st)
	}
	return k, err
}

// setStreamHeader sets the header of an answer that is a stream.
func setStreamHeader(h nethttp.Header) {
	h["Content-Type"] = []string{formTypes[formStream]}
	h["Cache-Control"] = noStore
	h["X-Accel-Buffering"] = []string{"no"} // nginx
	h["X-Content-Type-Options"] = nosniff
}
