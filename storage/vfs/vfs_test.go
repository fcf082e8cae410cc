package vfs

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"testing"
)

// each runs a test on every file system that is meant to work.
func each(t *testing.T, test func(t *testing.T, f FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, OS{}, t.TempDir()) })
	t.Run("memory", func(t *testing.T) {
		m := NewMemory()
		if err := m.MkdirAll("/a/b"); err != nil {
			t.Fatal(err)
		}
		test(t, m, "/a/b")
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, f FS, name string) string {
	t.Helper()
	file, err := f.OpenRead(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	must(t, err)
	defer file.Close()
	size, err := file.Size()
	must(t, err)
	m, err := file.Map(int(size))
	must(t, err)
	defer m.Unmap()
	was := string(m.Data)
	m.Forget()
	if now := string(m.Data); now != was {
		t.Errorf("%q was mapped, which is %q once it was forgotten", was, now)
	}
	return was
}

func put(t *testing.T, f FS, name, text string) File {
	t.Helper()
	file, err := f.Create(name)
	must(t, err)
	_, err = file.WriteAt([]byte(text), 0)
	must(t, err)
	return file
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, f FS, dir string) {
		one, two := path.Join(dir, "one"), path.Join(dir, "two")
		file := put(t, f, one, "hello")
		defer file.Close()
		must(t, file.SyncData())
		_, err := file.WriteAt([]byte("y"), 7)
		must(t, err)
		if got := content(t, f, one); got != "hello\x00\x00y" {
			t.Errorf("content %q", got)
		}
		must(t, file.Truncate(4))
		must(t, f.Rename(one, two))
		must(t, f.Link(two, one))
		if err := f.Link(two, one); !errors.Is(err, fs.ErrExist) {
			t.Errorf("link to a name that is there: %v", err)
		}
		must(t, f.SyncDir(dir))
		again := put(t, f, two, "other")
		defer again.Close()
		if a, b := content(t, f, one), content(t, f, two); a != "hell" || b != "other" {
			t.Errorf("contents %q, %q", a, b)
		}
		names, err := f.List(dir)
		must(t, err)
		if !slices.Equal(names, []string{"one", "two"}) {
			t.Errorf("names %q", names)
		}
		must(t, f.Remove(one))
		if err := f.Remove(one); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removing what is not there: %v", err)
		}
		if _, err := f.Open(one); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("opening what is not there: %v", err)
		}
		held, err := f.Lock(path.Join(dir, "LOCK"))
		must(t, err)
		if _, err := f.Lock(path.Join(dir, "LOCK")); !errors.Is(err, ErrLocked) {
			t.Errorf("a second lock: %v", err)
		}
		must(t, held.Close())
		held, err = f.Lock(path.Join(dir, "LOCK"))
		must(t, err)
		must(t, held.Close())
		if s, err := f.Space(dir); err != nil || s.Free == 0 || s.Free > s.Total {
			t.Errorf("space %+v, %v", s, err)
		}
	})
}

// TestCrashStrict: what was synced is there, and nothing else.
func TestCrashStrict(t *testing.T) {
	m := NewMemory()
	must(t, m.MkdirAll("/d"))
	must(t, m.SyncDir("/"))
	file := put(t, m, "/d/a", "synced")
	must(t, file.Sync())
	if got := content(t, m.Crash(CrashStrict), "/d/a"); got != "missing" {
		t.Errorf("a file whose name was not synced is there: %q", got)
	}
	must(t, m.SyncDir("/d"))
	if _, err := file.WriteAt([]byte("X"), 0); err != nil {
		t.Fatal(err)
	}
	must(t, m.Rename("/d/a", "/d/b"))
	left := m.Crash(CrashStrict)
	if a, b := content(t, left, "/d/a"), content(t, left, "/d/b"); a != "synced" || b != "missing" {
		t.Errorf("after a crash: a %q, b %q", a, b)
	}
	kind := m.Crash(CrashKind)
	if a, b := content(t, kind, "/d/a"), content(t, kind, "/d/b"); a != "missing" || b != "Xynced" {
		t.Errorf("after a kill: a %q, b %q", a, b)
	}
}

// TestCrashPartly: some seeds leave one of two unsynced writes, some the other,
// and a rename never loses the file.
func TestCrashPartly(t *testing.T) {
	m := NewMemory()
	must(t, m.MkdirAll("/d"))
	must(t, m.SyncDir("/"))
	file := put(t, m, "/d/a", string(make([]byte, 2*sector)))
	must(t, file.Sync())
	must(t, m.SyncDir("/d"))
	for _, at := range []int64{0, sector} {
		if _, err := file.WriteAt([]byte("new"), at); err != nil {
			t.Fatal(err)
		}
	}
	must(t, m.Rename("/d/a", "/d/b"))
	seen := make(map[string]int)
	for seed := uint64(2); seed < 200; seed++ {
		left := m.Crash(seed)
		a, b := content(t, left, "/d/a"), content(t, left, "/d/b")
		if (a == "missing") == (b == "missing") {
			t.Fatalf("seed %d: a %.10q, b %.10q", seed, a, b)
		}
		if a == "missing" {
			a = b
			seen["renamed"]++
		}
		seen[string([]byte{'0' + min(a[0], 1), '0' + min(a[sector], 1)})]++
	}
	for _, want := range []string{"00", "01", "10", "11", "renamed"} {
		if seen[want] == 0 {
			t.Errorf("no crash left %s: %v", want, seen)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	m := NewMemory()
	m.Limit(10)
	file := put(t, m, "/a", "12345678")
	n, err := file.WriteAt([]byte("abcdef"), 8)
	if n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d, %v", n, err)
	}
	if _, err := file.WriteAt([]byte("over"), 0); err != nil {
		t.Errorf("overwriting: %v", err)
	}
	must(t, m.Remove("/a"))
	put(t, m, "/b", "0123456789")
}

func TestFaulty(t *testing.T) {
	boom := errors.New("boom")
	var ops []string
	f := &Faulty{FS: NewMemory(), Inject: func(o Op) *Fault {
		ops = append(ops, o.Kind.String())
		switch o.Index {
		case 3:
			return &Fault{Err: boom, Short: 2}
		case 4:
			return &Fault{Err: boom}
		}
		return nil
	}}
	file := put(t, f, "/a", "abc")
	if n, err := file.WriteAt([]byte("xyz"), 0); n != 2 || err != boom {
		t.Errorf("wrote %d, %v", n, err)
	}
	if err := file.SyncData(); err != boom {
		t.Errorf("sync: %v", err)
	}
	if got := content(t, f, "/a"); got != "xyc" {
		t.Errorf("content %q", got)
	}
	if want := []string{"create", "write", "write", "sync"}; !slices.Equal(ops, want) {
		t.Errorf("ops %q", ops)
	}
}
