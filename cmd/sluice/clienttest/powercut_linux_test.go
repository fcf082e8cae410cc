package clienttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPowerCut cuts the power of a real file system under load, again and again.
// A kill alone leaves what the kernel has not written yet; this takes it away:
// ext4 on a loop device is shut down without a flush of its journal, so that
// only what was synced is there when it is mounted again. The ledger is the
// test's own, in memory.
func TestPowerCut(t *testing.T) {
	if *powerCuts == 0 {
		t.Skip("make powercut runs it: it needs root and a loop device")
	}
	d := newLoopDisk(t)
	b := startBrokerIn(t, filepath.Join(d.dir, "data"))
	b.failing = true
	loseNothing(t, b, "ledger", func(cycle int) bool {
		if rand.IntN(2) == 0 {
			b.kill()
			d.shutdown()
		} else {
			// The broker is still there and must soon confirm nothing any more.
			// What it confirms meanwhile counts as neither: of the syncs that are
			// on their way, ext4 says of some that they were done although they
			// were not. Behind a real cut nobody would be told.
			b.cut.Store(true)
			d.shutdown()
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
			b.kill()
		}
		d.remount()
		fmt.Printf("power cut %d of %d\n", cycle+1, *powerCuts)
		return cycle+1 < *powerCuts
	})
}

// A loopDisk is an ext4 file system in a file.
type loopDisk struct {
	t           *testing.T
	device, dir string
}

const loopDiskBytes = 3 << 30

func newLoopDisk(t *testing.T) *loopDisk {
	if os.Getuid() != 0 {
		t.Fatal("power cuts need root, to mount a file system; none was cut")
	}
	image := filepath.Join(t.TempDir(), "disk.ext4")
	d := &loopDisk{t: t, dir: filepath.Join(t.TempDir(), "mounted")}
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(loopDiskBytes), f.Close(), os.Mkdir(d.dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	d.run("mkfs.ext4", "-q", image)
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Fatalf("power cuts need a loop device, and there is none: %v\n%s", err, out)
	}
	d.device = strings.TrimSpace(string(out))
	t.Cleanup(func() { d.run("losetup", "--detach", d.device) })
	d.run("mount", d.device, d.dir)
	t.Cleanup(func() { d.run("umount", d.dir) })
	return d
}

func (d *loopDisk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

const (
	ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
	noLogFlush   = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
)

// shutdown has the file system forget what is not on its disk. Every call on it
// fails from then on.
func (d *loopDisk) shutdown() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		d.t.Fatalf("the file system cannot be shut down: %v", err)
	}
}

// remount replays the journal.
func (d *loopDisk) remount() {
	d.t.Helper()
	d.run("umount", d.dir)
	d.run("mount", d.device, d.dir)
}
