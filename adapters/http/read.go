package http

import (
	"context"
	nethttp "net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Bounds of a read: how many messages it gives where it does not say, with and
// without a start, how many at the most, and how many bytes of them.
const (
	lastMessages = 20
	pageMessages = 100
	mostMessages = 10_000
	pageBytes    = 4 << 20
)

// readTopic is GET /t/<filter>: one finite read, a long poll, or with a group
// leases of what the group has not had.
func (s *Server) readTopic(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r, "from", "until", "limit", "where", "wait", "format", "group", "ordered", "for", "settle", "retained")
	form := q.form()
	if q.err == nil && form == formStream {
		return s.streamFilter(w, r, "/t/", q)
	}
	filter := q.filter("/t/")
	if q.has("group") {
		return s.leaseGroup(w, r, filter, form, q)
	}
	q.refuse("goes with group", "for", "settle", "ordered")
	q.refuse("goes with a stream; retained values are at /last/", "retained")
	return s.readPage(w, r, form, q, func(ctx context.Context, h *hold, rq core.ReadRequest) (core.Page, error) {
		rq.Filters = []core.Filter{filter}
		return h.client.Read(ctx, rq)
	})
}

// browse is GET /q/<queue>: what the queue has not settled. It changes nothing.
func (s *Server) browse(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r, "from", "limit", "where", "format")
	queue := q.queue()
	form := q.form()
	if form == formStream {
		q.fail(notAcceptable.with("a queue has no stream of events: lease its messages, or stream a group"))
	}
	if !q.has("from") {
		q.set("from", "earliest")
	}
	return s.readPage(w, r, form, q, func(ctx context.Context, h *hold, rq core.ReadRequest) (core.Page, error) {
		if f := rq.From.String(); f != "earliest" && !('0' <= f[0] && f[0] <= '9') {
			return core.Page{}, badFrom.with("a queue is browsed from earliest or from an offset")
		}
		return h.client.Browse(ctx, queue, rq)
	})
}

// readPage reads one page and answers with it.
func (s *Server) readPage(w nethttp.ResponseWriter, r *nethttp.Request, form form, q query, read func(context.Context, *hold, core.ReadRequest) (core.Page, error)) error {
	rq := core.ReadRequest{Until: q.offset("until"), Where: q.where(), Wait: q.duration("wait", longestWait), MaxBytes: pageBytes}
	switch {
	case q.has("from"):
		rq.From = q.from(core.Latest)
		rq.Limit = q.int("limit", pageMessages, 1, mostMessages)
	case rq.Wait > 0:
		rq.From = core.Latest
		rq.Limit = q.int("limit", pageMessages, 1, mostMessages)
	default:
		rq.Limit = q.int("limit", lastMessages, 1, mostMessages)
		rq.From = core.FromLast(rq.Limit)
	}
	if form == formRaw || form == formEvent {
		if !q.has("from") && rq.Wait == 0 {
			rq.From = core.FromLast(1)
		}
		rq.Limit = 1
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	ctx, cancel := s.waiting(r)
	defer cancel()
	page, err := read(ctx, h, rq)
	if err != nil && !(s.stopping.Err() != nil && ctx.Err() != nil) {
		return err
	}
	if page.Next == 0 { // stopped before it began
		return &shuttingDown
	}
	s.metrics.Sent.Add(float64(len(page.Messages)))
	s.answerPage(w, form, q, page)
	return nil
}

// waiting is a request's context that also ends when the server stops, for
// what may wait long.
func (s *Server) waiting(r *nethttp.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.stopping, cancel)
	return ctx, func() { stop(); cancel() }
}

// answerPage answers with a page, and where to go on.
func (s *Server) answerPage(w nethttp.ResponseWriter, form form, q query, page core.Page) {
	h := w.Header()
	next := strconv.FormatUint(uint64(page.Next), 10)
	h["X-Next"] = []string{next}
	q.set("from", next)
	h["Link"] = []string{q.link("next")}
	if page.More {
		h["X-More"] = []string{"true"}
	}
	for _, g := range page.Gaps {
		h["X-Gap"] = append(h["X-Gap"], strconv.FormatUint(uint64(g.From), 10)+"-"+strconv.FormatUint(uint64(g.To-1), 10))
	}
	h["Cache-Control"] = noStore
	now := time.Now()
	if form == formRaw {
		if len(page.Messages) == 0 {
			s.answerNothing(w)
			return
		}
		s.answerRaw(w, &page.Messages[0], now)
		return
	}
	if form == formEvent || form == formEvents {
		s.answerEvents(w, form, page.Messages)
		return
	}
	body := make([]byte, 0, 256*len(page.Messages)+64)
	if form == formJSON {
		body = append(body, `{"messages":[`...)
	}
	for i := range page.Messages {
		if i > 0 && form == formJSON {
			body = append(body, ',')
		}
		body = appendMessage(body, &page.Messages[i], nil, now)
		if form == formLines {
			body = append(body, '\n')
		}
	}
	if form == formJSON {
		body = append(append(body, `],"next":`...), next...)
		body = append(strconv.AppendBool(append(body, `,"more":`...), page.More), `,"gaps":[`...)
		for i, g := range page.Gaps {
			if i > 0 {
				body = append(body, ',')
			}
			body = appendGap(body, g.From, g.To)
		}
		body = append(body, "]}\n"...)
	}
	s.answer(w, form, body)
}

