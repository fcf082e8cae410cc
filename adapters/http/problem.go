package http

import (
	"context"
	"encoding/json"
	"errors"
	nethttp "net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// typeBase is what the type of every problem begins with. The kind behind it
// is stable, and a heading of docs/http.md.
const typeBase = "https://github.com/sluicemq/sluice/blob/main/docs/http.md#"

// A problem is an error in HTTP's own form (RFC 9457).
type problem struct {
	status int
	kind   string
	title  string
	detail string
	// hint says what to do about it.
	hint string
	// earliest and end are the log's bounds, where the problem is an offset.
	earliest, end core.Offset
	// retry goes into Retry-After.
	retry time.Duration
}

func (p *problem) Error() string { return p.title + ": " + p.detail }

// with returns a copy that says what happened here.
func (p problem) with(detail string) *problem {
	p.detail = detail
	return &p
}

var (
	badRequest = problem{status: 400, kind: "bad-request", title: "The request is malformed",
		hint: "The detail says what is wrong; docs/http.md has every path, parameter and header."}
	badTopic = problem{status: 400, kind: "invalid-topic", title: "The topic, filter or name is not valid",
		hint: "Levels are separated by slashes and percent-encoded once; + and %23 (#) are wildcards for reading only."}
	badFrom = problem{status: 400, kind: "invalid-from", title: "The start position is not valid",
		hint: "from is earliest, latest, an offset (1042), the last n (-100), a time ago (@2h) or a moment (@2026-11-01T08:00:00Z)."}
	unauthenticated = problem{status: 401, kind: "unauthenticated", title: "Credentials are missing or wrong",
		hint: "Send a user and password (curl -u user:password) or a token (Authorization: Bearer …)."}
	forbidden = problem{status: 403, kind: "forbidden", title: "Not allowed",
		hint: "Ask whoever runs the broker for the right; the rules are in its configuration."}
	foreignOrigin = problem{status: 403, kind: "foreign-origin", title: "The request comes from another site",
		hint: "Add the origin to http.origins in the broker's configuration."}
	notFound = problem{status: 404, kind: "not-found", title: "There is no such thing",
		hint: "GET / tells which paths there are."}
	wrongMethod = problem{status: 405, kind: "method-not-allowed", title: "The method is not one of this path",
		hint: "The header Allow has those that are."}
	notAcceptable = problem{status: 406, kind: "not-acceptable", title: "No form of the answer that the client accepts",
		hint: "Accept application/x-ndjson, application/json, text/event-stream or application/octet-stream, or name one with ?format=."}
	slowBody = problem{status: 408, kind: "slow-body", title: "The body came too slowly",
		hint: "Send it again on a new connection; a body must come at 32 KiB a second, beside five seconds."}
	conflict = problem{status: 409, kind: "conflict", title: "It exists otherwise, or is in use",
		hint: "Read it and send what it is, take another name, or delete it first."}
	notHeld = problem{status: 409, kind: "lease-ended", title: "The lease has ended",
		hint: "The message was settled, or the time of the lease is over and the message is somebody else's."}
	offsetRemoved = problem{status: 410, kind: "offset-removed", title: "The offset has been removed",
		hint: "Read on with ?from=earliest, or from the offset that earliest names."}
	preconditionFailed = problem{status: 412, kind: "precondition-failed", title: "The condition does not hold",
		hint: "Read it again: the ETag of the answer is what If-Match wants."}
	tooLarge = problem{status: 413, kind: "too-large", title: "The message is too large",
		hint: "Send it in parts. What the detail names is bounded by limits.message or limits.headers_size in the broker's configuration, or fixed."}
	wrongType = problem{status: 415, kind: "unsupported-type", title: "The body is in a form that is not taken here",
		hint: "A batch is application/x-ndjson, what is administered application/json; nothing is taken compressed."}
	offsetAhead = problem{status: 416, kind: "offset-ahead", title: "The offset is ahead of the log", hint: "Read on from the offset that end names, or with ?from=latest."}
	foreignHost = problem{status: 421, kind: "foreign-host", title: "The request is for another host", hint: "Use an address of the broker, or add the name to http.hosts in its configuration."}
	tooMany     = problem{status: 429, kind: "too-many-requests", title: "A limit is reached", retry: time.Second,
		hint: "Wait as long as Retry-After says; the limits are in the broker's configuration."}
	loginsFailed = problem{status: 429, kind: "too-many-logins", title: "Too many logins have failed from this address", retry: 10 * time.Second,
		hint: "Wait a minute, and look at what the credentials are."}
	queueFull = problem{status: 429, kind: "queue-full", title: "The queue is full", retry: time.Second,
		hint: "It takes messages again once some were accepted; max_length and overflow are its settings."}
	internalError = problem{status: 500, kind: "internal", title: "The broker has failed", hint: "This is a defect; the broker's log says more."}
	noResponders  = problem{status: 503, kind: "no-responders", title: "Nobody would get the message", retry: time.Second,
		hint: "No queue, session or subscriber is there for it. ?mandatory=false publishes it all the same."}
	storageFailed = problem{status: 503, kind: "storage-failed", title: "The log cannot be written or read", retry: 5 * time.Second,
		hint: "Nothing is confirmed until the log has been recovered; the broker's log says why."}
	tooSlow = problem{status: 503, kind: "too-slow", title: "Memory is short and the connection reads too slowly", retry: 5 * time.Second,
		hint: "Come again; a stream goes on behind its last event."}
	shuttingDown = problem{status: 503, kind: "shutting-down", title: "The broker is stopping", retry: time.Second,
		hint: "Come again when it is back; what was confirmed is in the log."}
	noReply = problem{status: 504, kind: "no-reply", title: "No reply came in time",
		hint: "Wait longer with ?reply=30s, and see that who answers sends it to the message's X-Reply-To."}
	storageFull = problem{status: 507, kind: "storage-full", title: "The disk is full", retry: 30 * time.Second,
		hint: "Reads go on. Publishing goes on by itself once there is room."}
)

// problemOf maps what the core and this package fail with.
func problemOf(err error) *problem {
	var p *problem
	var outside *core.OffsetRemovedError
	detail := err.Error()
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &outside):
		p := offsetRemoved
		if outside.Offset >= outside.End {
			p = offsetAhead
		}
		p.detail, p.earliest, p.end = detail, outside.Earliest, outside.End
		return &p
	case errors.Is(err, core.ErrInvalidTopic):
		return badTopic.with(detail)
	case errors.Is(err, core.ErrInvalidFrom):
		return badFrom.with(detail)
	case errors.Is(err, core.ErrTooLarge):
		return tooLarge.with(detail)
	case errors.Is(err, core.ErrUnauthenticated):
		return unauthenticated.with(detail)
	case errors.Is(err, core.ErrNotAuthorized):
		return forbidden.with(detail)
	case errors.Is(err, core.ErrNotFound):
		return notFound.with(detail)
	case errors.Is(err, core.ErrConflict), errors.Is(err, core.ErrInUse):
		return conflict.with(detail)
	case errors.Is(err, core.ErrNotHeld):
		return notHeld.with(detail)
	case errors.Is(err, core.ErrQueueFull):
		return queueFull.with(detail)
	case errors.Is(err, core.ErrShed):
		return tooSlow.with(detail)
	case errors.Is(err, core.ErrLimit):
		return tooMany.with(detail)
	case errors.Is(err, core.ErrNoResponders):
		return noResponders.with(detail)
	case errors.Is(err, core.ErrInvalid), errors.Is(err, core.ErrExpired):
		return badRequest.with(detail)
	case errors.Is(err, core.ErrStorageFull):
		return storageFull.with(detail)
	case errors.Is(err, core.ErrStorage), errors.Is(err, core.ErrCorrupt), errors.Is(err, core.ErrFenced):
		return storageFailed.with(detail)
	case errors.Is(err, core.ErrClosed):
		return shuttingDown.with(detail)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return slowBody.with(detail)
	}
	return internalError.with(detail)
}

