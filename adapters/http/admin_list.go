package http

import (
	"container/heap"
	"encoding/base64"
	"encoding/json"
	"iter"
	nethttp "net/http"
	"slices"
	"strings"
)

// listMost is the longest page of a list, listPage how long one is that is not
// asked for.
const (
	listMost = 1000
	listPage = 100
)

// A listing is a list of /v1/: what its items are called, which is their order
// where nothing else is asked for and settles what else leaves open, and what
// else they may be sorted by.
type listing[T any] struct {
	name func(*T) string
	keys map[string]func(*T) int64
}

// parameters are what every list may be asked for, beside its own.
func (l listing[T]) parameters(own ...string) []string {
	return append([]string{"after", "limit", "sort"}, own...)
}

// afterWanted is what ?after= has to be.
const afterWanted = "what next said of the page before"

// A place is where an item stands in a list.
type place struct {
	Key  int64  `json:"k,omitempty"`
	Name string `json:"n"`
}

// A pageOf is a page of a list, and where to go on.
type pageOf[T any] struct {
	Items []T `json:"items"`
	// Next goes into ?after=.
	Next string `json:"next,omitempty"`
	// Total is how many items there are on all pages together.
	Total int `json:"total"`
}

// page picks a page out of items: ?sort=key, descending with a minus in front,
// ?limit= and ?after=, which is what next said of the page before: the last
// name where the order is that of names. It keeps no more than a page, however
// many items there are.
func (l listing[T]) page(q *query, items iter.Seq[T]) pageOf[T] {
	limit := q.int("limit", listPage, 1, listMost)
	key := func(*T) int64 { return 0 }
	by, down := strings.CutPrefix(q.string("sort"), "-")
	switch k := l.keys[by]; {
	case k != nil:
		key = k
	case by != "" && by != "name":
		names := []string{"name"}
		for n := range l.keys {
			names = append(names, n)
		}
		slices.Sort(names)
		q.bad("sort", strings.Join(names, ", ")+", with a minus in front for the largest first")
	}
	var after place
	named := by == "" || by == "name"
	if after.Name = q.string("after"); !named && q.has("after") {
		b, err := base64.RawURLEncoding.DecodeString(q.string("after"))
		if err == nil {
			after = place{}
			err = unmarshalStrict(b, &after)
		}
		if err != nil {
			q.bad("after", afterWanted)
		}
	}
	if q.err != nil {
		return pageOf[T]{}
	}
	h := &pageHeap[T]{down: down}
	p := pageOf[T]{Items: []T{}}
	for item := range items {
		p.Total++
		at := place{key(&item), l.name(&item)}
		if q.has("after") && !h.before(after, at) {
			continue
		}
		if len(h.items) <= limit {
			heap.Push(h, placed[T]{at, item})
		} else if h.before(at, h.items[0].place) {
			h.items[0] = placed[T]{at, item}
			heap.Fix(h, 0)
		}
	}
	slices.SortFunc(h.items, func(a, b placed[T]) int {
		if h.before(a.place, b.place) {
			return -1
		}
		return 1
	})
	if len(h.items) > limit {
		h.items = h.items[:limit]
		p.Next = h.items[limit-1].Name
		if !named {
			b, err := json.Marshal(h.items[limit-1].place)
			if err != nil {
				panic(err) // a number and a string
			}
			p.Next = base64.RawURLEncoding.EncodeToString(b)
		}
	}
	for i := range h.items {
		p.Items = append(p.Items, h.items[i].item)
	}
	return p
}

type placed[T any] struct {
	place
	item T
}

// A pageHeap is a page and the item behind it, the last one first.
type pageHeap[T any] struct {
	items []placed[T]
	down  bool
}

// before reports whether one place is in front of another.
func (h *pageHeap[T]) before(a, b place) bool {
	switch {
	case a.Key != b.Key:
		return (a.Key < b.Key) != h.down
	default:
		return a.Name != b.Name && (a.Name < b.Name) != h.down
	}
}

func (h *pageHeap[T]) Len() int           { return len(h.items) }
func (h *pageHeap[T]) Less(i, j int) bool { return h.before(h.items[j].place, h.items[i].place) }
func (h *pageHeap[T]) Swap(i, j int)      { h.items[i], h.items[j] = h.items[j], h.items[i] }
func (h *pageHeap[T]) Push(x any)         { h.items = append(h.items, x.(placed[T])) }
func (h *pageHeap[T]) Pop() any {
	last := len(h.items) - 1
	x := h.items[last]
	h.items = h.items[:last]
	return x
}

// answerPage answers with a page of a list.
func answerList[T any](s *Server, w nethttp.ResponseWriter, r *nethttp.Request, p pageOf[T]) {
	s.answerTagged(w, r, 200, p, tagOf(p))
}
