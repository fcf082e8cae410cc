package http

import (
	"context"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// lease is POST /q/<queue>/lease: messages of a queue for a time, each with a
// token to settle it by.
func (s *Server) lease(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r, "max", "where", "wait", "for", "settle", "format")
	c := core.Consumption{Queue: q.queue(), Create: true}
	return s.takeLeases(w, r, c, q.int("max", 1, 1, s.limits.MaxInFlight), q.form(), q)
}

// leaseGroup is GET /t/<filter>?group=<name>: likewise of a group, which is made
// by its first member and begins where that one says.
func (s *Server) leaseGroup(w nethttp.ResponseWriter, r *nethttp.Request, f core.Filter, form form, q query) error {
	if r.Method == nethttp.MethodHead {
		return headOfGroup(w)
	}
	q.refuse("does not go with group", "until", "retained")
	c, err := q.consumption(f, q.from(core.Latest))
	if err != nil {
		q.fail(err)
	}
	return s.takeLeases(w, r, c, q.int("limit", min(lastMessages, s.limits.MaxInFlight), 1, s.limits.MaxInFlight), form, q)
}

// headOfGroup refuses HEAD where GET takes messages.
func headOfGroup(w nethttp.ResponseWriter) error {
	w.Header().Set("Allow", "GET")
	return wrongMethod.with("HEAD takes nothing from a group")
}

// consumption is how a member of the group that is named attaches to its queue.
func (q *query) consumption(f core.Filter, from core.From) (core.Consumption, error) {
	group := q.string("group")
	if group == "" || strings.ContainsAny(group, "/+#") {
		return core.Consumption{}, badRequest.with("a group's name is not empty and has no slash, + or #")
	}
	if err := checkText(group); err != nil {
		return core.Consumption{}, err
	}
	settings := core.DefaultGroupSettings()
	if settings.Ordered = q.flag("ordered", false); q.err != nil {
		return core.Consumption{}, q.err
	}
	return core.Consumption{
		Queue: core.GroupQueue(group, f), Create: true, Settings: &settings,
		Bindings: []core.Binding{{Filter: f, Settlement: core.SettleAlways}}, From: from, Settlement: core.SettleAlways,
	}, nil
}

