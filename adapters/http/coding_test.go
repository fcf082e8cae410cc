package http_test

import (
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// What is answered whole is compressed where the client takes that, and is the
// same when it is not any more.
func TestCodings(t *testing.T) {
	d := open(t)
	text := strings.Repeat("It was a dark and stormy night. ", 100)
	d.want(201, "POST", "/t/c?retain", text, "Content-Type: text/plain")
	d.want(201, "POST", "/t/c/image?retain", text, "Content-Type: image/png")
	for _, path := range []string{"/t/c", "/t/c?format=json", "/last/c", "/last/%23", "/openapi.json"} {
		plain := d.want(200, "GET", path, "")
		if plain.Header.Get("Content-Encoding") != "" || plain.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %v", path, plain.Header)
		}
		for accept, coding := range map[string]string{"gzip": "gzip", "gzip, zstd, br": "zstd", "gzip;q=1, zstd;q=0.5": "gzip", "*": "zstd", "gzip;q=0, *": "zstd"} {
			a := d.want(200, "GET", path, "", "Accept-Encoding: "+accept)
			if a.Header.Get("Content-Encoding") != coding || len(a.body) >= len(plain.body)/2 || a.ContentLength != int64(len(a.body)) {
				t.Errorf("%s as %s: %d bytes %v", path, accept, len(a.body), a.Header)
			}
			var r io.Reader
			var err error
			if coding == "zstd" {
				r, err = zstd.NewReader(strings.NewReader(a.body))
			} else {
				r, err = gzip.NewReader(strings.NewReader(a.body))
			}
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); err != nil || string(b) != plain.body {
				t.Errorf("%s as %s: %v, %.100q", path, accept, err, b)
			}
			if h := d.want(200, "HEAD", path, "", "Accept-Encoding: "+accept); h.ContentLength != a.ContentLength {
				t.Errorf("HEAD %s: %v", path, h.Header)
			}
		}
		for _, accept := range []string{"identity", "br", "gzip;q=0, zstd;q=0", "*;q=0", "gzip;q=x"} {
			if a := d.want(200, "GET", path, "", "Accept-Encoding: "+accept); a.Header.Get("Content-Encoding") != "" || a.body != plain.body {
				t.Errorf("%s as %s: %v", path, accept, a.Header)
			}
		}
	}
	for _, path := range []string{"/last/c/image", "/t/none", "/v1/queues"} { // compressed already, or too short
		if a := d.want(200, "GET", path, "", "Accept-Encoding: gzip"); a.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
	s := d.stream("/sse/c", "Accept-Encoding: gzip")
	d.want(201, "POST", "/t/c", "x")
	s.expect("id: 3|data: x")
}

// A compressed answer has a tag of its own, which is as good as the other.
func TestCodedTags(t *testing.T) {
	d := open(t)
	for i := range 50 {
		d.want(201, "PUT", "/v1/exchanges/exchange"+string(rune('A'+i)), `{"kind":"topic"}`)
	}
	plain := d.want(200, "GET", "/v1/exchanges", "").Header.Get("ETag")
	zipped := d.want(200, "GET", "/v1/exchanges", "", "Accept-Encoding: gzip").Header.Get("ETag")
	if zipped != strings.TrimSuffix(plain, `"`)+`-gzip"` {
		t.Errorf("%s, %s", plain, zipped)
	}
	for _, tag := range []string{plain, zipped} {
		d.want(304, "GET", "/v1/exchanges", "", "If-None-Match: "+tag)
	}
}
