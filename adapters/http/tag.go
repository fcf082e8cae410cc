package http

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	nethttp "net/http"
	"slices"
	"strings"
)

// tagOf is the entity tag (RFC 9110, 8.8.3) of what defines a resource, as
// JSON. Of a queue that is its settings and bindings, not how many messages
// wait there: what a client changes with If-Match is the definition.
func tagOf(definition any) string {
	b, err := json.Marshal(definition)
	if err != nil {
		panic(err) // what is tagged is answered too
	}
	return tagOfBytes(b)
}

// tagOfBytes is the entity tag of what is answered as it is.
func tagOfBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// checkMatch refuses a change whose If-Match or If-None-Match does not hold
// for what is there, whose tag is empty where there is nothing (RFC 9110,
// 13.1.1 and 13.1.2). Who changes under a condition does so between reading
// the tag and the change; two of them at the same moment are settled by the
// core, which refuses other settings.
func checkMatch(r *nethttp.Request, tag string) error {
	if m := r.Header["If-Match"]; len(m) > 0 && (tag == "" || !hasStrongTag(m, tag)) {
		return preconditionFailed.with("If-Match: it is not, or not any more, what the tag was of")
	}
	if m := r.Header["If-None-Match"]; len(m) > 0 && tag != "" && hasTagOf(m, tag) {
		return preconditionFailed.with("If-None-Match: it is there")
	}
	return nil
}

// hasStrongTag reports whether the values of If-Match have a tag, which is
// compared strongly: a weak one never matches.
func hasStrongTag(values []string, tag string) bool {
	for t := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if t = strings.TrimSpace(t); t == "*" || plainTag(t) == tag {
			return true
		}
	}
	return false
}

// hasTag reports whether the values of If-None-Match have a tag, which is
// compared weakly.
func hasTag(values []string, tag string) bool {
	for t := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true
		}
	}
	return false
}

// hasTagOf is hasTag for a tag that was perhaps sent with a compressed answer.
func hasTagOf(values []string, tag string) bool {
	return slices.ContainsFunc([]string{tag, codedTag(tag, "gzip"), codedTag(tag, "zstd")}, func(t string) bool { return hasTag(values, t) })
}

// answerTagged is answerJSON with an entity tag; whoever reads with an
// If-None-Match that has it is answered 304, and with an If-Match that has it
// not, 412.
func (s *Server) answerTagged(w nethttp.ResponseWriter, r *nethttp.Request, status int, v any, tag string) {
	reading := r.Method == nethttp.MethodGet || r.Method == nethttp.MethodHead
	if reading && s.answerByTag(w, r, tag) {
		return
	}
	w.Header()["Etag"] = []string{tag}
	s.answerJSON(w, status, v)
}

// answerByTag sets the entity tag of what is read and reports whether the
// request's conditions decide the answer, which is given then: 412, or 304.
func (s *Server) answerByTag(w nethttp.ResponseWriter, r *nethttp.Request, tag string) bool {
	w.Header()["Etag"] = []string{tag}
	if m := r.Header["If-Match"]; len(m) > 0 && !hasStrongTag(m, tag) {
		s.fail(w, r, checkMatch(r, tag))
		return true
	}
	if !hasTagOf(r.Header["If-None-Match"], tag) {
		return false
	}
	w.Header().Add("Vary", "Accept-Encoding") // as compress does
	if s.writeUntil(w) == nil {
		w.WriteHeader(nethttp.StatusNotModified)
	}
	return true
}
