package core_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// What was released comes again when its time has passed, and a lease ends when
// its has, whatever happens to the clock: while the broker runs, while it is
// stopped, or between its being killed and its being started.
func TestClockJumpsAndRedelivery(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 5 * year, "back": -5 * year, "not at all": 0} {
		for _, how := range []string{"running", "stopped", "killed"} {
			t.Run(fmt.Sprint(name, ", ", how), func(t *testing.T) {
				runAging(t, false, func(w *world, set func(time.Duration)) {
					ctx := context.Background()
					a := w.peer("a")
					a.publish("$queue/q", "leased", "released")
					leases, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 2, For: 10 * time.Minute})
					if err != nil || len(leases) != 2 {
						t.Fatalf("%d leases, %v", len(leases), err)
					}
					if until := time.Until(leases[0].Until); until != 10*time.Minute {
						t.Fatalf("the lease is said to end in %v", until)
					}
					if err := a.SettleLease(ctx, leases[1].Token, core.Released, core.SettleOptions{Delay: 5 * time.Minute}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
					synctest.Wait()
					image := w.engine.Clone()
					switch how {
					case "stopped":
						w.close()
						set(by)
						w.open()
					case "killed":
						w.close()
						w.engine, w.o.Engine = image, image
						set(by)
						w.open()
					default:
						set(by)
					}
					b := w.peer("b")
					k := b.consume("q")
					k.Grant(plenty)
					early := how != "running" && by > 0 // then the clock may be right
					if how == "running" {
						b.want()
					} else if early {
						b.want("leased", "released")
						return
					} else {
						// Nobody is known to have it any more.
						got := b.deliveries()
						if len(got) != 1 || string(got[0].Payload) != "leased" {
							t.Fatalf("got %v", got)
						}
						if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(4*time.Minute - 2*time.Second)
					b.want()
					time.Sleep(2*time.Second + 20*time.Second)
					if how == "killed" && by < 0 {
						// The clock cannot tell what has passed since the log's
						// newest mark, which is older.
						time.Sleep(time.Minute)
					}
					got := b.deliveries()
					if len(got) != 1 || string(got[0].Payload) != "released" {
						t.Fatalf("got %v", got)
					}
					if how == "running" {
						if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
							t.Fatal(err)
						}
						time.Sleep(5*time.Minute - 30*time.Second)
						b.want()
						set(-by)
						time.Sleep(10 * time.Second)
						b.want("leased")
					}
				})
			})
		}
	}
}