// takeLeases takes leases and answers with them. With settle=auto they are
// accepted once the answer is written.
func (s *Server) takeLeases(w nethttp.ResponseWriter, r *nethttp.Request, c core.Consumption, most int, form form, q query) error {
	c.Where = q.where()
	lq := core.LeaseRequest{Consumption: c, Max: most, Wait: q.duration("wait", longestWait), For: q.duration("for", longestLease)}
	if form == formRaw {
		lq.Max = 1
	}
	auto := q.string("settle") == "auto"
	if q.has("settle") && !auto {
		q.bad("settle", "auto")
	}
	if form >= formStream {
		q.fail(notAcceptable.with("a lease is answered as lines, as JSON or as one raw message"))
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	ctx, cancel := s.waiting(r)
	leases, err := h.client.Lease(ctx, lq)
	cancel()
	if err != nil && s.stopping.Err() != nil {
		err = &shuttingDown
	}
	if err != nil {
		return err
	}
	s.metrics.Sent.Add(float64(len(leases)))
	written := s.answerLeases(w, form, leases)
	switch {
	case written == nil && !auto:
	case written != nil:
		// Nobody has them: let somebody else, at once.
		s.endLeases(r, h, leases, core.Released, core.SettleOptions{Delay: core.NoDelay})
	default:
		s.endLeases(r, h, leases, core.Accepted, core.SettleOptions{})
	}
	return nil
}

func (s *Server) endLeases(r *nethttp.Request, h *hold, leases []core.Lease, o core.Outcome, opts core.SettleOptions) {
	all := make([]core.LeaseSettling, len(leases))
	for i := range leases {
		all[i] = core.LeaseSettling{Token: leases[i].Token, Outcome: o, Options: opts}
	}
	// It is done for the queue, also where the peer has gone.
	for _, err := range h.client.SettleLeases(context.WithoutCancel(r.Context()), all) {
		if err != nil {
			s.log.Debug("lease not settled", "err", err)
		}
	}
}

func (s *Server) answerLeases(w nethttp.ResponseWriter, form form, leases []core.Lease) error {
	h := w.Header()
	h["Cache-Control"] = noStore
	now := time.Now()
	if form == formRaw {
		if len(leases) == 0 {
			s.answerNothing(w)
			return nil
		}
		h["X-Lease"] = []string{leases[0].Token}
		h["X-Lease-Until"] = []string{leases[0].Until.UTC().Format(timeLayout)}
		if err := s.answerRaw(w, &leases[0].Delivery, now); err != nil {
			return err
		}
		return nethttp.NewResponseController(w).Flush()
	}
	body := make([]byte, 0, 384*len(leases)+32)
	if form == formJSON {
		body = append(body, `{"messages":[`...)
	}
	for i := range leases {
		if i > 0 && form == formJSON {
			body = append(body, ',')
		}
		body = appendMessage(body, &leases[i].Delivery, &leases[i], now)
		if form == formLines {
			body = append(body, '\n')
		}
	}
	if form == formJSON {
		body = append(body, "]}\n"...)
	}
	if err := s.answer(w, form, body); err != nil {
		return err
	}
	return nethttp.NewResponseController(w).Flush()
}

// A settling is what a settle request says: in the query of POST
// /lease/<token>/<verb>, or as a line of POST /lease.
type settling struct {
	Lease string `json:"lease"`
	// Do is accept, release, reject or extend.
	Do string `json:"do"`
	// Delay of a release and time of an extension, in milliseconds.
	Delay  *int64 `json:"delay"`
	For    *int64 `json:"for"`
	Reason string `json:"reason"`
}

// settleNow does what a settling says; until is the new end of an extended
// lease.
func (h *hold) settleNow(r *nethttp.Request, st *settling) (until time.Time, err error) {
	var opts core.SettleOptions
	if st.Delay != nil {
		if st.Do != "release" || *st.Delay < 0 || *st.Delay > longestDelay.Milliseconds() {
			return until, badRequest.with("a delay goes with release and is zero or more")
		}
		if opts.Delay = time.Duration(*st.Delay) * time.Millisecond; opts.Delay == 0 {
			opts.Delay = core.NoDelay
		}
	}
	if st.Reason != "" && st.Do != "reject" {
		return until, badRequest.with("a reason goes with reject")
	}
	opts.Reason = st.Reason
	if (st.For != nil) != (st.Do == "extend") || st.For != nil && (*st.For <= 0 || *st.For > longestLease.Milliseconds()) {
		return until, badRequest.with("extend, and nothing else, has a time in for, at most " + longestLease.String())
	}
	switch st.Do {
	case "accept":
		return until, h.client.SettleLease(r.Context(), st.Lease, core.Accepted, opts)
	case "release":
		return until, h.client.SettleLease(r.Context(), st.Lease, core.Released, opts)
	case "reject":
		return until, h.client.SettleLease(r.Context(), st.Lease, core.Rejected, opts)
	case "extend":
		return h.client.ExtendLease(r.Context(), st.Lease, time.Duration(*st.For)*time.Millisecond)
	}
	return until, badRequest.with(quote(st.Do) + " is not accept, release, reject or extend")
}

// settleParameters are what a verb of POST /lease/<token>/<verb> may be told.
var settleParameters = map[string][]string{"accept": {}, "release": {"delay"}, "reject": {"reason"}, "extend": {"for"}}

// settle is POST /lease/<token>/<verb>.
func (s *Server) settle(w nethttp.ResponseWriter, r *nethttp.Request) error {
	verb, err := segment(r, "verb")
	if err != nil {
		return err
	}
	known, ok := settleParameters[verb]
	if !ok {
		return noSuchPath(r)
	}
	q := queryOf(r, known...)
	st := settling{Lease: q.segment("token"), Do: verb, Reason: q.string("reason")}
	if q.has("delay") {
		ms := q.duration("delay", longestDelay).Milliseconds()
		st.Delay = &ms
	}
	if q.has("for") {
		ms := q.duration("for", longestLease).Milliseconds()
		st.For = &ms
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	until, err := h.settleNow(r, &st)
	if err != nil {
		return err
	}
	if !until.IsZero() {
		w.Header()["X-Lease-Until"] = []string{until.UTC().Format(timeLayout)}
	}
	s.answerNothing(w)
	return nil
}

// appendSettled appends what became of a line of settlements.
func appendSettled(dst []byte, st *settling, until time.Time, err error) []byte {
	if err != nil {
		return appendError(dst, err)
	}
	dst = append(dst, `{"lease":`...)
	dst = adapters.AppendJSONString(dst, st.Lease)
	if !until.IsZero() {
		dst = append(dst, `,"until":`...)
		dst = strconv.AppendInt(dst, until.UnixMilli(), 10)
	}
	return append(dst, "}\n"...)
}

// appendError appends a line that failed.
func appendError(dst []byte, err error) []byte {
	dst = append(dst, `{"err":`...)
	return append(problemOf(err).appendJSON(dst), "}\n"...)
}
