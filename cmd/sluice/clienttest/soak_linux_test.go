package clienttest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// soakRound is how long the load lasts before all that was confirmed is read.
const soakRound = time.Minute

// soakLimits let a session and a queue hold what a round publishes.
const soakLimits = "limits: {session_messages: 10000000, session_size: 64GiB}\n"

// TestSoak has the broker under load from all protocols for a long time, killed
// at random, and wants nothing that was confirmed to be lost, and neither its
// memory nor its open files nor its threads to grow from life to life.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("make soak runs it")
	}
	b := startBroker(t, soakLimits)
	ends := time.Now().Add(*soak)
	var first, last usage
	lives := 0
	for round := 1; round == 1 || time.Now().Before(ends) && !t.Failed(); round++ {
		began := time.Now()
		roundEnds := began.Add(min(soakRound, time.Until(ends)))
		loseNothing(t, b, fmt.Sprint("soak", round), func(int) bool {
			time.Sleep(time.Duration(rand.IntN(20)) * time.Second)
			last = usageOf(t, b.cmd.Process.Pid)
			if lives++; lives == 1 {
				first = last
			}
			fmt.Printf("life %d: %+v\n", lives, last)
			if rand.IntN(4) == 0 {
				b.stop()
			} else {
				b.kill()
			}
			return time.Now().Before(roundEnds)
		})
		fmt.Printf("round %d: all is there after %v\n", round, time.Since(began).Round(time.Second))
	}
	// Each life recovers a longer log; that may cost some memory.
	if last.MiB > 2*first.MiB+200 || last.Files > first.Files+200 || last.Threads > first.Threads+50 {
		t.Errorf("the broker grew from %+v to %+v", first, last)
	}
}

// A usage is what a process takes.
type usage struct{ MiB, Files, Threads int }

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.Atoi(f[1])
		switch f[0] {
		case "VmRSS:":
			u.MiB = n >> 10
		case "Threads:":
			u.Threads = n
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.Files = len(files)
	return u
}
