package http

import (
	"fmt"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A query is a request's query, read strictly: a parameter that the path does
// not know is an error, as a misspelt one would silently do nothing, and so is
// one that stands twice. What its path names is read through it too. The first
// error is kept, for Server.begin.
type query struct {
	r      *nethttp.Request
	values url.Values
	err    error
}

// queryOf parses the query of a path that knows the names.
func queryOf(r *nethttp.Request, names ...string) query {
	if r.URL.RawQuery == "" {
		return query{r: r}
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{r: r, err: badRequest.with("the query is malformed: " + err.Error())}
	}
	for name, vs := range values {
		if !slices.Contains(names, name) {
			there := "there is none"
			if len(names) > 0 {
				there = "there are " + strings.Join(names, ", ")
			}
			return query{r: r, err: badRequest.with(fmt.Sprintf("the query parameter %s is not known here; %s", quote(name), there))}
		}
		if len(vs) > 1 {
			return query{r: r, err: badRequest.with("the query parameter " + name + " stands more than once")}
		}
	}
	return query{r: r, values: values}
}

func (q *query) has(name string) bool { return len(q.values[name]) > 0 }

func (q *query) string(name string) string { return q.values.Get(name) }

// fail keeps the first error.
func (q *query) fail(err error) {
	if q.err == nil {
		q.err = err
	}
}

func (q *query) bad(name, want string) {
	q.fail(badRequest.with(fmt.Sprintf("%s=%s: want %s", name, quote(q.string(name)), want)))
}

// refuse refuses parameters that stand and, in this request, mean nothing.
func (q *query) refuse(why string, names ...string) {
	for _, name := range names {
		if q.has(name) {
			q.fail(badRequest.with(name + " " + why))
		}
	}
}

// topic is the topic that the path behind a prefix names.
func (q *query) topic(prefix string) string {
	t, err := topicOf(q.r, prefix)
	if err != nil {
		q.fail(err)
	}
	return t
}

// filter is the filter that the path behind a prefix names.
func (q *query) filter(prefix string) core.Filter {
	f, err := filterOf(q.r, prefix)
	if err != nil {
		q.fail(err)
	}
	return f
}

// queue is the queue that the path names.
func (q *query) queue() string {
	name, err := queueOf(q.r)
	if err != nil {
		q.fail(err)
	}
	return name
}

// segment is a segment that the path names.
func (q *query) segment(name string) string {
	v, err := segment(q.r, name)
	if err != nil {
		q.fail(err)
	}
	return v
}

// pattern is ?filter=, which topics a list is of, or absent.
func (q *query) pattern(absent core.Filter) core.Filter {
	if !q.has("filter") {
		return absent
	}
	f, err := core.ParseFilter(q.string("filter"))
	if err != nil {
		q.fail(err)
	}
	return f
}

// where is the selector that ?where= is.
func (q *query) where() string {
	if err := core.CheckWhere(q.string("where")); err != nil {
		q.fail(badRequest.with("where: " + err.Error()))
	}
	return q.string("where")
}

// form is the form that the request asks for.
func (q *query) form() form {
	f, err := formOf(q.r, q)
	if err != nil {
		q.fail(err)
	}
	return f
}

// flag is a parameter that is true where it stands alone.
func (q *query) flag(name string, absent bool) bool {
	if !q.has(name) {
		return absent
	}
	switch q.string(name) {
	case "", "true", "1":
		return true
	case "false", "0":
		return false
	}
	q.bad(name, "true or false")
	return absent
}

func (q *query) int(name string, absent, low, high int) int {
	if !q.has(name) {
		return absent
	}
	n, err := strconv.ParseUint(q.string(name), 10, 31)
	if err != nil || int(n) < low || int(n) > high {
		q.bad(name, fmt.Sprintf("a number from %d to %d", low, high))
		return absent
	}
	return int(n)
}

func (q *query) offset(name string) core.Offset {
	if !q.has(name) {
		return 0
	}
	n, err := strconv.ParseUint(q.string(name), 10, 63)
	if err != nil || n == 0 {
		q.bad(name, "an offset")
	}
	return core.Offset(n)
}

func (q *query) from(absent core.From) core.From {
	if !q.has("from") || q.err != nil {
		return absent
	}
	f, err := core.ParseFrom(q.string("from"), time.Now())
	if err != nil {
		q.err = err
	}
	return f
}

func (q *query) duration(name string, longest time.Duration) time.Duration {
	if !q.has(name) {
		return 0
	}
	d, ok := parseDuration(q.string(name))
	if !ok || d > longest {
		q.bad(name, "a time such as 20s or 1m30s, at most "+longest.String())
		return 0
	}
	return d
}

// parseDuration reads a time of zero or more: as time.ParseDuration has it, in
// days (7d), or in seconds (90).
func parseDuration(s string) (time.Duration, bool) {
	unit := ""
	days, isDays := strings.CutSuffix(s, "d")
	if isDays {
		s, unit = days, "h"
	} else if s != "" && '0' <= s[len(s)-1] && s[len(s)-1] <= '9' {
		unit = "s"
	}
	d, err := time.ParseDuration(s + unit)
	if err != nil || d < 0 || strings.HasPrefix(s, "-") {
		return 0, false
	}
	if isDays {
		if d > (1<<63-1)/24 {
			return 0, false
		}
		d *= 24
	}
	return d, true
}

// The longest times that a request may ask for.
const (
	longestWait  = 5 * time.Minute
	longestLease = 12 * time.Hour
	longestDelay = 10 * 365 * 24 * time.Hour
)

// set sets a parameter, for a link.
func (q *query) set(name, value string) {
	if q.values == nil {
		q.values = make(url.Values)
	}
	q.values.Set(name, value)
}

// link is a Link (RFC 8288) to the request's path with the query as it is now.
func (q *query) link(rel string) string {
	return "<" + q.r.URL.EscapedPath() + "?" + q.values.Encode() + `>; rel="` + rel + `"`
}
