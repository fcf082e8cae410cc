//go:build seededbugs

package seglog

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

var allBugs = flag.Bool("bugs.all", false, "look for all seeded bugs, also for those that take longer to be found")

// quick are bugs that show within a few workloads.
var quick = []seeded.Bug{
	seeded.ShortWriteAccepted, seeded.NoDirSync, seeded.TornTailContinued, seeded.LostAckState, seeded.AttemptsForgotten,
	seeded.RejectForgotten, seeded.DoubleDeadLetter, seeded.OnceForgotten, seeded.LostSettings,
	seeded.FreedUnnoted, seeded.MovedApart, seeded.CancelForgotten, seeded.WillOrphaned,
}

// TestSeededBugs switches on one bug after the other: the harness must find each
// of them, and nothing without any. Four have tests of their own to find them,
// as has ReclaimedEarly in core.
func TestSeededBugs(t *testing.T) {
	for seed := range uint64(3) {
		for _, f := range crashed().Random(t.Context(), seed+1, 8, 150).Faults {
			t.Errorf("without a bug: %s", f)
		}
	}
	t.Run(string(seeded.SpareUnsynced), func(t *testing.T) {
		seeded.Switch(seeded.SpareUnsynced)
		defer seeded.Switch("")
		if !spareWrittenEarly(t) {
			t.Error("not found")
		}
	})
	t.Run(string(seeded.LastFrameDropped), func(t *testing.T) {
		seeded.Switch(seeded.LastFrameDropped)
		defer seeded.Switch("")
		if !lastFrameLost(t) {
			t.Error("not found")
		}
	})
	t.Run(string(seeded.StaleFrames), func(t *testing.T) {
		seeded.Switch(seeded.StaleFrames)
		defer seeded.Switch("")
		if !formerFound(t) {
			t.Error("not found")
		}
	})
	t.Run(string(seeded.RewriteNoDirSync), func(t *testing.T) {
		seeded.Switch(seeded.RewriteNoDirSync)
		defer seeded.Switch("")
		lost := lostInMerge(t)
		if lost == "" {
			t.Error("not found")
		}
		t.Log(lost)
	})
	for _, bug := range seeded.Bugs() {
		if !*allBugs && !slices.Contains(quick, bug) {
			continue
		}
		t.Run(string(bug), func(t *testing.T) {
			seeded.Switch(bug)
			defer seeded.Switch("")
			began := time.Now()
			h := crashed()
			h.Patience = 2 * time.Second // more than what has no room waits for
			for seed := uint64(1); seed <= 500; seed++ {
				r := h.Random(t.Context(), seed, 8, 150)
				if seed%30 == 0 && len(r.Faults) == 0 {
					r = h.Everywhere(t.Context(), seed, 200, 1)
				}
				if len(r.Faults) > 0 {
					t.Logf("found after %d workloads, %v: %.200s", seed, time.Since(began).Round(time.Millisecond), r.Faults[0])
					return
				}
			}
			t.Errorf("not found within %v", time.Since(began).Round(time.Millisecond))
		})
	}
}
