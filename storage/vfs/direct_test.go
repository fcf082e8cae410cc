package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// pages are so many pages of one byte each, in memory that begins with a page.
func pages(bytes string) []byte {
	b := MakePages(len(bytes))[:len(bytes)*Page]
	for i := range b {
		b[i] = bytes[i/Page]
	}
	return b
}

// openFiles is how often this process has a file open, and whether it is known.
func openFiles(name string) (n int, known bool) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.TrimSuffix(to, " (deleted)") == name {
			n++
		}
	}
	return n, len(links) > 0
}

// TestWriteDirect writes the same pages past the page cache and through it, and
// reads them in between: what is read is what was written last.
func TestWriteDirect(t *testing.T) {
	for _, parent := range []string{t.TempDir(), "/dev/shm"} {
		t.Run(path.Base(parent), func(t *testing.T) {
			if i, err := os.Stat(parent); err != nil || !i.IsDir() {
				t.Skip("there is none")
			}
			dir, err := os.MkdirTemp(parent, "direct")
			must(t, err)
			defer os.RemoveAll(dir)
			f, err := OS{}.Create(path.Join(dir, "a"))
			must(t, err)
			defer f.Close()
			want := []byte{}
			write := func(how func([]byte, int64) (int, error), b []byte, at int) {
				t.Helper()
				if n, err := how(b, int64(at)); err != nil || n != len(b) {
					t.Fatalf("wrote %d bytes of %d at %d: %v", n, len(b), at, err)
				}
				want = append(want, make([]byte, max(at+len(b)-len(want), 0))...)
				copy(want[at:], b)
				got := make([]byte, len(want))
				if n, err := f.ReadAt(got, 0); err != nil || n != len(want) {
					t.Fatalf("read %d bytes of %d: %v", n, len(want), err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("what was written at %d is not what is read", at)
				}
			}
			for range 20 {
				write(f.WriteAt, []byte("in the first page, "), 10)
				write(f.WriteDirect, pages("abcd"), 0)
				write(f.WriteAt, bytes.Repeat([]byte("e"), 3*Page), 2*Page+100)
				write(f.WriteDirect, pages("fg"), Page)
				write(f.WriteDirect, pages("--h")[1:][:Page], 2*Page) // not where a page begins in memory
				write(f.WriteDirect, pages("ijk"), len(want))
				f.EndDirect()
				write(f.WriteDirect, pages("lm"), 5*Page)
				must(t, f.SyncData())
			}
			if n, known := openFiles(path.Join(dir, "a")); known && n > 2 {
				t.Errorf("it is open %d times", n)
			}
			// Where the system refuses, it is done in the other way, now and later.
			write(f.WriteDirect, pages("n"), 3*Page+1)
			if n, known := openFiles(path.Join(dir, "a")); known && n > 2 {
				t.Errorf("it is open %d times", n)
			}
			write(f.WriteDirect, pages("op"), 3*Page)
		})
	}
}

// TestWriteDirectOnlyWhereAllowed: a file that was opened for reading is not
// written to, nor is one that was closed.
func TestWriteDirectOnlyWhereAllowed(t *testing.T) {
	each(t, func(t *testing.T, f FS, dir string) {
		name := path.Join(dir, "a")
		file := put(t, f, name, "content")
		must(t, file.Close())
		if _, ok := f.(OS); ok {
			if n, err := file.WriteDirect(pages("x"), 0); n != 0 || !errors.Is(err, fs.ErrClosed) {
				t.Errorf("wrote %d bytes to a closed file, %v", n, err)
			}
		}
		read, err := f.OpenRead(name)
		must(t, err)
		defer read.Close()
		if n, err := read.WriteDirect(pages("x"), 0); n != 0 || !errors.Is(err, syscall.EBADF) {
			t.Errorf("wrote %d bytes to a file that is open for reading, %v", n, err)
		}
		if got := content(t, f, name); got != "content" {
			t.Errorf("content %.20q", got)
		}
	})
}

// TestWriteDirectWhileClosed: what WriteDirect has opened is closed with the file,
// even if that is done meanwhile.
func TestWriteDirectWhileClosed(t *testing.T) {
	name := path.Join(t.TempDir(), "a")
	put(t, OS{}, name, "content").Close()
	b := pages("x")
	for range 1000 {
		f, err := OS{}.Open(name)
		must(t, err)
		var written sync.WaitGroup
		for range 2 {
			written.Go(func() {
				if _, err := f.WriteDirect(b, 0); err != nil && !errors.Is(err, fs.ErrClosed) {
					t.Error(err)
				}
			})
		}
		must(t, f.Close())
		written.Wait()
	}
	if n, _ := openFiles(name); n > 0 {
		t.Errorf("it is open %d times", n)
	}
}
