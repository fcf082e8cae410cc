package http

import (
	"bytes"
	nethttp "net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// A coded answer is one that may be compressed: what is answered whole. A
// stream never is, as its events would wait in the encoder.
type coded struct {
	nethttp.ResponseWriter
	coding string // gzip or zstd
}

// Unwrap is for http.ResponseController.
func (c *coded) Unwrap() nethttp.ResponseWriter { return c.ResponseWriter }

// offerCoding lets the answer to a request be compressed where its client takes
// that.
func offerCoding(w nethttp.ResponseWriter, r *nethttp.Request) nethttp.ResponseWriter {
	accept := r.Header["Accept-Encoding"]
	if len(accept) == 0 {
		return w
	}
	zstd, gzip := weightOfCoding(accept, "zstd"), weightOfCoding(accept, "gzip")
	switch {
	case zstd > 0 && zstd >= gzip:
		return &coded{w, "zstd"}
	case gzip > 0:
		return &coded{w, "gzip"}
	}
	return w
}

// compressFrom is how long a body is that is worth it.
const compressFrom = 1 << 10

// compress returns a body as the answer's client wants it, and says so in the
// header. The entity tag is of the bytes, so it changes with them (RFC 9110,
// 8.8.3.3).
func compress(w nethttp.ResponseWriter, body []byte) []byte {
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	c, ok := w.(*coded)
	if !ok || len(body) < compressFrom {
		return body
	}
	h["Content-Encoding"] = []string{c.coding}
	if tag := h.Get("Etag"); tag != "" {
		h["Etag"] = []string{codedTag(tag, c.coding)}
	}
	if c.coding == "zstd" {
		return zstdEncoder().EncodeAll(body, make([]byte, 0, len(body)/2))
	}
	var b bytes.Buffer
	z := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(z)
	z.Reset(&b)
	z.Write(body) // a bytes.Buffer takes everything
	z.Close()
	return b.Bytes()
}

// codedTag is the entity tag of a compressed answer.
func codedTag(tag, coding string) string { return strings.TrimSuffix(tag, `"`) + "-" + coding + `"` }

// plainTag is an entity tag without the coding of what it was sent with.
func plainTag(tag string) string {
	for _, coding := range []string{"gzip", "zstd"} {
		if t, ok := strings.CutSuffix(tag, codedTag("", coding)); ok {
			return t + `"`
		}
	}
	return tag
}

var (
	gzipWriters = sync.Pool{New: func() any {
		z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic(err) // the level is a constant
		}
		return z
	}}
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
)

// isText reports whether a payload's type is one that compresses well.
func isText(contentType string) bool {
	media, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	return strings.HasPrefix(media, "text/") || isJSON(media) || strings.HasSuffix(media, "xml") || strings.HasSuffix(media, "javascript") || media == typeLines
}

// weightOfCoding is the q that the values of Accept-Encoding give a coding, 0
// where they do not take it (RFC 9110, 12.5.3).
func weightOfCoding(values []string, coding string) float64 {
	weight, named := 0.0, false
	for c := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, parameters, _ := strings.Cut(c, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		own := strings.TrimPrefix(name, "x-") == coding
		if !own && (name != "*" || named) {
			continue
		}
		named = named || own
		weight = 1
		if key, v, _ := strings.Cut(strings.TrimSpace(parameters), "="); strings.EqualFold(strings.TrimSpace(key), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if weight = q; err != nil || !(q >= 0 && q <= 1) {
				weight = 0
			}
		}
	}
	return weight
}
