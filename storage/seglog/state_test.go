package seglog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// Witnesses are never missed where nothing is missing, however often Pebble
// begins a file, and are always missed where a table is.
func TestWitnesses(t *testing.T) {
	fs := vfs.NewMemory()
	change := func(l *Log, n int) {
		appendWait(t, l, &core.Batch{Time: 1, Sync: true, Changes: []core.Change{{Key: fmt.Sprint("k", n), Value: []byte("v")}}})
	}
	for round := range 3 {
		l, err := Open(context.Background(), small(fs))
		if err != nil {
			t.Fatal(err)
		}
		for i := range maxWitnesses {
			change(l, round*maxWitnesses+i)
			if err := l.state.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if round == 1 {
			fs = fs.Crash(vfs.CrashKind)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(context.Background(), small(fs))
	if err != nil {
		t.Fatal(err)
	}
	// As if a table in the middle had been lost.
	l.state.witness += 2
	l.state.begun.Store(true)
	change(l, 0)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s, err := openState("/data/state", fs, l.log)
	if !errors.Is(err, core.ErrCorrupt) || s != nil || !strings.Contains(err.Error(), "/data/state") {
		t.Errorf("opened with %v", err)
	}
}

// TestStateMissing: a state that is gone, or is older than what retention has
// left, is made again where the log has all of it, and refused elsewhere.
func TestStateMissing(t *testing.T) {
	remove := func(fs *vfs.Memory) error { return stateFS{fs}.RemoveAll("/data/state") }
	for _, c := range []struct {
		name      string
		reclaimed bool
		damage    func(fs *vfs.Memory) error
		opens     bool
	}{
		{"gone", false, remove, true},
		{"gone after retention", true, remove, false},
		{"begun anew after retention", true, func(fs *vfs.Memory) error {
			if err := remove(fs); err != nil {
				return err
			}
			s, err := openState("/data/state", fs, nil)
			if err != nil {
				return err
			}
			return s.close()
		}, false},
		{"without its marker", false, func(fs *vfs.Memory) error { return removeMarker(fs) }, true},
		{"without its marker after retention", true, func(fs *vfs.Memory) error { return removeMarker(fs) }, false},
	} {
		s := newSpecimen(t, c.reclaimed)
		if err := c.damage(s.fs); err != nil {
			t.Fatal(err)
		}
		l, err := Open(context.Background(), tiny(s.fs))
		if (err == nil) != c.opens || err != nil && !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: opened with %v", c.name, err)
		}
		if err != nil {
			continue
		}
		for k, v := range l.stateStrings() {
			if s.state[k] != v {
				t.Errorf("%s: %s is %q, want %q", c.name, k, v, s.state[k])
			}
			delete(s.state, k)
		}
		if len(s.state) > 0 {
			t.Errorf("%s: %v is missing", c.name, s.state)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func removeMarker(fs *vfs.Memory) error {
	names, err := fs.List("/data/state")
	for _, name := range names {
		if strings.HasPrefix(name, "marker.manifest") {
			return fs.Remove(path.Join("/data/state", name))
		}
	}
	return err
}

// On the operating system's files, too, a state that Pebble cannot open is made
// again of the log.
func TestStateDamagedOnDisk(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 {
		l, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := l.Get("k"); err != nil || (v != nil) != (round > 0) {
			t.Errorf("round %d: %q, %v", round, v, err)
		}
		appendWait(t, l, &core.Batch{Time: 1, Sync: true, Changes: []core.Change{{Key: "k", Value: []byte("v")}}})
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(filepath.Join(dir, stateDirName, "MANIFEST-*"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			if err := os.WriteFile(name, []byte("garbage"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What Pebble keeps of its options is not needed: where it is damaged the state
// opens all the same, to be read only, too, and it is written anew.
func TestStateOptionsDamaged(t *testing.T) {
	for _, damaged := range []string{"[Options]\n comparer=nobody's\n", "[Options]\n merger=nobody's\n", "[Options]\n wal_dir=/elsewhere\n", "garbage", "[\x00"} {
		s := newSpecimen(t, true)
		names, err := s.fs.List("/data/state")
		if err != nil {
			t.Fatal(err)
		}
		old := make(map[string]bool)
		for _, name := range names {
			if strings.HasPrefix(name, "OPTIONS-") {
				old[name] = true
				f, err := s.fs.Create(path.Join("/data/state", name))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteAt([]byte(damaged), 0); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(old) == 0 {
			t.Fatal("there are no options")
		}
		o := tiny(s.fs)
		log := slog.New(slog.DiscardHandler)
		view, err := viewState("/data/state", s.fs, log)
		if err != nil {
			t.Fatalf("%q: read only: %v", damaged, err)
		}
		if err := view.close(); err != nil {
			t.Fatal(err)
		}
		l, err := Open(context.Background(), o)
		if err != nil {
			t.Fatalf("%q: %v", damaged, err)
		}
		if got := maps.Collect(l.stateStrings()); !maps.Equal(got, s.state) {
			t.Errorf("%q: the state is %v, want %v", damaged, got, s.state)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if names, err = s.fs.List("/data/state"); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, name := range names {
			if strings.HasPrefix(name, "OPTIONS-") {
				if kept++; old[name] {
					t.Errorf("%q: %s is still there", damaged, name)
				}
			}
		}
		if kept == 0 {
			t.Errorf("%q: no options were written anew", damaged)
		}
	}
}
