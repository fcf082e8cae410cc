package core_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// The last n of a topic are found however much of others stands behind them, and
// however much of its own in front.
func TestLastOfManyOthers(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		const early, late = 500, 21_000
		for i := range early {
			p.publish("some", fmt.Sprint(i))
		}
		for range late {
			p.publish("others", "x")
		}
		for _, last := range []int{1, 3, 249, 250, 499, 500, 501, 1000} {
			page, err := p.Read(ctx, core.ReadRequest{Filters: []core.Filter{"some"}, From: core.FromLast(last), Limit: 1})
			if err != nil || len(page.Messages) != 1 {
				t.Fatalf("%+v, %v", page, err)
			}
			if got, want := string(page.Messages[0].Payload), fmt.Sprint(max(early-last, 0)); got != want {
				t.Errorf("the last %d begin with %s, not %s", last, got, want)
			}
		}
	})
}
