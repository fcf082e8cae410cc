package http_test

import (
	"strings"
	"testing"
)

func TestMoves(t *testing.T) {
	d := open(t)
	has := func(a answer, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(a.body, p) {
				t.Errorf("%s has no %s", a.body, p)
			}
		}
	}
	for range 3 {
		d.want(201, "POST", "/q/q", "red", "X-H-Color: red")
		d.want(201, "POST", "/q/q", "blue", "X-H-Color: blue")
	}
	red := `{"where":"color = 'red'","dry_run":true}`
	has(d.want(200, "POST", "/v1/queues/q/purge", red), `"messages":3`, `"dry_run":true`)
	has(d.want(200, "POST", "/v1/queues/q/copy", `{"where":"color = 'red'","queue":"other"}`), `"messages":3`, `"dry_run":false`)
	has(d.want(200, "POST", "/v1/queues/q/move", `{"where":"color = 'red'","queue":"other","limit":1}`), `"messages":1`)
	has(d.want(200, "GET", "/v1/queues/other", ""), `"lag":4`, `"lag_seconds":`, `"oldest":"`)
	has(d.want(200, "POST", "/v1/queues/q/rewind", `{"to":"earliest","dry_run":true}`), `"again":1`)
	has(d.want(200, "POST", "/v1/queues/q/rewind", `{"to":"latest"}`), `"skipped":5`)
	has(d.want(200, "GET", "/v1/queues/q", ""), `"lag":0`)
	has(d.want(200, "POST", "/v1/queues/other/requeue", `{}`), `"messages":0`) // none is a dead letter
	for _, bad := range [][2]string{
		{"q/rewind", `{}`}, {"q/rewind", `{"to":"x"}`}, {"q/purge", `{"where":"a ="}`}, {"q/purge", `{"filters":["a#"]}`},
		{"q/move", `{}`}, {"q/move", `{"queue":"a","topic":"b"}`}, {"q/copy", `{"queue":"a","rate":-1}`}, {"q/purge", `{"limit":-1}`},
	} {
		if a := d.do("POST", "/v1/queues/"+bad[0], bad[1]); a.StatusCode != 400 {
			t.Errorf("%s %s: %d %s", bad[0], bad[1], a.StatusCode, a.body)
		}
	}
	d.refused(404, "not-found", "POST", "/v1/queues/none/purge", `{}`)
}

func TestRoutesOfBindings(t *testing.T) {
	d := open(t)
	d.want(201, "PUT", "/v1/exchanges/rest", `{"kind":"fanout"}`)
	if a := d.want(201, "PUT", "/v1/exchanges/in", `{"kind":"headers","alternate":"rest"}`); !strings.Contains(a.body, `"alternate":"rest"`) {
		t.Error(a.body)
	}
	d.refused(409, "conflict", "PUT", "/v1/exchanges/in", `{"kind":"headers"}`)
	d.want(201, "PUT", "/v1/queues/q", `{"settings":{"dedup_window":"1h","dead_letter_expired":true}}`)
	d.refused(400, "bad-request", "PUT", "/v1/queues/x", `{"settings":{"exclusive":true}}`)
	if a := d.want(201, "POST", "/v1/bindings", `{"exchange":"in","queue":"q","match":"any","headers":[["color","red"],["size",""]]}`); !strings.Contains(a.body, `"where":"\"color\" = 'red' OR \"size\" IS NOT NULL"`) {
		t.Error(a.body)
	}
	d.want(201, "POST", "/v1/bindings", `{"exchange":"rest","to":"in"}`)
	d.want(201, "POST", "/v1/bindings", `{"exchange":"rest","to":"in"}`)
	d.refused(404, "not-found", "POST", "/v1/bindings", `{"exchange":"none","to":"in"}`)
	for _, bad := range []string{`{"exchange":"in"}`, `{"exchange":"in","queue":"q","to":"rest"}`, `{"filter":"a","to":"rest"}`, `{"exchange":"in","queue":"q","match":"some"}`, `{"filter":"a","queue":"q","match":"all"}`} {
		d.refused(400, "bad-request", "POST", "/v1/bindings", bad)
	}
	d.want(201, "POST", "/x/rest", "over two", "X-H-Size: 1")
	d.want(201, "POST", "/x/rest", "nowhere")
	if a := d.want(200, "GET", "/q/q", ""); !strings.Contains(a.body, "over two") || strings.Contains(a.body, "nowhere") {
		t.Error(a.body)
	}
	if a := d.want(200, "GET", "/v1/bindings?exchange=rest", ""); !strings.Contains(a.body, `"to":"in"`) || !strings.Contains(a.body, `"total":1`) {
		t.Error(a.body)
	}
	if a := d.want(200, "GET", "/v1/bindings?queue=q&limit=1", ""); !strings.Contains(a.body, `"total":2`) || !strings.Contains(a.body, `"next":`) {
		t.Error(a.body)
	}
	d.want(204, "DELETE", "/v1/bindings?exchange=rest&to=in", "")
	d.refused(404, "not-found", "DELETE", "/v1/bindings?exchange=rest&to=in", "")
	d.want(204, "DELETE", "/v1/bindings?exchange=in&queue=q&where=%22color%22%20%3D%20%27red%27%20OR%20%22size%22%20IS%20NOT%20NULL", "")
}
