package seglog

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/crashtest"
	"github.com/sluicemq/sluice/storage/vfs"
)

var (
	crashTime = flag.Duration("crash.time", time.Second, "how long random workloads are crashed; 0 is until told to stop")
	crashSeed = flag.Uint64("crash.seed", 0, "the seed of the one random workload that is crashed; 0 is one after the other")
)

// crashed is the broker on a log whose segments are small, so that a little
// makes many, is recycled and rewritten.
func crashed() *crashtest.Harness {
	return &crashtest.Harness{
		Disorder: []string{"/data/log"},
		Open: func(ctx context.Context, fs vfs.FS) (core.Engine, error) {
			l, err := Open(ctx, small(fs))
			if err != nil {
				return nil, err
			}
			return l, nil
		},
	}
}

// TestBrokerCrashEverywhere crashes the broker at each call that changes a file.
func TestBrokerCrashEverywhere(t *testing.T) {
	every := 1
	if *crashImages > 0 {
		every = 4000 / *crashImages
	}
	r := crashed().Everywhere(t.Context(), 1, 400, every)
	t.Logf("%d crashes, %d confirms", r.Crashes, r.Confirms)
	for _, f := range r.Faults {
		t.Error(f)
	}
}

// TestBrokerCrashRandom crashes random workloads at random calls, again and
// again.
func TestBrokerCrashRandom(t *testing.T) {
	began := time.Now()
	for seed := max(*crashSeed, 1); ; seed++ {
		r := crashed().Random(t.Context(), seed, 8, 150)
		t.Logf("seed %d: %d crashes, %d confirms", seed, r.Crashes, r.Confirms)
		for _, f := range r.Faults {
			t.Error(f)
		}
		if t.Failed() || *crashSeed != 0 || *crashTime != 0 && time.Since(began) > *crashTime {
			return
		}
	}
}
