package http

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	nethttp "net/http"
	"strconv"
	"strings"
	"sync"
)

// clientFiles are what the broker serves to browsers: the client for browsers and
// Node, which is an npm package too, and the page that shows what it can do.
//
//go:embed client/sluice.js client/try.html client/try.css client/try.js client/try_lines.js
var clientFiles embed.FS

// An asset is one of them.
type asset struct {
	path, file, contentType string
}

var assets = [...]asset{
	{"/sluice.js", "sluice.js", "text/javascript; charset=utf-8"},
	{"/try", "try.html", "text/html; charset=utf-8"},
	{"/try.css", "try.css", "text/css; charset=utf-8"},
	{"/try.js", "try.js", "text/javascript; charset=utf-8"},
	{"/try_lines.js", "try_lines.js", "text/javascript; charset=utf-8"},
}

// pagePolicy lets a page load from the broker alone, and run and show nothing
// that stands in the page itself (Content Security Policy, level 3).
var pagePolicy = []string{"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"}

// An assetForm is an asset in one coding, and its entity tag, which another
// coding does not share (RFC 9110, 8.8.3.3).
type assetForm struct {
	body []byte
	tag  string
}

// forms makes both forms: as it is, and compressed.
func (a asset) forms() (plain, zipped assetForm) {
	body, err := clientFiles.ReadFile("client/" + a.file)
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(body)
	tag := hex.EncodeToString(sum[:8])
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	z.Write(body) // a bytes.Buffer takes everything
	z.Close()
	return assetForm{body, `"` + tag + `"`}, assetForm{b.Bytes(), `"` + tag + `-gzip"`}
}

// serveAsset is GET of an asset. A cache may keep it but asks before it uses
// it: it belongs to the broker's version.
func (s *Server) serveAsset(a asset) nethttp.HandlerFunc {
	forms := sync.OnceValues(a.forms)
	contentType := []string{a.contentType}
	page := strings.HasPrefix(a.contentType, "text/html")
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		plain, zipped := forms()
		form := plain
		h := w.Header()
		if weightOfCoding(r.Header["Accept-Encoding"], "gzip") > 0 {
			form = zipped
			h["Content-Encoding"] = []string{"gzip"}
		}
		h["Content-Type"] = contentType
		h["X-Content-Type-Options"] = nosniff
		h["Cache-Control"] = []string{"no-cache"}
		h["Etag"] = []string{form.tag}
		if page {
			h["Content-Security-Policy"] = pagePolicy
			h["Referrer-Policy"] = []string{"no-referrer"}
			h["Cross-Origin-Opener-Policy"] = []string{"same-origin"}
		}
		h.Add("Vary", "Accept-Encoding")
		if hasTag(r.Header["If-None-Match"], form.tag) {
			h.Del("Content-Encoding")
			w.WriteHeader(nethttp.StatusNotModified)
			return
		}
		h["Content-Length"] = []string{strconv.Itoa(len(form.body))}
		s.writeAll(w, form.body)
	}
}

// A Port is where another protocol is spoken.
type Port struct {
	Port int  `json:"port"`
	TLS  bool `json:"tls,omitempty"`
}

// tellPorts is GET /try.json: where the lines on the page /try lead to.
func (s *Server) tellPorts(w nethttp.ResponseWriter, _ *nethttp.Request) {
	ports := map[string]Port{}
	if s.options.Ports != nil {
		ports = s.options.Ports()
	}
	text, err := json.Marshal(ports)
	if err != nil {
		panic(err) // strings and numbers
	}
	h := w.Header()
	h["Content-Type"] = jsonTypes
	h["Cache-Control"] = noStore
	s.writeAll(w, append(text, '\n'))
}
