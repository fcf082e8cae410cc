package bench

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is what the figures were measured on.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// What the disk does, 0 where that was not measured. Sync is the median time
	// of an fdatasync behind a write of 4 KiB into a file whose blocks are there,
	// SyncWorst its 99th percentile.
	Sync      time.Duration `json:"fdatasync_ns"`
	SyncWorst time.Duration `json:"fdatasync_p99_ns"`
	// Bandwidth of writing in sequence, synced, in MB/s.
	Bandwidth float64 `json:"write_mb_s"`
}

// thisMachine is what can be told without measuring.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: cpuModel()}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// surveyMachine measures the disk that dir is on as well.
func surveyMachine(dir string) (machine, error) {
	m := thisMachine()
	name := filepath.Join(dir, "disk")
	f, err := os.Create(name)
	if err != nil {
		return m, err
	}
	defer os.Remove(name)
	defer f.Close()

	const total, chunk = 256 << 20, 1 << 20
	b := make([]byte, 0, chunk)
	x := noise(1)
	b = x.appendPayload(b, chunk, 0, 0, 0)
	start := time.Now()
	for range total / chunk {
		if _, err := f.Write(b); err != nil {
			return m, err
		}
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return m, fmt.Errorf("fdatasync: %w", err)
	}
	m.Bandwidth = total / 1e6 / time.Since(start).Seconds()

	times, err := timeSyncs(f, b[:4096], 400)
	if err != nil {
		return m, err
	}
	m.Sync, m.SyncWorst = times[len(times)/2], times[len(times)*99/100]
	return m, nil
}

// timeSyncs writes bytes n times, one behind the other from the file's beginning
// on, each followed by an fdatasync, and returns how long they took, sorted.
func timeSyncs(f *os.File, b []byte, n int) ([]time.Duration, error) {
	times := make([]time.Duration, n)
	for i := range times {
		start := time.Now()
		if _, err := f.WriteAt(b, int64(i*len(b))); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("fdatasync: %w", err)
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times, nil
}

// syncTime is the mean time to write so many bytes to a file in a folder and to
// sync them, one write behind the other: to a file that grows, or over what was
// written before.
func syncTime(dir string, size int, grows bool) (time.Duration, error) {
	name := filepath.Join(dir, "disk")
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer os.Remove(name)
	defer f.Close()
	const writes = 400
	x := noise(1)
	b := x.appendPayload(nil, max(size, 64), 0, 0, 0)
	if !grows {
		for i := range int64(writes) {
			if _, err := f.WriteAt(b, i*int64(len(b))); err != nil {
				return 0, err
			}
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	times, err := timeSyncs(f, b, writes)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return sum / writes, nil
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, model, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}
