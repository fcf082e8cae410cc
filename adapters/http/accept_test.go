package http_test

import "testing"

// The form of an answer is what Accept weighs highest; a range is for what is not
// named itself (RFC 9110, 12.5.1).
func TestAccept(t *testing.T) {
	d := open(t)
	d.want(201, "POST", "/t/a", "x")
	for accept, want := range map[string]string{
		"*/*;q=0.1":                               "application/x-ndjson",
		"application/json, text/plain, */*":       "application/json",
		"text/html, */*;q=0.8":                    "application/x-ndjson",
		"application/json;q=0.5, */*;q=0.1":       "application/json",
		"application/json;q=0.1, */*;q=0.5":       "application/x-ndjson",
		"application/x-ndjson;q=0, */*":           "application/json",
		"application/x-ndjson;q=0.1, */*;q=0.5":   "application/json",
		"application/JSON;charset=utf-8;Q=0.3, b": "application/json",
	} {
		if got := d.want(200, "GET", "/t/a", "", "Accept: "+accept).Header.Get("Content-Type"); got != want {
			t.Errorf("Accept: %s is answered by %s, want %s", accept, got, want)
		}
	}
	for _, accept := range []string{"text/html", "*/*;q=0", "application/json;q=0", "application/json;q=2"} {
		d.refused(406, "not-acceptable", "GET", "/t/a", "", "Accept: "+accept)
	}
}
