package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestRoomForFiles asks the kernel how large its table of our file descriptors is.
func TestRoomForFiles(t *testing.T) {
	size := func() uint64 {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`FDSize:\s+(\d+)`).FindSubmatch(status)
		if m == nil {
			t.Fatalf("no size of the table in %s", status)
		}
		n, err := strconv.ParseUint(string(m[1]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	limit, err := raiseOpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	want := min(limit, roomForFiles)
	makeRoomForFiles(want)
	if got := size(); got < want {
		t.Errorf("room for %d files, want %d", got, want)
	}
}
