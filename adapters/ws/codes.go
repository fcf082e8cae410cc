package ws

import (
	"context"
	"errors"

	"github.com/sluicemq/sluice/core"
)

// The close codes beside those of RFC 6455, section 7.4.1. A peer may come
// again as it is after 4408 and 4429, and after the RFC's 1001, 1011 and 1013;
// after the others it would fail again.
const (
	closeMalformed       = 4400 // the first message could not be read
	closeUnauthenticated = 4401 // wrong credentials, or none
	closeNoHello         = 4408 // no hello within the time for a handshake
	closeTakenOver       = 4409 // another connection took over, by resume
	closeLoginRate       = 4429 // too many failed logins from the address
)

// The codes of "err".
const (
	codeMalformed       = "malformed"
	codeInvalid         = "invalid"
	codeInvalidTopic    = "invalid_topic"
	codeNoCredit        = "no_credit"
	codeInvalidFrom     = "invalid_from"
	codeRemoved         = "removed"
	codeTooLarge        = "too_large"
	codeUnauthenticated = "unauthenticated"
	codeLoginRate       = "login_rate"
	codeNotAuthorized   = "not_authorized"
	codeNotFound        = "not_found"
	codeConflict        = "conflict"
	codeInUse           = "in_use"
	codeQueueFull       = "queue_full"
	codeLimit           = "limit"
	codeNotHeld         = "not_held"
	codeExpired         = "expired"
	codeNoResponders    = "no_responders"
	codeTimeout         = "timeout"
	codeStorage         = "storage"
	codeStorageFull     = "storage_full"
	codeUnavailable     = "unavailable"
	codeClosing         = "closing"
	codeInternal        = "internal"
)

// errTimeout is a request's that nobody answered in time.
var errTimeout = errors.New("no reply came in time")

// errNoCredit is a subscription's that does not say how much may come.
var errNoCredit = errors.New("no credit")

// errLoginRate is a login's from an address that failed too often.
var errLoginRate = errors.New("too many failed logins from this address: wait a minute")

// codes maps the core's errors to the protocol's codes; again says that the
// same request may succeed later.
var codes = [...]struct {
	err   error
	code  string
	again bool
}{
	{core.ErrInvalidTopic, codeInvalidTopic, false},
	{core.ErrInvalidFrom, codeInvalidFrom, false},
	{errNoCredit, codeNoCredit, false},
	{core.ErrInvalid, codeInvalid, false},
	{core.ErrTooLarge, codeTooLarge, false},
	{core.ErrNotAuthorized, codeNotAuthorized, false},
	{core.ErrUnauthenticated, codeUnauthenticated, false},
	{core.ErrNotFound, codeNotFound, false},
	{core.ErrConflict, codeConflict, false},
	{core.ErrInUse, codeInUse, true},
	{core.ErrQueueFull, codeQueueFull, true},
	{core.ErrLimit, codeLimit, true},
	{core.ErrNotHeld, codeNotHeld, false},
	{core.ErrExpired, codeExpired, false},
	{core.ErrNoResponders, codeNoResponders, true},
	{core.ErrStorageFull, codeStorageFull, true},
	{core.ErrStorage, codeStorage, true},
	{core.ErrFenced, codeUnavailable, true},
	{core.ErrCorrupt, codeStorage, false},
	{core.ErrClosed, codeClosing, true},
	{context.Canceled, codeClosing, true},
	{context.DeadlineExceeded, codeUnavailable, true},
	{errTimeout, codeTimeout, true},
	{errLoginRate, codeLoginRate, true},
}

// codeOf is the one place that maps errors to codes.
func codeOf(err error) (code string, again bool) {
	var syntax *syntaxError
	var removed *core.OffsetRemovedError
	switch {
	case errors.As(err, &syntax):
		return codeMalformed, false
	case errors.As(err, &removed):
		return codeRemoved, false
	}
	for i := range codes {
		if errors.Is(err, codes[i].err) {
			return codes[i].code, codes[i].again
		}
	}
	return codeInternal, true
}

// appendError appends an "err". What is internal is not told.
func (k coding) appendError(dst []byte, req []byte, err error) []byte {
	code, again := codeOf(err)
	text := err.Error()
	if code == codeInternal {
		text = "internal error"
	}
	return k.appendErr(dst, req, code, text, again, err)
}

// appendErr appends an "err"; cause, where it has more to tell, adds members.
func (k coding) appendErr(dst []byte, req []byte, code, text string, again bool, cause error) []byte {
	o := k.begin(dst, "err")
	o.req(req)
	o.str("code", code)
	o.str("text", text)
	if again {
		o.yes("retry")
	}
	var syntax *syntaxError
	var removed *core.OffsetRemovedError
	switch {
	case errors.As(cause, &syntax):
		o.int("at", int64(syntax.at))
	case errors.As(cause, &removed):
		o.int("earliest", int64(removed.Earliest))
		o.int("end", int64(removed.End))
	}
	return o.end()
}

// fail answers a request with an error and counts it.
func (c *conn) fail(req []byte, err error) {
	code, _ := codeOf(err)
	c.srv.count.Refused(code)
	if code == codeInternal {
		c.srv.Logger.Error("request failed", "err", err)
	}
	c.sendFrame(func(buf []byte) []byte { return c.coding.appendError(buf, req, err) })
}
