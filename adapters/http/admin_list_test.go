package http

import (
	"cmp"
	"encoding/base64"
	"fmt"
	nethttp "net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

type listed struct {
	name string
	size int64
}

var listedList = listing[listed]{
	name: func(l *listed) string { return l.name },
	keys: map[string]func(*listed) int64{"size": func(l *listed) int64 { return l.size }},
}

// Pages, one after the other, are the list sorted at once.
func TestPagesAreTheSortedList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Int64Range(-2, 3), 0, 30).Draw(t, "sizes")
		var items []listed
		for i, size := range sizes {
			items = append(items, listed{fmt.Sprintf("n%02d", i), size})
		}
		by := rapid.SampledFrom([]string{"", "name", "-name", "size", "-size"}).Draw(t, "sort")
		limit := rapid.IntRange(1, 7).Draw(t, "limit")
		want := slices.Clone(items)
		slices.SortFunc(want, func(a, b listed) int {
			c := strings.Compare(a.name, b.name)
			if strings.HasSuffix(by, "size") {
				c = cmp.Or(cmp.Compare(a.size, b.size), c)
			}
			if by != "" && by[0] == '-' {
				c = -c
			}
			return c
		})
		items = rapid.Permutation(items).Draw(t, "order")
		var got []listed
		after := url.Values{"sort": {by}, "limit": {fmt.Sprint(limit)}}
		if by == "" {
			after.Del("sort")
		}
		for {
			q := queryOf(nethttp.NewRequest("GET", "/v1/x?"+after.Encode(), nil), listedList.parameters()...)
			p := listedList.page(&q, slices.Values(items))
			if q.err != nil {
				t.Fatal(q.err)
			}
			if p.Total != len(items) || len(p.Items) > limit {
				t.Fatalf("a page of %d of %d", len(p.Items), p.Total)
			}
			got = append(got, p.Items...)
			if p.Next == "" {
				break
			}
			after.Set("after", p.Next)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("sort=%s limit=%d: %v, want %v", by, limit, got, want)
		}
	})
}

func TestListsRefuse(t *testing.T) {
	for _, bad := range []string{"sort=weight", "sort=size&after=!", "sort=size&after=" + base64.RawURLEncoding.EncodeToString([]byte("{}x")), "limit=0", "limit=1001", "order=up"} {
		q := queryOf(nethttp.NewRequest("GET", "/v1/x?"+bad, nil), listedList.parameters()...)
		if listedList.page(&q, slices.Values([]listed{{"a", 1}})); q.err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
