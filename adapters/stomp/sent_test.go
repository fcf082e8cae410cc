package stomp

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

// TestSentMessages compares with a list of all that was ever sent.
func TestSentMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sentMessages
		var naive []sentMessage
		next := core.Offset(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "send") || len(naive) == 0 {
				next++
				s.push(next)
				naive = append(naive, sentMessage{next, waiting})
				continue
			}
			at := core.Offset(rapid.IntRange(1, int(next)+1).Draw(t, "at"))
			switch what := rapid.IntRange(0, 3).Draw(t, "what"); what {
			case 0, 1:
				through := what == 1
				to := rapid.SampledFrom([]sentState{pending, settled}).Draw(t, "to")
				got, ok := s.take(nil, at, through, to)
				i := slices.IndexFunc(naive, func(m sentMessage) bool { return m.at == at && m.state == waiting })
				if ok != (i >= 0) {
					t.Fatalf("take %d: %v", at, ok)
				}
				var want []core.Offset
				for j := range naive {
					if (j == i || through && j < i) && naive[j].state == waiting {
						naive[j].state = to
						want = append(want, naive[j].at)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("take %d through %v: %d, want %d", at, through, got, want)
				}
			default:
				to := []sentState{waiting, settled}[what-2]
				s.resolve(at, to)
				for j := range naive {
					if naive[j].at == at && naive[j].state == pending {
						naive[j].state = to
					}
				}
			}
			live := 0
			for _, m := range naive {
				if m.state != settled {
					live++
				}
			}
			if len(s.list) > 2*live+1 {
				t.Fatalf("%d places for %d messages", len(s.list), live)
			}
		}
	})
}
