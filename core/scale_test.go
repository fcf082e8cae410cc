package core_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A weighed engine knows how many bytes of state changes it was handed.
type weighed struct {
	*coretest.Engine
	changes atomic.Int64
}

func (w *weighed) Append(b *core.Batch, done func(*core.Batch, core.Offset, error)) {
	for _, c := range b.Changes {
		w.changes.Add(int64(len(c.Key) + len(c.Value)))
	}
	w.Engine.Append(b, done)
}

// BenchmarkManyLeases measures one lease, and its settlement, of a queue of
// which many are outstanding: the processor's time, and the bytes of the state
// that are written.
func BenchmarkManyLeases(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ctx := context.Background()
			engine := &weighed{Engine: coretest.NewEngine()}
			broker, err := core.Open(ctx, core.Options{Engine: engine, Limits: core.Limits{Outstanding: 2_000_000}})
			if err != nil {
				b.Fatal(err)
			}
			defer broker.Close(ctx)
			c, err := broker.Connect(ctx, core.Credentials{Client: "bench", Protocol: "bench"}, nil)
			if err != nil {
				b.Fatal(err)
			}
			for range n + b.N {
				if err := c.Publish(ctx, &core.Envelope{Topic: "$queue/q", Guarantee: core.AtLeastOnce}, 0); err != nil {
					b.Fatal(err)
				}
			}
			if err := c.CatchUp(ctx); err != nil {
				b.Fatal(err)
			}
			lease := func(n int) []core.Lease {
				ls, err := c.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: n, Wait: 10 * time.Second, For: time.Hour})
				if err != nil || len(ls) == 0 {
					b.Fatal(len(ls), err)
				}
				return ls
			}
			for left := n; left > 0; {
				left -= len(lease(min(left, 1000)))
			}
			engine.changes.Store(0)
			b.ResetTimer()
			for range b.N {
				l := lease(1)[0]
				if err := c.SettleLease(ctx, l.Token, core.Accepted, core.SettleOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(engine.changes.Load())/float64(b.N), "state-B/op")
		})
	}
}
