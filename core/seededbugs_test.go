//go:build seededbugs

package core_test

import (
	"testing"

	"github.com/sluicemq/sluice/core/seeded"
)

// The test of what is freed finds the bug that it is there for.
func TestSeededBugs(t *testing.T) {
	defer seeded.Switch("")
	if seeded.Switch(seeded.ReclaimedEarly); !freedEarly(t) {
		t.Error("not found:", seeded.ReclaimedEarly)
	}
}
