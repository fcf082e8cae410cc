package seglog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/storage/vfs"
)

// swapIs has a directory's swap file say something.
func swapIs(t *testing.T, text string) *vfs.Memory {
	t.Helper()
	fs := vfs.NewMemory()
	if err := fs.MkdirAll("/data"); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(fs, "/data/"+SwapName, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return fs
}

// TestSwapDamaged changes each byte of the file that says how far the state's
// mending has come: it is never misunderstood, and whatever is left of one of its
// lines is enough.
func TestSwapDamaged(t *testing.T) {
	for _, step := range []int{swapOut, swapIn} {
		fs := swapIs(t, "")
		if err := writeSwap(fs, "/data", step, "state.bad2"); err != nil {
			t.Fatal(err)
		}
		text := content(t, fs, "/data/"+SwapName)
		half := len(text)/2 + 1 // behind the empty line
		for at := range text {
			values := []byte{0, 0xff, '\n', '1', '2', '3'}
			for bit := range 8 {
				values = append(values, text[at]^1<<bit)
			}
			for _, value := range values {
				once := slices.Clone(text)
				once[at] = value
				if got, aside, err := readSwap(swapIs(t, string(once)), "/data"); err != nil || got != step || aside != "state.bad2" {
					t.Fatalf("byte %d is %d: step %d, %q, %v", at, value, got, aside, err)
				}
				if at >= half || once[at] == text[at] {
					continue
				}
				// Alone, it is found to be damaged, and not taken for a newer version's.
				if got, aside, err := readSwap(swapIs(t, string(once[:half-1])), "/data"); at < half-1 && err == nil || errors.As(err, new(errVersion)) {
					t.Fatalf("byte %d is %d, and the other line is gone: step %d, %q, %v", at, value, got, aside, err)
				}
			}
		}
		for n := range text {
			if got, aside, err := readSwap(swapIs(t, string(text[:n])), "/data"); (err == nil) != (n >= half-1) || err == nil && (got != step || aside != "state.bad2") {
				t.Errorf("cut at %d: step %d, %q, %v", n, got, aside, err)
			}
		}
	}
}

// TestSwapVersions: what earlier versions wrote is understood, and what a later
// one wrote is refused.
func TestSwapVersions(t *testing.T) {
	if step, aside, err := readSwap(swapIs(t, "Sluice swap 1: step 2, old state to state.bad\n"), "/data"); step != swapIn || aside != "state.bad" || err != nil {
		t.Errorf("version 1: step %d, %q, %v", step, aside, err)
	}
	for _, text := range []string{swapLine(3, swapOut, "state.bad"), "Sluice swap 3: both at once\n"} {
		if _, _, err := readSwap(swapIs(t, text), "/data"); !errors.As(err, new(errVersion)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "Sluice swap 1: step 3, old state to state.bad\n", "Sluice swap 1: step 1, old state to ../x\n", "Sluice swap 1: step 1, old state to state.bad"} {
		if step, aside, err := readSwap(swapIs(t, text), "/data"); err == nil || errors.As(err, new(errVersion)) {
			t.Errorf("%q: step %d, %q, %v", text, step, aside, err)
		}
	}
}

// TestSwapNotKnown: where nothing is left of it, nothing is moved: doctor says so,
// and the broker does not start.
func TestSwapNotKnown(t *testing.T) {
	memory, _ := reference(t)
	if err := writeFile(memory, "/data/"+SwapName, []byte(strings.Repeat("x", 80))); err != nil {
		t.Fatal(err)
	}
	untouched := &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
		t.Errorf("%s %s", op.Kind, op.Name)
		return nil
	}}
	x, err := Examine(context.Background(), small(untouched), Progress{})
	if err != nil || !slices.ContainsFunc(x.Findings, func(f Finding) bool { return f.File == SwapName && f.Severity == Loss && f.Mend == "" }) {
		t.Errorf("doctor finds %+v, %v", x, err)
	}
	if _, err := Mend(context.Background(), small(untouched), nil, Progress{}); err == nil {
		t.Error("it is mended")
	}
	if _, err := Open(context.Background(), small(untouched)); err == nil || !strings.Contains(fmt.Sprint(err), SwapName) {
		t.Errorf("it was opened: %v", err)
	}
}
