package http_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
)

// The module comes as it stands in the package, compressed where that is
// accepted, and not again to those who have it.
func TestClientIsServed(t *testing.T) {
	d := open(t)
	module, err := os.ReadFile("client/sluice.js")
	if err != nil {
		t.Fatal(err)
	}
	a := d.want(200, "GET", "/sluice.js", "")
	if a.body != string(module) {
		t.Error("it is not what stands in client/")
	}
	for name, want := range map[string]string{
		"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "no-cache", "Vary": "Accept-Encoding",
		"X-Content-Type-Options": "nosniff", "Content-Encoding": "",
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	z := d.want(200, "GET", "/sluice.js", "", "Accept-Encoding: br, gzip")
	if z.Header.Get("Content-Encoding") != "gzip" || z.Header.Get("Etag") == a.Header.Get("Etag") {
		t.Errorf("compressed: %v", z.Header)
	}
	r, err := gzip.NewReader(strings.NewReader(z.body))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(r); err != nil || string(plain) != string(module) {
		t.Errorf("what was compressed is something else: %v", err)
	}
	if n := len(z.body); n > 8<<10 {
		t.Errorf("%d bytes compressed, at most 8 KiB are allowed", n)
	}
	if head := d.want(200, "HEAD", "/sluice.js", ""); head.body != "" || head.ContentLength != int64(len(module)) {
		t.Errorf("HEAD: %d bytes announced, %q sent", head.ContentLength, head.body)
	}

	for _, c := range []struct {
		accept, tags string
		status       int
	}{
		{"", a.Header.Get("Etag"), 304},
		{"", `"other", W/` + a.Header.Get("Etag"), 304},
		{"", "*", 304},
		{"", z.Header.Get("Etag"), 200},
		{"gzip", z.Header.Get("Etag"), 304},
		{"gzip", a.Header.Get("Etag"), 200},
		{"", `"other"`, 200},
	} {
		got := d.want(c.status, "GET", "/sluice.js", "", "Accept-Encoding: "+c.accept, "If-None-Match: "+c.tags)
		if c.status == 304 && (got.body != "" || got.Header.Get("Etag") == "") {
			t.Errorf("304 to %s: %v %q", c.tags, got.Header, got.body)
		}
	}
	for accept, want := range map[string]string{
		"*": "gzip", "gzip;q=0": "", "gzip;q=0.1": "gzip", "GZIP": "gzip", "*, gzip;q=0": "", "gzip;q=0, *": "",
		"identity": "", "gzip;q=x": "", "*;q=0": "", "deflate, br": "",
	} {
		if got := d.want(200, "GET", "/sluice.js", "", "Accept-Encoding: "+accept).Header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: coding %q, want %q", accept, got, want)
		}
	}
	d.want(405, "POST", "/sluice.js", "")
	d.refused(403, "foreign-origin", "GET", "/sluice.js", "", "Origin: http://elsewhere.example")
}

// The descriptions are not sent again to those who have them.
func TestDescriptionsAreTagged(t *testing.T) {
	d := open(t)
	for _, path := range []string{"/openapi.json", "/asyncapi.json"} {
		plain := d.want(200, "GET", path, "")
		zipped := d.want(200, "GET", path, "", "Accept-Encoding: gzip")
		if tag := plain.Header.Get("ETag"); tag == "" || tag == zipped.Header.Get("ETag") || plain.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %v, compressed %v", path, plain.Header, zipped.Header)
		}
		for _, a := range []answer{plain, zipped} {
			if again := d.want(304, "GET", path, "", "If-None-Match: "+a.Header.Get("ETag")); again.body != "" || again.Header.Get("ETag") == "" {
				t.Errorf("%s: %v %q", path, again.Header, again.body)
			}
		}
		d.want(200, "GET", path, "", `If-None-Match: "other"`)
	}
}

// What the package names is in it.
func TestClientPackage(t *testing.T) {
	text, err := os.ReadFile("client/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Types   string
		Exports map[string]map[string]string
		Files   []string
	}
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	files := append([]string{p.Types}, p.Files...)
	for _, by := range p.Exports {
		for _, f := range by {
			files = append(files, f)
		}
	}
	if len(files) < 5 {
		t.Errorf("only %q are named", files)
	}
	for _, f := range files {
		if _, err := os.Stat("client/" + f); err != nil {
			t.Error(err)
		}
	}
}
