package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A topic leads to the same queues however they are looked for.
func TestQueuesThatNeedATopic(t *testing.T) {
	levels := []string{"", "a", "b", "+"}
	var filters []Filter
	add := func(s string) {
		if f, err := ParseFilter(s); err == nil {
			filters = append(filters, f)
		}
	}
	for _, x := range levels {
		for _, tail := range []string{"", "/#"} {
			add(x + tail)
			for _, y := range levels {
				add(x + "/" + y + tail)
				for _, z := range levels {
					add(x + "/" + y + "/" + z + tail)
				}
			}
		}
	}
	add("#")
	n := &brokerNeeds{}
	for i, f := range filters {
		// Two bindings each, the second one another queue's too.
		bs := []*bound{{Binding: Binding{Filter: f}}, {Binding: Binding{Filter: filters[(7*i+1)%len(filters)]}}}
		n.queues = append(n.queues, queueNeeds{bindings: &bs})
	}
	for _, f := range filters {
		topic := strings.NewReplacer("+", "c", "#", "d").Replace(string(f))
		var want []string
		for i := range n.queues {
			if slices.ContainsFunc(*n.queues[i].bindings, func(bd *bound) bool { return bd.Filter.Match(topic) }) {
				want = append(want, fmt.Sprintf("%p", &n.queues[i]))
			}
		}
		var got []string
		for _, q := range n.queuesOf(topic) {
			got = append(got, fmt.Sprintf("%p", q))
		}
		slices.Sort(got)
		slices.Sort(want)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%q leads to %d queues, want %d", topic, len(got), len(want))
		}
	}
}
