package http

import (
	"mime"
	nethttp "net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A publishing is what one publish needs, used again and again.
type publishing struct {
	envelope core.Envelope
	body     []byte
	answer   []byte
}

var publishings = sync.Pool{New: func() any { return &publishing{body: make([]byte, 0, 1<<10)} }}

// keepBody is how large a buffer may be that waits for its next use.
const keepBody = 64 << 10

func (p *publishing) end() {
	clear(p.envelope.Headers)
	p.envelope = core.Envelope{Headers: p.envelope.Headers[:0]}
	if cap(p.body) <= keepBody {
		p.body, p.answer = p.body[:0], p.answer[:0]
		publishings.Put(p)
	}
}

// publishTopic is POST /t/<topic>.
func (s *Server) publishTopic(w nethttp.ResponseWriter, r *nethttp.Request) error {
	topic, err := topicOf(r, "/t/")
	return s.publish(w, r, topic, err)
}

// publishLines is POST /t: a batch whose lines name their topics.
func (s *Server) publishLines(w nethttp.ResponseWriter, r *nethttp.Request) error {
	if !isLines(r) {
		return wrongType.with("without a topic in the path, the body is lines of JSON (Content-Type: application/x-ndjson) that name their topics")
	}
	return s.publish(w, r, "", nil)
}

// publishQueue is POST /q/<queue>.
func (s *Server) publishQueue(w nethttp.ResponseWriter, r *nethttp.Request) error {
	queue, err := queueOf(r)
	return s.publish(w, r, core.QueueTopic(queue), err)
}

// publishExchange is POST /x/<exchange>/<key>. The key is the rest of the path;
// as it is no topic, a %2F in it is a slash like any other.
func (s *Server) publishExchange(w nethttp.ResponseWriter, r *nethttp.Request) error {
	exchange, err := exchangeOf(r)
	if err != nil {
		return err
	}
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	prefix := path
	if i := strings.IndexByte(path[len("/x/"):], '/'); i >= 0 {
		prefix = path[:len("/x/")+i+1]
	}
	key, err := rest(r, prefix, false)
	return s.publish(w, r, core.ExchangeTopic(exchange, key), err)
}

// isLines reports whether a request's body is lines of JSON.
func isLines(r *nethttp.Request) bool {
	v := r.Header["Content-Type"]
	if len(v) == 0 || !containsFold(v[0], "json") {
		return false
	}
	media, _, err := mime.ParseMediaType(v[0])
	return err == nil && (media == typeLines || media == "application/ndjson" || media == "application/jsonl")
}

// publish publishes a request's body to a topic and answers once it is durable,
// unless the request wants less. err is what was wrong with its path.
func (s *Server) publish(w nethttp.ResponseWriter, r *nethttp.Request, topic string, err error) error {
	q := queryOf(r, "retain", "durable", "mandatory", "reply", "batch", "atomic")
	if err != nil {
		q.fail(err)
	}
	if isLines(r) && q.flag("batch", true) {
		return s.publishBatch(w, r, topic, q)
	}
	event, events := isEvent(r)
	if events {
		return s.publishEvents(w, r, topic, q)
	}
	p := publishings.Get().(*publishing)
	defer p.end()
	e := &p.envelope
	e.Topic, e.Guarantee = topic, core.AtLeastOnce
	e.Retain = q.flag("retain", false)
	e.Mandatory = q.flag("mandatory", q.has("reply"))
	if !q.flag("durable", true) {
		e.Guarantee = core.AtMostOnce
	}
	reply := q.duration("reply", longestWait)
	q.refuse("goes with a batch of lines", "atomic")
	if err := readFields(r, e); err != nil {
		q.fail(err)
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	limit := s.limits.MessageBytes
	if event {
		limit = s.lineBytes()
	}
	if p.body, err = s.readBody(w, r, p.body, limit); err != nil {
		return err
	}
	if e.Payload = p.body; event {
		if err := p.takeEvent(); err != nil {
			return err
		}
	}
	s.metrics.Received.Inc()
	switch {
	case q.has("reply"):
		return s.request(w, r, h, e, reply)
	case e.Guarantee == core.AtMostOnce:
		return s.publishAsync(w, r, h, p, false)
	case prefersAsync(r):
		return s.publishAsync(w, r, h, p, true)
	}
	return s.publishDurably(w, r, h, p)
}

// publishDurably answers 201 once the message is durable, or 200 where it
// repeats one that was.
func (s *Server) publishDurably(w nethttp.ResponseWriter, r *nethttp.Request, h *hold, p *publishing) error {
	c, err := h.publishAndWait(r.Context(), &p.envelope)
	if err != nil {
		return err
	}
	status := nethttp.StatusCreated
	header := w.Header()
	header["Content-Type"] = jsonTypes
	p.answer = strconv.AppendUint(p.answer[:0], uint64(c.Offset), 10)
	header["X-Offset"] = []string{string(p.answer)}
	if c.Duplicate {
		status = nethttp.StatusOK
		header["X-Duplicate"] = []string{"true"}
	}
	p.answer = appendResult(p.answer[:0], p.envelope.Topic, c)
	if s.writeUntil(w) == nil {
		w.WriteHeader(status)
		w.Write(append(p.answer, '\n'))
	}
	return nil
}

var jsonTypes = []string{"application/json"}

// appendResult appends what became of one publish that was confirmed.
func appendResult(dst []byte, topic string, c core.Confirmation) []byte {
	dst = append(dst, `{"t":`...)
	dst = adapters.AppendJSONString(dst, topic)
	dst = append(dst, `,"o":`...)
	dst = strconv.AppendUint(dst, uint64(c.Offset), 10)
	if c.Duplicate {
		dst = append(dst, `,"dup":true`...)
	}
	return append(dst, '}')
}

// prefersAsync reports whether the client would rather not wait (RFC 7240,
// 4.1).
func prefersAsync(r *nethttp.Request) bool {
	for _, v := range r.Header["Prefer"] {
		for p := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(p), "respond-async") {
				return true
			}
		}
	}
	return false
}

// publishAsync answers 202 once the message is taken, before it is durable.
func (s *Server) publishAsync(w nethttp.ResponseWriter, r *nethttp.Request, h *hold, p *publishing, preferred bool) error {
	if err := h.publish(r.Context(), &p.envelope, 0); err != nil {
		return err
	}
	header := w.Header()
	header["Content-Type"] = jsonTypes
	if preferred {
		header["Preference-Applied"] = []string{"respond-async"}
	}
	p.answer = append(p.answer[:0], `{"t":`...)
	p.answer = append(adapters.AppendJSONString(p.answer, p.envelope.Topic), "}\n"...)
	if s.writeUntil(w) == nil {
		w.WriteHeader(nethttp.StatusAccepted)
		w.Write(p.answer)
	}
	return nil
}