// A problemBody is a problem as it stands in an answer.
type problemBody struct {
	Type     string      `json:"type"`
	Title    string      `json:"title"`
	Status   int         `json:"status"`
	Detail   string      `json:"detail,omitempty"`
	Hint     string      `json:"hint,omitempty"`
	Earliest core.Offset `json:"earliest,omitempty"`
	End      core.Offset `json:"end,omitempty"`
}

func (p *problem) body() problemBody {
	return problemBody{typeBase + p.kind, p.title, p.status, p.detail, p.hint, p.earliest, p.end}
}

// appendJSON appends the problem as one JSON object.
func (p *problem) appendJSON(dst []byte) []byte {
	b, err := json.Marshal(p.body())
	if err != nil {
		panic(err) // it is strings and numbers
	}
	return append(dst, b...)
}

// reason is the problem's word in the metrics.
func (p *problem) reason() string { return strings.ReplaceAll(p.kind, "-", "_") }

// fail answers with the problem that err is, and counts it.
func (s *Server) fail(w nethttp.ResponseWriter, r *nethttp.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		gone()
	}
	p := problemOf(err)
	s.metrics.Refused(p.reason())
	if p.status == internalError.status {
		s.log.Error("request failed", "method", r.Method, "err", err)
	}
	h := w.Header()
	for name := range h {
		if answersOnly(name) {
			delete(h, name)
		}
	}
	p.describe(h)
	if s.writeUntil(w) == nil {
		w.WriteHeader(p.status)
		w.Write(append(p.appendJSON(nil), '\n'))
	}
}

// ErrTooManyLogins is what Refuse answers an address with that has failed to log
// in too often.
var ErrTooManyLogins error = &loginsFailed

// Refuse answers with the problem that err is, for a mounted handler. Errors of
// core have their own; what else is wrong is the broker's fault.
func Refuse(w nethttp.ResponseWriter, err error) {
	p := problemOf(err)
	p.describe(w.Header())
	w.WriteHeader(p.status)
	w.Write(append(p.appendJSON(nil), '\n'))
}

// describe sets the header of an answer with the problem.
func (p *problem) describe(h nethttp.Header) {
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch p.status {
	case 401:
		h["Www-Authenticate"] = []string{`Basic realm="sluice", charset="UTF-8"`, `Bearer realm="sluice"`}
	case 408:
		h.Set("Connection", "close")
	}
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retry+time.Second-1)/time.Second)))
	}
}

// gone ends a request whose peer has gone, without an answer: returning from
// the handler would be an empty 200.
func gone() { panic(nethttp.ErrAbortHandler) }

// answersOnly reports whether a header was set for an answer that turned into
// a problem.
func answersOnly(name string) bool {
	return strings.HasPrefix(name, "X-") || name == "Link" || name == "Location" || name == "Content-Length"
}
