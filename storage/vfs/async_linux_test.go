package vfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestAsyncAtOnce writes and syncs several files at once, in operations that the
// kernel carries out by itself.
func TestAsyncAtOnce(t *testing.T) {
	dir := t.TempDir()
	probe, err := os.Create(path.Join(dir, "probe"))
	must(t, err)
	defer probe.Close()
	if err := syncAsync(probe); err == errors.ErrUnsupported {
		t.Skipf("NOT RUN: this system writes nothing asynchronously: %v", err)
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
	if err := syncAsync(write); err != errors.ErrUnsupported {
		t.Errorf("a pipe is synced: %v", err)
	}
	if err := behindLarge(&osFile{File: write}).SyncData(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a pipe is synced: %v", err)
	}
	f, err := OS{}.Create(path.Join(t.TempDir(), "a"))
	must(t, err)
	must(t, behindLarge(f).SyncData())
	must(t, f.Close())
	if err := behindLarge(f).SyncData(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed file is synced: %v", err)
	}
	large, err := os.Create(path.Join(t.TempDir(), "b"))
	must(t, err)
	defer large.Close()
	if n, err := writeAsync(large, []byte("x"), 1<<62); n != 0 || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("wrote %d bytes too far: %v", n, err)
	}
}

// behindLarge has the next sync of a file be as behind a large write.
func behindLarge(f File) File {
	f.(*osFile).busy.Store(true)
	return f
}

// TestSyncNotTriedAgain: what a sync says is its answer, whatever it is. The kernel
// tells of what it could not write once, and the next sync of it succeeds.
func TestSyncNotTriedAgain(t *testing.T) {
	for _, failure := range []syscall.Errno{syscall.EIO, syscall.EPERM, syscall.EINVAL, syscall.EAGAIN, syscall.EOPNOTSUPP} {
		t.Run(failure.Error(), func(t *testing.T) {
			f, err := OS{}.Open(mountFailing(t, fuseSync, failure))
			must(t, err)
			defer f.Close()
			if err := behindLarge(f).SyncData(); !errors.Is(err, failure) {
				t.Errorf("the first sync ends with %v", err)
			}
			must(t, behindLarge(f).SyncData())
		})
	}
}

// TestWriteInterrupted: a write that a signal has interrupted is done again.
func TestWriteInterrupted(t *testing.T) {
	f, err := OS{}.Open(mountFailing(t, fuseWrite, syscall.EINTR))
	must(t, err)
	defer f.Close()
	if n, err := f.WriteDirect(pages("ab"), 0); n != 2*Page || err != nil {
		t.Errorf("wrote %d bytes: %v", n, err)
	}
}

// Operations of FUSE.
const (
	fuseWrite = 16
	fuseSync  = 20
)

// mountFailing mounts a file system (FUSE) with one file, of which the first
// operation of a kind fails, and returns the file's name.
func mountFailing(t *testing.T, fails uint32, failure syscall.Errno) string {
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("NOT RUN: a file system that fails cannot be mounted, which takes root and /dev/fuse: %v", err)
	}
	dir := t.TempDir()
	if err := unix.Mount("sluice", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device)); err != nil {
		unix.Close(device)
		t.Skipf("NOT RUN: a file system that fails cannot be mounted, which takes root and /dev/fuse: %v", err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { serveFailing(device, fails, failure) })
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		serving.Wait()
		unix.Close(device)
	})
	name := path.Join(dir, "a")
	// Go's runtime asks whether it may poll the file, and holds up everybody until it
	// is answered. Here it is asked before, and remembered.
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	must(t, err)
	must(t, unix.Close(fd))
	return name
}

