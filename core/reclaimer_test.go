package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A sealing engine says when there may be something to reclaim, and notes when it
// is asked to.
type sealing struct {
	*coretest.Engine
	sealed    chan struct{}
	takes     time.Duration
	reclaimed []time.Time
}

func (s *sealing) Sealed() <-chan struct{} { return s.sealed }

func (s *sealing) Reclaim(ctx context.Context, r core.Retention) (core.Reclaimed, error) {
	s.reclaimed = append(s.reclaimed, time.Now())
	time.Sleep(s.takes)
	return s.Engine.Reclaim(ctx, r)
}

// Where the engine has something to free, that is freed at once, and not only
// when it is time to look; but it never takes more than a small share of the time.
func TestReclaimedWhenSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		e := &sealing{Engine: coretest.NewEngine(), sealed: make(chan struct{}, 1), takes: 50 * time.Millisecond}
		b, err := core.Open(ctx, core.Options{Engine: e, Policies: []core.Policy{{Name: "all", Bytes: 1}}, ReclaimEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 3 {
			select {
			case e.sealed <- struct{}{}:
			default:
			}
			synctest.Wait()
		}
		time.Sleep(30 * time.Minute)
		if err := b.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(e.reclaimed); n != 2 {
			t.Fatalf("reclaimed %d times after three signals, of which two came while the first was obeyed; want 2", n)
		}
		if d := e.reclaimed[0].Sub(began); d > time.Second {
			t.Errorf("reclaimed %v after the engine asked for it", d)
		}
		for i := range e.reclaimed[1:] {
			if d := e.reclaimed[i+1].Sub(e.reclaimed[i]); d < 20*e.takes {
				t.Errorf("reclaimed again after %v, though it takes %v", d, e.takes)
			}
		}
	})
}
