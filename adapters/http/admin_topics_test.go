package http_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

// A reader may publish everything and read all but "secret".
type reader struct{ core.AllowAll }

func (reader) Authorize(_ *core.Principal, a core.Action, resource string) error {
	if a != core.Publish && resource == "secret" {
		return core.ErrNotAuthorized
	}
	return nil
}

// TestTopicsList goes through the list page by page; what may not be read is not
// in it.
func TestTopicsList(t *testing.T) {
	d := open(t, func(_ *http.Options, o *core.Options) { o.Authorizer = reader{} })
	type item struct {
		Topic           string
		Messages, Bytes int64
		Last            core.Offset
	}
	page := func(query string) (items []item, next string, a answer) {
		a = d.want(200, "GET", "/v1/topics"+query, "")
		var p struct {
			Items []item
			Next  string
		}
		if err := json.Unmarshal([]byte(a.body), &p); err != nil {
			t.Fatal(err)
		}
		return p.Items, p.Next, a
	}
	if items, _, _ := page(""); len(items) != 0 {
		t.Errorf("an empty log has %v", items)
	}
	var want []string
	for i := range 25 {
		topic := fmt.Sprintf("a/%02d", i)
		want = append(want, topic)
		d.want(201, "POST", "/t/"+topic, "x")
	}
	d.want(201, "POST", "/t/secret", "x")
	d.want(201, "POST", "/t/b%20c", "hello")
	d.want(201, "POST", "/t/b%20c", "again")
	want = append(want, "b c")
	var got []string
	for after := ""; ; {
		items, next, _ := page("?limit=7&after=" + after)
		for _, i := range items {
			got = append(got, i.Topic)
		}
		if after = next; next == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	items, next, a := page("?filter=%2B&limit=1")
	if len(items) != 1 || items[0].Topic != "b c" || items[0].Messages != 2 || items[0].Bytes < 10 || items[0].Last != 28 || next != "" {
		t.Errorf("%+v %q", items, next)
	}
	if tag := a.Header.Get("Etag"); d.want(304, "GET", "/v1/topics?filter=%2B&limit=1", "", "If-None-Match: "+tag).body != "" {
		t.Error("a list that is as it was has a body")
	}
}