func serveFailing(device int, fails uint32, failure syscall.Errno) {
	const lookup, forget, getattr, open, release, flush, start = 1, 2, 3, 14, 18, 25, 26
	e, buf := binary.NativeEndian, make([]byte, 1<<20)
	for {
		if n, err := unix.Read(device, buf); err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT {
			continue // who asked was interrupted
		} else if err != nil || n < 40 {
			return // unmounted
		}
		answer, failed := make([]byte, 16), syscall.Errno(0)
		// The attributes are all 0 but for the node and the mode.
		attr := func(node uint64) []byte {
			a := make([]byte, 88)
			e.PutUint64(a, node)
			e.PutUint32(a[60:], map[uint64]uint32{1: unix.S_IFDIR | 0o755, 2: unix.S_IFREG | 0o644}[node])
			return a
		}
		operation := e.Uint32(buf[4:])
		if operation == fails {
			failed, failure = failure, 0
		}
		switch operation {
		case start:
			answer = append(answer, make([]byte, 64)...)
			e.PutUint32(answer[16:], 7)
			e.PutUint32(answer[20:], 31)
			e.PutUint32(answer[36:], 4096)
		case lookup:
			answer = append(append(e.AppendUint64(answer, 2), make([]byte, 32)...), attr(2)...)
		case getattr:
			answer = append(append(answer, make([]byte, 16)...), attr(e.Uint64(buf[16:]))...)
		case open:
			answer = append(answer, make([]byte, 16)...)
		case fuseWrite:
			answer = append(answer, buf[56:60]...) // all of it
			answer = append(answer, make([]byte, 4)...)
		case forget:
			continue
		case fuseSync, flush, release:
		default:
			failed = syscall.ENOSYS
		}
		if failed != 0 {
			answer = answer[:16]
		}
		e.PutUint32(answer, uint32(len(answer)))
		e.PutUint32(answer[4:], uint32(-int32(failed)))
		e.PutUint64(answer[8:], e.Uint64(buf[8:]))
		_, _ = unix.Write(device, answer)
	}
}

// withoutLanes takes all free lanes away, and returns what gives them back.
func withoutLanes() (restore func()) {
	lanes.mu.Lock()
	defer lanes.mu.Unlock()
	kept := lanes.free
	lanes.free = nil
	return func() {
		lanes.mu.Lock()
		defer lanes.mu.Unlock()
		lanes.free = append(lanes.free, kept...)
	}
}

// TestAsyncWithoutFiles: where the process may open nothing more, it syncs still.
func TestAsyncWithoutFiles(t *testing.T) {
	f, err := OS{}.Create(path.Join(t.TempDir(), "a"))
	must(t, err)
	defer f.Close()
	if n, err := f.WriteDirect(pages("a"), 0); n != Page || err != nil {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
	defer withoutLanes()()
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}))
	n, writing := f.WriteDirect(pages("b"), 0)
	syncing := f.SyncData()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if n != Page || writing != nil || syncing != nil {
		t.Errorf("wrote %d bytes: %v, %v", n, writing, syncing)
	}
}

// TestAsyncConfined: whatever of asynchronous I/O who confines the process refuses, it
// writes and syncs.
func TestAsyncConfined(t *testing.T) {
	for name, call := range map[string]uint32{
		"io_setup": unix.SYS_IO_SETUP, "eventfd2": unix.SYS_EVENTFD2, "io_submit": unix.SYS_IO_SUBMIT, "io_getevents": unix.SYS_IO_GETEVENTS,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := OS{}.Create(path.Join(t.TempDir(), "a"))
			must(t, err)
			defer f.Close()
			defer withoutLanes()()
			done := make(chan error, 1)
			go func() {
				runtime.LockOSThread() // which ends with the goroutine, and alone is confined
				if err := refuse(call); err != nil {
					done <- err
					return
				}
				n, err := f.WriteDirect(pages("a"), 0)
				if err == nil && n != Page {
					err = io.ErrShortWrite
				}
				done <- errors.Join(err, f.SyncData())
			}()
			select {
			case err := <-done:
				must(t, err)
			case <-time.After(10 * time.Second):
				t.Error("it waits without end")
			}
		})
	}
}

// refuse has a system call of this thread fail with EPERM (seccomp).
func refuse(call uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
