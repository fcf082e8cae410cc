package http_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// What waits for its time is listed page by page, shown, and cancelled: one, or
// a selection.
func TestDelayedMessages(t *testing.T) {
	d := open(t)
	offsets := make(map[string]string)
	for i := range 5 {
		name := fmt.Sprint("m", i)
		a := d.want(201, "POST", fmt.Sprint("/t/shop/", i%2), name, fmt.Sprintf("X-Delay: %dm", 60-i), "X-Key: k", "X-H-Color: red")
		offsets[name] = a.Header.Get("X-Offset")
	}
	d.want(201, "POST", "/q/jobs", "job", "X-Delay: 2h", "X-Priority: 7")
	type item struct {
		Offset  json.Number
		Topic   string
		Due     int64
		Message struct {
			D, T string
			H    map[string]string
		}
	}
	list := func(query url.Values) (got []string) {
		t.Helper()
		for more := true; more; {
			var page struct {
				Items []item
				Next  string
			}
			if err := json.Unmarshal([]byte(d.want(200, "GET", "/v1/delayed?"+query.Encode(), "").body), &page); err != nil {
				t.Fatal(err)
			}
			for _, i := range page.Items {
				got = append(got, i.Topic)
				least, most := 50*time.Minute, time.Hour
				if i.Topic == "$queue/jobs" {
					least, most = 110*time.Minute, 2*time.Hour
				}
				// Due is a whole millisecond, the first that is not too early.
				if left := time.Until(time.UnixMilli(i.Due)); left < least || left > most+time.Millisecond {
					t.Errorf("%s is due in %s", i.Topic, left)
				}
			}
			query.Set("after", page.Next)
			more = page.Next != ""
		}
		return got
	}
	for _, c := range []struct{ query, want string }{
		{"", "shop/0 shop/1 shop/0 shop/1 shop/0 $queue/jobs"},
		{"limit=2", "shop/0 shop/1 shop/0 shop/1 shop/0 $queue/jobs"},
		{"limit=1&filter=shop/0", "shop/0 shop/0 shop/0"},
		{"where=priority > 5", "$queue/jobs"},
		{"filter=$queue/jobs", "$queue/jobs"},
		{"filter=other/%23", ""},
	} {
		query, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(list(query), " "); got != c.want {
			t.Errorf("%s: %s", c.query, got)
		}
	}
	var one item
	a := d.want(200, "GET", "/v1/delayed/"+offsets["m2"], "")
	if err := json.Unmarshal([]byte(a.body), &one); err != nil || one.Message.D != "m2" || one.Message.T != "shop/0" || one.Message.H["color"] != "red" || one.Offset.String() != offsets["m2"] {
		t.Errorf("%s %v", a.body, err)
	}
	d.want(204, "DELETE", "/v1/delayed/"+offsets["m2"], "")
	d.refused(404, "not-found", "DELETE", "/v1/delayed/"+offsets["m2"], "")
	d.refused(404, "not-found", "GET", "/v1/delayed/"+offsets["m2"], "")
	for _, c := range []struct{ body, want string }{
		{`{"filters":["shop/#"],"limit":1,"dry_run":true}`, `"messages":1,`},
		{`{"filters":["shop/#"],"dry_run":true}`, `"messages":4,`},
		{`{"filters":["shop/1"]}`, `"messages":2,`},
		{`{"offsets":[` + offsets["m0"] + `,` + offsets["m1"] + `]}`, `"messages":1,`},
		{`{"where":"priority = 7"}`, `"messages":1,`},
		{`{}`, `"messages":1,`},
		{`{}`, `"messages":0,`},
	} {
		if got := d.want(200, "POST", "/v1/delayed/cancel", c.body).body; !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.body, got)
		}
	}
	for _, path := range []string{"/v1/delayed?after=!", "/v1/delayed?filter=a%23", "/v1/delayed?where=a+%3D", "/v1/delayed?limit=0", "/v1/delayed/0", "/v1/delayed/x"} {
		d.want(400, "GET", path, "")
	}
	d.refused(400, "bad-request", "POST", "/v1/delayed/cancel", `{"where":"a ="}`)
}
