package http

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	nethttp "net/http"
	"strconv"
	"strings"
	"sync"
)

// clientModule is the client for browsers and Node, one ES module, as it stands
// in client/, which is also its npm package.
//
//go:embed client/sluice.js
var clientModule []byte

// A clientForm is the module in one coding, and its entity tag, which another
// coding does not share (RFC 9110, 8.8.3.3).
type clientForm struct {
	body []byte
	tag  string
}

// clientForms makes both forms once: as it is, and compressed.
var clientForms = sync.OnceValues(func() (plain, zipped clientForm) {
	sum := sha256.Sum256(clientModule)
	tag := hex.EncodeToString(sum[:8])
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	z.Write(clientModule) // a bytes.Buffer takes everything
	z.Close()
	return clientForm{clientModule, `"` + tag + `"`}, clientForm{b.Bytes(), `"` + tag + `-gzip"`}
})

// javaScript is GET /sluice.js. A cache may keep it but asks before it uses it:
// the module belongs to the broker's version.
func (s *Server) javaScript(w nethttp.ResponseWriter, r *nethttp.Request) {
	plain, zipped := clientForms()
	form := plain
	h := w.Header()
	if acceptsGzip(r.Header["Accept-Encoding"]) {
		form = zipped
		h["Content-Encoding"] = []string{"gzip"}
	}
	h["Content-Type"] = []string{"text/javascript; charset=utf-8"}
	h["X-Content-Type-Options"] = nosniff
	h["Cache-Control"] = []string{"no-cache"}
	h["Etag"] = []string{form.tag}
	h.Add("Vary", "Accept-Encoding")
	if hasTag(r.Header["If-None-Match"], form.tag) {
		h.Del("Content-Encoding")
		w.WriteHeader(nethttp.StatusNotModified)
		return
	}
	h["Content-Length"] = []string{strconv.Itoa(len(form.body))}
	s.writeAll(w, form.body)
}

// acceptsGzip reports whether the values of Accept-Encoding allow gzip (RFC
// 9110, 12.5.3).
func acceptsGzip(values []string) bool {
	accepts, named := false, false
	for c := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding, parameters, _ := strings.Cut(c, ";")
		coding = strings.ToLower(strings.TrimSpace(coding))
		own := coding == "gzip" || coding == "x-gzip"
		if !own && (coding != "*" || named) {
			continue
		}
		named = named || own
		accepts = true
		name, weight, _ := strings.Cut(strings.TrimSpace(parameters), "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
			accepts = err == nil && q > 0
		}
	}
	return accepts
}
