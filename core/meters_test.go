package core

import (
	"slices"
	"testing"
)

// What was found of metered queues stays whole while one of them goes: the
// publisher who counts goes through it without a lock.
func TestFoundMetersStayAsTheyWere(t *testing.T) {
	var m meters
	qs := []*queue{{}, {}, {}}
	for _, q := range qs {
		m.set(q, []*bound{{Binding: Binding{Filter: "t"}}})
	}
	found := m.find("t", nil)
	m.set(qs[0], nil)
	m.set(&queue{}, []*bound{{Binding: Binding{Filter: "t"}}})
	if !slices.Equal(found, qs) {
		t.Errorf("found %v, and now it is %v", qs, found)
	}
	if now := m.find("t", nil); len(now) != 3 || slices.Contains(now, qs[0]) {
		t.Errorf("then %v of %v are found", now, qs)
	}
}
