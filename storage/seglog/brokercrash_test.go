package seglog

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path"
	"sync/atomic"
	"syscall"
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
// makes many, is recycled and rewritten, and that is busy and quiet by turns.
func crashed() *crashtest.Harness {
	var looks atomic.Int64
	return &crashtest.Harness{
		Disorder: []string{"/data/log"},
		Failing:  "/data/log/",
		Watch:    untouched,
		Open: func(ctx context.Context, fs vfs.FS) (core.Engine, error) {
			o := small(fs)
			o.Busy = func(int64, time.Duration) bool { return looks.Add(1)%16 < 8 }
			l, err := Open(ctx, o)
			if err != nil {
				return nil, err
			}
			// No crash costs a segment, whatever retention was about to free.
			if len(l.asides) > 0 {
				return nil, errors.Join(fmt.Errorf("segments %d are said to be missing", l.asides), l.Close(ctx))
			}
			return l, nil
		},
	}
}

// untouched sees to it that what a crash left of the segments is not written
// over, but for the newest one of a log that was closed, and files that
// retention has freed.
func untouched(crashed vfs.FS) func(vfs.Op) error {
	clean := make(map[string]bool)
	names, _ := crashed.List("/data/log")
	for _, name := range names {
		if _, ok := parseSegmentName(name); !ok {
			continue
		}
		full := path.Join("/data/log", name)
		clean[full] = false
		f, err := crashed.OpenRead(full)
		if err != nil {
			continue
		}
		b := make([]byte, segmentHeaderUsed)
		n, _ := readFull(f, b, 0)
		h, err := parseSegmentHeader(b[:n])
		if err != nil {
			continue
		}
		size, _ := f.Size()
		for sc := newScanner(f, h.generation, segmentHeaderSize, size); ; {
			found, ok, err := sc.next()
			if err != nil || !ok {
				break
			}
			clean[full] = found.header.flags&flagClosed != 0
		}
	}
	return func(op vfs.Op) error {
		was, there := clean[op.Name]
		switch {
		case !there:
		case op.Kind == vfs.KindWrite && !was:
			return fmt.Errorf("%s was written to after a crash", op.Name)
		case op.Kind != vfs.KindWrite && op.Kind != vfs.KindSync:
			delete(clean, op.Name) // removed, or another file's name now
		}
		return nil
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

// TestBrokerFaultEverywhere lets one call after the other fail, in each of the
// ways it can, under a whole broker, and then cuts the power.
func TestBrokerFaultEverywhere(t *testing.T) {
	faults := []vfs.Fault{{Err: syscall.EIO, Drop: true}, {Err: syscall.ENOSPC, Drop: true}, {Err: syscall.ENOSPC, Short: 100}, {Err: syscall.EIO, Short: 100}}
	every := 1
	if *crashImages > 0 {
		every = 8000 / *crashImages
	}
	tried := 0
	for n := 0; ; n += every {
		r, reached := crashed().Fault(t.Context(), 1, 300, n/len(faults)+1, faults[n%len(faults)])
		for _, f := range r.Faults {
			t.Error(f)
		}
		if reached == "" || t.Failed() {
			break
		}
		tried++
	}
	t.Logf("%d calls failed", tried)
}

// TestBrokerCrashRandom crashes random workloads at random calls, again and
// again.
func TestBrokerCrashRandom(t *testing.T) {
	began := time.Now()
	for seed := max(*crashSeed, 1); ; seed++ {
		r := crashed().Random(t.Context(), seed, 8, 150)
		t.Logf("seed %d: %d crashes, %d confirms, %d faults; again with go test ./storage/seglog -run TestBrokerCrashRandom -v -crash.seed=%[1]d", seed, r.Crashes, r.Confirms, len(r.Faults))
		for _, f := range r.Faults {
			t.Error(f)
		}
		if t.Failed() || *crashSeed != 0 || *crashTime != 0 && time.Since(began) > *crashTime {
			return
		}
	}
}
