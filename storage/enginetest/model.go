package enginetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// testModel does the same random things to an engine and to the model, and
// compares what they say.
func testModel(t *testing.T, open func(t *testing.T) core.Engine) {
	names := rapid.SampledFrom([]string{"a", "a/b", "a/b/c", "b", "b/b", "$s/a", "/", "a/"})
	filters := rapid.SampledFrom([]core.Filter{"a", "a/b", "+", "#", "+/b", "a/#", "$s/#", "a/+/c", "/"})
	keys := rapid.SampledFrom([]string{"", "k", "k/1", "k/2", "l", "\xff"})
	rapid.Check(t, func(rt *rapid.T) {
		e, m := open(t), coretest.NewEngine()
		defer func() {
			if err := e.Close(context.Background()); err != nil {
				rt.Errorf("close: %v", err)
			}
		}()
		now := int64(start)
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				now += rapid.Int64Range(0, 5).Draw(rt, "later")
				b := &core.Batch{Time: now, Sync: rapid.Bool().Draw(rt, "sync")}
				for _, topic := range rapid.SliceOfN(names, 0, 40).Draw(rt, "topics") {
					add(b, topic, make([]byte, rapid.IntRange(0, 300).Draw(rt, "size")))
				}
				for range rapid.IntRange(0, 3).Draw(rt, "changes") {
					c := core.Change{Key: keys.Draw(rt, "key")}
					if rapid.Bool().Draw(rt, "set") {
						c.Value = []byte(rapid.StringN(0, 5, 5).Draw(rt, "value"))
						c.OffsetOf = rapid.IntRange(0, b.Len()).Draw(rt, "of")
					}
					b.Changes = append(b.Changes, c)
				}
				if x, y := put(t, e, b), put(t, m, b); x != y {
					rt.Fatalf("appended at %d, the model at %d", x, y)
				}
			},
			"read": func(rt *rapid.T) {
				_, end := m.Bounds()
				from := core.Offset(rapid.Uint64Range(1, uint64(end)).Draw(rt, "from"))
				limit := core.Offset(rapid.Uint64Range(0, uint64(end)+2).Draw(rt, "limit"))
				var set *core.FilterSet
				if rapid.Bool().Draw(rt, "filtered") {
					set = core.NewFilterSet(rapid.SliceOfN(filters, 1, 3).Draw(rt, "filters")...)
				}
				most := rapid.IntRange(1, 50).Draw(rt, "most")
				x, y := read(t, e, from, limit, set, most), read(t, m, from, limit, set, most)
				if !slices.Equal(x.offsets, y.offsets) || !slices.Equal(x.topics, y.topics) || len(x.gaps) > 0 {
					rt.Fatalf("read %v, gaps %v, the model %v", x.offsets, x.gaps, y.offsets)
				}
			},
			"topics": func(rt *rapid.T) {
				f, after := filters.Draw(rt, "filter"), rapid.SampledFrom([]string{"", "a", "a/b", "b", "\xff"}).Draw(rt, "after")
				limit, not := rapid.IntRange(1, 9).Draw(rt, "limit"), names.Draw(rt, "not")
				keep := func(topic string) bool { return topic != not }
				x, err := e.Topics(context.Background(), f, after, limit, keep)
				y, _ := m.Topics(context.Background(), f, after, limit, keep)
				if err != nil || !slices.Equal(x, y) {
					rt.Fatalf("topics %v, %v, the model %v", x, err, y)
				}
			},
			"state": func(rt *rapid.T) {
				prefix, from := keys.Draw(rt, "prefix"), keys.Draw(rt, "from")
				if x, y := collect(e, prefix, from), collect(m, prefix, from); !maps.Equal(x, y) {
					rt.Fatalf("state %q, the model %q", x, y)
				}
				key := keys.Draw(rt, "key")
				x, err := e.Get(key)
				y, _ := m.Get(key)
				if err != nil || string(x) != string(y) || (x == nil) != (y == nil) {
					rt.Fatalf("%q is %q, %v, the model's %q", key, x, err, y)
				}
			},
			"": func(rt *rapid.T) {
				ef, ee := e.Bounds()
				mf, me := m.Bounds()
				if ef != mf || ee != me {
					rt.Fatalf("bounds %d, %d, the model's %d, %d", ef, ee, mf, me)
				}
			},
		})
	})
}

func collect(e core.Engine, prefix, from string) map[string]string {
	m := make(map[string]string)
	for s, err := range e.State(prefix, from) {
		if err != nil {
			return map[string]string{"error": err.Error()}
		}
		m[fmt.Sprintf("%q", s.Key)] = string(s.Value)
	}
	return m
}