// appendGap appends a range of offsets that are not there any more, to
// exclusive.
func appendGap(dst []byte, from, to core.Offset) []byte {
	dst = strconv.AppendUint(append(dst, `{"from":`...), uint64(from), 10)
	dst = strconv.AppendUint(append(dst, `,"to":`...), uint64(to), 10)
	return append(dst, '}')
}

// answer writes a finite answer in a form, with a write deadline that its size
// allows for.
func (s *Server) answer(w nethttp.ResponseWriter, form form, body []byte) error {
	h := w.Header()
	h["Content-Type"] = []string{formTypes[form]}
	body = compress(w, body)
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["X-Content-Type-Options"] = nosniff
	return s.writeAll(w, body)
}

// answerNothing answers 204.
func (s *Server) answerNothing(w nethttp.ResponseWriter) {
	if s.writeUntil(w) == nil {
		w.WriteHeader(nethttp.StatusNoContent)
	}
}

// answerRaw answers with one message as it is: its payload, and the rest in the
// header. A browser must neither guess at a payload nor run it.
func (s *Server) answerRaw(w nethttp.ResponseWriter, d *core.Delivery, now time.Time) error {
	h := w.Header()
	s.writeFields(h, d, now)
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = nosniff
	h["Content-Security-Policy"] = []string{"default-src 'none'; sandbox"}
	body := d.Payload
	if isText(d.ContentType) {
		body = compress(w, body)
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	return s.writeAll(w, body)
}

var (
	noStore = []string{"no-store"}
	nosniff = []string{"nosniff"}
)

// A form is how messages stand in an answer.
type form uint8

const (
	formLines form = iota
	formJSON
	formRaw
	formStream
	formEvent
	formEvents
)

const typeLines = "application/x-ndjson"

var formTypes = [...]string{formLines: typeLines, formJSON: "application/json", formRaw: "", formStream: "text/event-stream", formEvent: typeEvent, formEvents: typeEvents}

// formOf is the form that a request asks for, by ?format= or else by Accept
// (RFC 9110, 12.5.1), lines where it does not say.
func formOf(r *nethttp.Request, q *query) (form, error) {
	if q.err != nil {
		return 0, q.err
	}
	if q.has("format") {
		switch q.string("format") {
		case "ndjson":
			return formLines, nil
		case "json":
			return formJSON, nil
		case "raw":
			return formRaw, nil
		case "sse":
			return formStream, nil
		case "cloudevent":
			return formEvent, nil
		case "cloudevents":
			return formEvents, nil
		}
		return 0, badRequest.with("format=" + quote(q.string("format")) + ": want ndjson, json, raw, sse, cloudevent or cloudevents")
	}
	accept := r.Header["Accept"]
	if len(accept) == 0 || len(accept) == 1 && accept[0] == "*/*" {
		return formLines, nil
	}
	best, quality := formLines, 0.0
	anyWeight := 0.0
	var named []form
	for _, v := range accept {
		for part := range strings.SplitSeq(v, ",") {
			media, params, _ := strings.Cut(part, ";")
			media = strings.ToLower(strings.TrimSpace(media))
			weight := weightOf(params)
			if media == "*/*" || media == "application/*" {
				anyWeight = max(anyWeight, weight)
				continue
			}
			f, ok := formOfType(media)
			if !ok {
				continue
			}
			named = append(named, f)
			if weight > quality {
				best, quality = f, weight
			}
		}
	}
	// A range is for what is not named itself.
	for _, f := range []form{formLines, formJSON, formRaw} {
		if anyWeight > quality && !slices.Contains(named, f) {
			best, quality = f, anyWeight
		}
	}
	if quality == 0 {
		return 0, notAcceptable.with("Accept: " + quote(strings.Join(accept, ", ")))
	}
	return best, nil
}

func formOfType(media string) (form, bool) {
	switch media {
	case typeLines, "application/ndjson", "application/jsonl":
		return formLines, true
	case "application/json":
		return formJSON, true
	case "text/event-stream":
		return formStream, true
	case typeEvent:
		return formEvent, true
	case typeEvents:
		return formEvents, true
	case "application/octet-stream", "text/plain", "text/*":
		return formRaw, true
	}
	return 0, false
}

// weightOf is the q of an Accept's parameters.
func weightOf(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") {
			q, err := strconv.ParseFloat(value, 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}
