package seglog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// payloads are what messages hold: digits and letters as sensors send them,
// which packs to about half.
func payloads(size int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	all := make([][]byte, 1024)
	for i := range all {
		b := make([]byte, 0, size+32)
		for len(b) < size {
			b = fmt.Appendf(b, `{"t":%d,"v":%.4f},`, 1700000000+r.IntN(1e6), r.Float64()*100)
		}
		all[i] = b[:size]
	}
	return all
}

// benchTopics are the thousand topics that records of benchmarks have in turn.
var benchTopics = func() []string {
	all := make([]string, 1000)
	for i := range all {
		all[i] = fmt.Sprintf("plant/%d/line/%d/temp", i/100, i)
	}
	return all
}()

func fill(b *core.Batch, n int, from int, payloads [][]byte) {
	b.Buf = make([]byte, 0, n*(len(payloads[0])+64))
	b.Ends = b.Ends[:0]
	e := core.Envelope{Guarantee: core.AtLeastOnce, Publisher: core.Publisher{Client: "sensor-0815", Protocol: "mqtt"}}
	for i := from; i < from+n; i++ {
		e.Topic = benchTopics[i%len(benchTopics)]
		e.Payload = payloads[i%len(payloads)]
		b.Buf = core.AppendRecord(b.Buf, &e)
		b.Ends = append(b.Ends, uint32(len(b.Buf)))
	}
	b.Time = time.Now().UnixMilli()
}

// BenchmarkFrames makes frames of batches that are in no near cache.
func BenchmarkFrames(b *testing.B) {
	batches := make([]core.Batch, 64)
	for i := range batches {
		fill(&batches[i], 480, 480*i, payloads(1024))
	}
	var p packer
	var f frames
	var heads []byte
	b.SetBytes(int64(len(batches[0].Buf)))
	for i := 0; b.Loop(); i++ {
		f.begin(0)
		f.all, heads = p.append(f.all, heads[:0], nil, &batches[i%len(batches)], 1<<20)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, inFlight := range []int{1, 256} {
			b.Run(fmt.Sprintf("size=%d/inflight=%d", size, inFlight), func(b *testing.B) {
				benchmarkAppend(b, size, inFlight, true)
			})
		}
	}
	b.Run("size=100/unsynced=4096", func(b *testing.B) { benchmarkAppend(b, 100, 4096, false) })
}

// benchmarkAppend appends batches of so many records; as the core does it, one
// at a time.
func benchmarkAppend(b *testing.B, size, inFlight int, sync bool) {
	dir := b.TempDir()
	l, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	p := payloads(size)
	done := make(chan error, 1)
	batch := core.Batch{Sync: sync}
	b.ResetTimer()
	for n := 0; n < b.N; n += inFlight {
		fill(&batch, inFlight, n, p)
		l.Append(&batch, func(_ *core.Batch, _ core.Offset, err error) { done <- err })
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	written := 0.0
	for _, s := range l.segments {
		written += float64(s.view().size)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(written/float64(b.N*size), "written/payload")
	if err := l.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

var fiveMillion struct {
	sync.Once
	dir string
}

const benchRecords = 5_000_000

func TestMain(m *testing.M) {
	code := m.Run()
	if fiveMillion.dir != "" {
		os.RemoveAll(fiveMillion.dir)
	}
	os.Exit(code)
}

// fiveMillionRecords is the directory of a log that was killed, not closed.
func fiveMillionRecords(b *testing.B) string {
	fiveMillion.Do(func() {
		dir, err := os.MkdirTemp("", "seglog")
		if err != nil {
			b.Fatal(err)
		}
		fiveMillion.dir = dir
		l, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		p := payloads(100)
		done := make(chan error, 1)
		var batch core.Batch
		const each = 1000
		for n := 0; n < benchRecords; n += each {
			fill(&batch, each, n, p)
			batch.Changes = nil
			if n%(100*each) == 0 {
				batch.Changes = []core.Change{{Key: fmt.Sprint("q/", n), Value: []byte("position")}}
			}
			l.Append(&batch, func(_ *core.Batch, _ core.Offset, err error) { done <- err })
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
		for _, s := range l.segments[:len(l.segments)-1] {
			if err := l.ensureIndex(s); err != nil {
				b.Fatal(err)
			}
		}
		if err := l.Sync(context.Background()); err != nil {
			b.Fatal(err)
		}
		// What a kill leaves is what is there now; the copy is not closed.
		l.committer.failed = core.ErrStorage
		l.Close(context.Background())
	})
	return fiveMillion.dir
}

func open5M(b *testing.B) *Log {
	l, err := Open(context.Background(), Options{Dir: fiveMillionRecords(b)})
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range l.segments[:len(l.segments)-1] {
		if err := l.ensureIndex(s); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

func readAll(b *testing.B, l *Log, filters *core.FilterSet, buf *core.ReadBuffer) (n int) {
	first, end := l.Bounds()
	for at := first; at < end; {
		next, err := l.Read(context.Background(), at, 0, filters, buf)
		if err != nil {
			b.Fatal(err)
		}
		n += len(buf.Records)
		at = next
	}
	return n
}

func BenchmarkRead(b *testing.B) {
	l := open5M(b)
	defer l.Close(context.Background())
	buf := core.ReadBuffer{MaxRecords: 1024, MaxBytes: 256 << 10}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n += readAll(b, l, nil, &buf)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkFilter(b *testing.B) {
	l := open5M(b)
	defer l.Close(context.Background())
	for _, f := range []core.Filter{"plant/5/line/512/temp", "plant/5/line/512/+", "+/5/line/512/temp"} {
		filters := core.NewFilterSet(f)
		b.Run(string(f[:5]), func(b *testing.B) {
			buf := core.ReadBuffer{MaxRecords: 1024, MaxBytes: 256 << 10}
			b.ReportAllocs()
			for b.Loop() {
				if n := readAll(b, l, filters, &buf); n != benchRecords/1000 {
					b.Fatal(n)
				}
			}
		})
	}
}

func BenchmarkOpen5M(b *testing.B) {
	dir := fiveMillionRecords(b)
	for b.Loop() {
		l, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		l.committer.failed = core.ErrStorage
		l.Close(context.Background())
		b.StartTimer()
	}
}

func BenchmarkGet(b *testing.B) {
	l, err := Open(context.Background(), Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(context.Background())
	var changes []core.Change
	for i := range 100_000 {
		changes = append(changes, core.Change{Key: fmt.Sprintf("retained/%d", i), Value: []byte("12345678")})
	}
	done := make(chan error, 1)
	l.Append(&core.Batch{Changes: changes}, func(_ *core.Batch, _ core.Offset, err error) { done <- err })
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		if v, err := l.Get(changes[i%len(changes)].Key); len(v) != 8 || err != nil {
			b.Fatal(v, err)
		}
		i += 7919
	}
}
