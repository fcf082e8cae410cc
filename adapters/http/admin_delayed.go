package http

import (
	"encoding/base64"
	"encoding/json"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// delayedInfo describes a delayed message on this door.
type delayedInfo struct {
	Offset    core.Offset    `json:"offset"`
	Topic     string         `json:"topic"`
	Due       int64          `json:"due"`  // ms since 1970
	Time      int64          `json:"time"` // when it was published, or came last
	Bytes     int            `json:"bytes"`
	Type      string         `json:"type,omitempty"`
	Key       string         `json:"key,omitempty"`
	ID        string         `json:"id,omitempty"`
	Publisher *publisherInfo `json:"publisher,omitempty"`
	Again     *againInfo     `json:"again,omitempty"`
	// Message is the message in whole, where one is asked for.
	Message json.RawMessage `json:"message,omitempty"`
}

type publisherInfo struct {
	User   string `json:"user,omitempty"`
	Client string `json:"client,omitempty"`
	Via    string `json:"via,omitempty"`
}

// againInfo says how a delayed message comes again.
type againInfo struct {
	Cron   string `json:"cron,omitempty"`
	Delay  span   `json:"delay,omitempty"`
	Period span   `json:"period,omitempty"`
	Repeat int    `json:"repeat"` // after the first time, in each round; -1 for ever
	Left   int    `json:"left"`   // after the next time, in this round
}

// delayedOf describes a message, which need not live longer.
func delayedOf(m *core.DelayedMessage) delayedInfo {
	info := delayedInfo{
		Offset: m.Offset, Topic: strings.Clone(m.Topic), Due: m.DeliverAt.UnixMilli(), Time: m.Time.UnixMilli(), Bytes: len(m.Payload),
		Type: strings.Clone(m.ContentType), Key: strings.Clone(m.Key), ID: strings.Clone(m.ID),
	}
	if p := m.Publisher; p != (core.Publisher{}) {
		info.Publisher = &publisherInfo{strings.Clone(p.Principal), strings.Clone(p.Client), strings.Clone(p.Protocol)}
	}
	if s := m.Schedule; s != nil {
		info.Again = &againInfo{strings.Clone(s.Cron), span(s.Delay), span(s.Period), s.Repeat, s.Left()}
	}
	return info
}

// listDelayed is GET /v1/delayed: what waits for its time, what is due first
// first, those that ?filter= and ?where= pick. Payloads are left out.
func (s *Server) listDelayed(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, "filter", "where", "after", "limit")
	limit := q.int("limit", listPage, 1, listMost)
	pick := core.Selection{Where: q.where()}
	if q.has("filter") {
		pick.Filters = []core.Filter{q.pattern("")}
	}
	after, err := base64.RawURLEncoding.DecodeString(q.string("after"))
	if err != nil {
		q.bad("after", "what next said of the page before")
	}
	s.admin(w, r, nil, func(h *hold) error {
		if q.err != nil {
			return q.err
		}
		p := scanOf[delayedInfo]{Items: []delayedInfo{}}
		last := ""
		for m, err := range h.client.Delayed(r.Context(), pick, string(after)) {
			if err != nil {
				return err
			}
			if len(p.Items) == limit {
				p.Next = base64.RawURLEncoding.EncodeToString([]byte(last))
				break
			}
			last = m.Place
			p.Items = append(p.Items, delayedOf(m))
		}
		s.answerTagged(w, r, 200, p, tagOf(p))
		return nil
	})
}

// delayedAt is the offset that a path names.
func delayedAt(q *query) core.Offset {
	text := q.segment("offset")
	at, err := strconv.ParseUint(text, 10, 63)
	if err != nil || at == 0 {
		q.fail(badRequest.with("a delayed message is named by its offset, not " + quote(text)))
	}
	return core.Offset(at)
}

func noDelayed(at core.Offset) error {
	return notFound.with("no delayed message has the offset " + strconv.FormatUint(uint64(at), 10) + ": it has been published, or cancelled, or comes again under another offset")
}

// showDelayed is GET /v1/delayed/<offset>: one of them, with its payload.
func (s *Server) showDelayed(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r)
	at := delayedAt(&q)
	s.admin(w, r, nil, func(h *hold) error {
		if q.err != nil {
			return q.err
		}
		for m, err := range h.client.Delayed(r.Context(), core.Selection{Offsets: []core.Offset{at}}, "") {
			if err != nil {
				return err
			}
			info := delayedOf(m)
			text := adapters.AppendJSONDelivery(nil, &m.Delivery, time.Now())
			text[0] = '{' // a comma
			info.Message = append(text, '}')
			s.answerTagged(w, r, 200, info, tagOf(info))
			return nil
		}
		return noDelayed(at)
	})
}

// cancelOne is DELETE /v1/delayed/<offset>.
func (s *Server) cancelOne(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r)
	at := delayedAt(&q)
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	got, err := h.client.Cancel(r.Context(), core.Selection{Offsets: []core.Offset{at}}, false)
	if err != nil {
		return err
	}
	if got.Messages == 0 {
		return noDelayed(at)
	}
	s.answerNothing(w)
	return nil
}

// cancelDelayed is POST /v1/delayed/cancel, for a selection.
func (s *Server) cancelDelayed(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in selection
	s.admin(w, r, &in, func(h *hold) error {
		pick, err := in.core()
		if err != nil {
			return err
		}
		got, err := h.client.Cancel(r.Context(), pick, in.DryRun)
		return s.answerSifted(w, got, in.DryRun, err)
	})
}
