package seglog

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// An index that was checked as a whole does not stay in the process's memory: a
// start, and the first reads behind it, check them all.
func TestCheckedIndexIsForgotten(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	l, err := Open(ctx, Options{Dir: dir, ZeroBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	const topics = 20_000
	var b core.Batch
	for i := range topics {
		b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: fmt.Sprint("one/of/many/topics/", i)})
		b.Ends = append(b.Ends, uint32(len(b.Buf)))
	}
	appendWait(t, l, &b)
	if err := l.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	s := l.segments[0]
	x := s.view().index
	defer faults(faults(true))
	if err := x.verify(); err != nil {
		t.Fatal(err)
	}
	size, resident := len(x.data)>>10, residentKiB(t, filepath.Join(dir, logDir, indexName(s.name)))
	if size < 500 || resident > size/4 {
		t.Errorf("%d KiB of the %d of an index are resident", resident, size)
	}
	if n := x.numTopics(); n != topics || x.topic(n-1).name != "one/of/many/topics/9999" {
		t.Errorf("%d topics, the last %q", n, x.topic(n-1).name)
	}
}

// residentKiB is how much of the mappings of a file is in memory.
func residentKiB(t *testing.T, file string) (sum int) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, its := false, false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if before, _, ok := strings.Cut(line, " "); ok && !strings.HasSuffix(before, ":") {
			its = strings.HasSuffix(line, file)
			mapped = mapped || its
		}
		var n int
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil && its {
			sum += n
		}
	}
	if !mapped {
		t.Fatalf("%s is not mapped", file)
	}
	return sum
}
