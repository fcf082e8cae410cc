package core_test

import (
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core/coretest"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

// The checker finds each fault that is put into a good history.
func TestHistoryFindsFaults(t *testing.T) {
	good := func(h *coretest.History) {
		h.Ordered = true
		h.Published("a1", "a")
		h.Published("a2", "a")
		h.Published("b", "")
		h.Delivered("x", "a1", 1)
		h.Delivered("y", "b", 1)
		h.Left("y")
		h.Delivered("x", "b", 2)
		h.Settling("b", false)
		h.Delivered("x", "b", 3)
		h.Settling("a1", true)
		h.Settled("a1")
		h.Settling("b", true)
		h.Dead("b")
		h.Delivered("z", "a2", 1)
		h.Settling("a2", true)
	}
	for name, bad := range map[string]func(*coretest.History){
		"":             func(*coretest.History) {},
		"which nobody": func(h *coretest.History) { h.Delivered("x", "c", 1) },
		"after it was": func(h *coretest.History) { h.Delivered("x", "a1", 2) },
		"is lost":      func(h *coretest.History) { h.Published("c", "") },
		"2 times":      func(h *coretest.History) { h.Dead("b") },
		"held it":      func(h *coretest.History) { h.Published("c", ""); h.Delivered("x", "c", 1); h.Delivered("y", "c", 2) },
		"after attempt": func(h *coretest.History) {
			h.Published("c", "")
			h.Delivered("x", "c", 1)
			h.Left("x")
			h.Delivered("y", "c", 1)
		},
		"had at most":    func(h *coretest.History) { h.Published("c", ""); h.Delivered("x", "c", 2) },
		"the same key":   func(h *coretest.History) { h.Published("c", "c"); h.Published("d", "c"); h.Delivered("x", "d", 1) },
		"was accepted":   func(h *coretest.History) { h.Dead("a1") },
		"is still there": func(h *coretest.History) { h.End("a1") },
	} {
		h := coretest.NewHistory()
		good(h)
		bad(h)
		faults := strings.Join(h.End(), "; ")
		if (name == "") != (faults == "") || !strings.Contains(faults, name) {
			t.Errorf("%q: %s", name, faults)
		}
	}
}
