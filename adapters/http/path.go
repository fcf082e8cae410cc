package http

import (
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"github.com/sluicemq/sluice/core"
)

// quote quotes a peer's words for an answer or a log, and bounds them.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// rest is what stands in the path behind a prefix, percent-decoded once. A
// slash that was written as %2F cannot be told from one that separates levels,
// so where levels matter it is refused.
//
// net/url leaves RawPath empty where decoding and encoding again gives the
// path that came, so there Path is what we want, and holds no %2F. Elsewhere
// RawPath is what came. EscapedPath would not do: where the path has a byte
// that should have been encoded, it encodes Path anew and a %2F is lost.
func rest(r *nethttp.Request, prefix string, levels bool) (string, error) {
	s, raw := r.URL.Path, r.URL.RawPath
	if raw != "" {
		raw = strings.TrimPrefix(raw, prefix)
		if levels && containsFold(raw, "%2f") {
			return "", badTopic.with("the path contains %2F: a level cannot contain a slash, and levels are separated by plain slashes")
		}
		var err error
		if s, err = url.PathUnescape(raw); err != nil {
			return "", badTopic.with(err.Error())
		}
	} else {
		s = strings.TrimPrefix(s, prefix)
	}
	return s, checkText(s)
}

// segment is one named segment of the path, percent-decoded once. The router
// matches on RawPath where there is one, and else on Path, which is decoded.
func segment(r *nethttp.Request, name string) (string, error) {
	s := chi.URLParam(r, name)
	if r.URL.RawPath != "" {
		var err error
		if s, err = url.PathUnescape(s); err != nil {
			return "", badTopic.with(err.Error())
		}
	}
	return s, checkText(s)
}

// checkText refuses what is in no name: NUL, and what is not UTF-8.
func checkText(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return badTopic.with("the path contains %00")
	}
	if !utf8.ValidString(s) {
		return badTopic.with("the path is not UTF-8 once it is percent-decoded")
	}
	return nil
}

func containsFold(s, lower string) bool {
	for i := 0; i+len(lower) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}

// filterOf is the filter that a path behind a prefix names.
func filterOf(r *nethttp.Request, prefix string) (core.Filter, error) {
	s, err := rest(r, prefix, true)
	if err != nil {
		return "", err
	}
	return core.ParseFilter(s)
}

// topicOf is the topic that a path behind a prefix names.
func topicOf(r *nethttp.Request, prefix string) (string, error) {
	s, err := rest(r, prefix, true)
	if err != nil {
		return "", err
	}
	return s, core.CheckTopic(s)
}

// queueOf is the queue that a path names.
func queueOf(r *nethttp.Request) (string, error) {
	q, err := segment(r, "queue")
	if err != nil {
		return "", err
	}
	return q, core.CheckQueueName(q)
}

// exchangeOf is the exchange that a path names.
func exchangeOf(r *nethttp.Request) (string, error) {
	e, err := segment(r, "exchange")
	if err != nil {
		return "", err
	}
	return e, core.CheckExchangeName(e)
}

// escapeLevels percent-encodes a topic or filter for a path, level by level.
func escapeLevels(s string) string { return percentEncoded(s, "-._~/$@+!*,:=") }

// percentEncoded percent-encodes all bytes but letters, digits and those that
// stand as they are.
func percentEncoded(s, plain string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
