package seglog

import (
	"context"
	"log/slog"
	"maps"
	"testing"

	"github.com/sluicemq/sluice/core"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
	"github.com/sluicemq/sluice/storage/vfs"
	"pgregory.net/rapid"
)

// A segment that was closed and opened in between, and then sealed, is not
// missing what stands in front of where it was opened.
func TestSealedAfterReopening(t *testing.T) {
	fs := vfs.NewMemory()
	for round := range 4 {
		heard := &listener{}
		o := small(fs)
		o.Logger = slog.New(heard)
		l, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		appendWait(t, l, batchOf(true, "a", "b"))
		if round%2 == 1 {
			if err := l.request(context.Background(), l.seal); err != nil {
				t.Fatal(err)
			}
			indexAll(t, l)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if said := heard.lines(); len(said) > 0 {
			t.Errorf("round %d: %q", round, said)
		}
	}
}

// TestAddGap compares with a list of single offsets.
func TestAddGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var gaps []gap
		want := make(map[core.Offset]bool)
		for range rapid.IntRange(1, 12).Draw(t, "gaps") {
			from := core.Offset(rapid.IntRange(1, 40).Draw(t, "from"))
			g := gap{From: from, To: from + core.Offset(rapid.IntRange(0, 20).Draw(t, "length")), Lost: rapid.Bool().Draw(t, "lost")}
			for at := g.From; at < g.To; at++ {
				if _, has := want[at]; !has {
					want[at] = g.Lost
				}
			}
			gaps = addGap(gaps, g)
		}
		have := make(map[core.Offset]bool)
		end := core.Offset(0)
		for _, g := range gaps {
			if g.From >= g.To || g.From < end {
				t.Fatalf("%v", gaps)
			}
			end = g.To
			for at := g.From; at < g.To; at++ {
				have[at] = g.Lost
			}
		}
		if !maps.Equal(have, want) {
			t.Fatalf("%v, want %v", have, want)
		}
	})
}
