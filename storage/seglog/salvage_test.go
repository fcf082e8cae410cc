package seglog

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// halfState is a data directory whose state has a damaged block, and whose log
// does not have any more what made it.
func halfState(t *testing.T) *vfs.Memory {
	t.Helper()
	ctx := context.Background()
	fs := vfs.NewMemory()
	l, err := Open(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{})
	for i := range 100 {
		value := make([]byte, 300)
		noise.Read(value)
		b := batchOf(true, "t")
		b.Time = int64(i + 1)
		b.Changes = []core.Change{{Key: fmt.Sprintf("k%03d", i), Value: value}}
		appendWait(t, l, b)
	}
	if err := l.state.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := l.request(ctx, l.retire); err != nil {
		t.Fatal(err)
	}
	indexAll(t, l)
	if _, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Millisecond}}, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("/data/state")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			edit(t, fs, path.Join("/data/state", name), func(data []byte) []byte {
				if len(data) > 10_000 {
					data[len(data)/2] ^= 0xff
				}
				return data
			})
		}
	}
	return fs.Crash(vfs.CrashKind)
}

// mended mends a directory, giving up what has to be, and returns its state.
func mended(fs vfs.FS) (map[string]string, error) {
	ctx := context.Background()
	x, err := Examine(ctx, small(fs), Progress{})
	if err != nil {
		return nil, err
	}
	var discard []string
	for _, f := range x.Findings {
		if f.Discard != "" {
			discard = append(discard, f.Discard)
		}
	}
	if _, err := Mend(ctx, small(fs), discard, Progress{}); err != nil {
		return nil, err
	}
	l, err := Open(ctx, small(fs))
	if err != nil {
		return nil, err
	}
	defer l.Close(ctx)
	state := make(map[string]string)
	for e, err := range l.State("", "") {
		if err != nil {
			return nil, err
		}
		state[e.Key] = string(e.Value)
	}
	return state, nil
}

// TestCrashWhileTheStateIsMended crashes doctor at every other call while it gives up
// what cannot be read of a state: what can be is there when it is run again, or
// when the broker is started if it had come far enough.
func TestCrashWhileTheStateIsMended(t *testing.T) {
	fs := halfState(t)
	want, err := mended(fs.Crash(vfs.CrashKind))
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 50 || len(want) >= 100 {
		t.Fatalf("%d keys can be read", len(want))
	}
	memory := fs.Crash(vfs.CrashKind)
	crashes, swapping, opened := 0, 0, 0
	inject := func(op vfs.Op) *vfs.Fault {
		for i, seed := range []uint64{vfs.CrashStrict, vfs.CrashKind, uint64(op.Index) + 2} {
			image := memory.Crash(seed)
			// Until it takes the old one's place the new state is nothing.
			if step, _, _ := readSwap(image, "/data"); i != op.Index/2%3 || op.Index%2 != 0 || step == 0 && op.Index%40 != 0 {
				continue
			}
			crashes++
			where := fmt.Sprintf("crash before call %d, %s %s, with what seed %d leaves", op.Index, op.Kind, op.Name, seed)
			if step, _, err := readSwap(image, "/data"); err != nil {
				t.Errorf("%s: %v", where, err)
			} else if step != 0 {
				swapping++
				if x, err := Examine(t.Context(), small(image), Progress{}); err != nil || !slices.ContainsFunc(x.Findings, func(f Finding) bool { return f.File == SwapName && f.Severity == Damage && f.Discard == "" }) {
					t.Errorf("%s: doctor finds %+v, %v", where, x, err)
				}
				if swapping%2 == 0 { // the broker does it, too
					opened++
					l, err := Open(t.Context(), small(image))
					if err != nil {
						t.Errorf("%s: %v", where, err)
						continue
					}
					if err := l.Close(t.Context()); err != nil {
						t.Errorf("%s: %v", where, err)
					}
				}
			}
			if got, err := mended(image); err != nil {
				t.Errorf("%s: %v", where, err)
			} else if !maps.Equal(got, want) {
				t.Errorf("%s: %d keys are left, want %d", where, len(got), len(want))
			}
		}
		return nil
	}
	if _, err := Mend(t.Context(), small(&vfs.Faulty{FS: memory, Inject: inject}), []string{stateDirName}, Progress{}); err != nil {
		t.Fatal(err)
	}
	if swapping == 0 || opened == 0 {
		t.Errorf("%d of %d crashes came while the state was replaced", swapping, crashes)
	}
	t.Logf("%d crashes, %d while the state was replaced", crashes, swapping)
}
