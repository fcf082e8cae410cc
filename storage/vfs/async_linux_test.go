package vfs

import (
	"bytes"
	"errors"
	"os"
	"path"
	"sync"
	"syscall"
	"testing"
)

// TestAsyncAtOnce writes and syncs several files at once, in operations that the
// kernel carries out by itself.
func TestAsyncAtOnce(t *testing.T) {
	dir := t.TempDir()
	probe, err := os.Create(path.Join(dir, "probe"))
	must(t, err)
	defer probe.Close()
	if err := syncAsync(probe); isUnsupported(err) {
		t.Skipf("this system has none: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			f, err := OS{}.Create(path.Join(dir, string(rune('a'+i))))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			var want []byte
			for n := range 50 {
				b := pages(string([]byte{byte(n), byte(i), 'x'}))
				if n, err := f.WriteDirect(b, int64(len(want))); n != len(b) || err != nil {
					t.Errorf("wrote %d of %d bytes: %v", n, len(b), err)
				}
				if err := f.SyncData(); err != nil {
					t.Error(err)
				}
				want = append(want, b...)
			}
			got := make([]byte, len(want))
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("what is read is not what was written: %v", err)
			}
		})
	}
	running.Wait()
	lanes.mu.Lock()
	defer lanes.mu.Unlock()
	if n := len(lanes.free); n < 1 || n > 16 {
		t.Errorf("%d lanes are free", n)
	}
}

// TestAsyncRefused: what the kernel does not do asynchronously is done otherwise, and
// what it does not do at all is an error, of which nothing is left.
func TestAsyncRefused(t *testing.T) {
	read, write, err := os.Pipe()
	must(t, err)
	defer read.Close()
	defer write.Close()
	if err := syncAsync(write); !isUnsupported(err) {
		t.Errorf("a pipe is synced: %v", err)
	}
	if err := (&osFile{File: write}).SyncData(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a pipe is synced: %v", err)
	}
	f, err := OS{}.Create(path.Join(t.TempDir(), "a"))
	must(t, err)
	must(t, f.SyncData())
	must(t, f.Close())
	if err := f.SyncData(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed file is synced: %v", err)
	}
	large, err := os.Create(path.Join(t.TempDir(), "b"))
	must(t, err)
	defer large.Close()
	if n, err := writeAsync(large, []byte("x"), 1<<62); n != 0 || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("wrote %d bytes too far: %v", n, err)
	}
}
