package seglog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// TestDirect appends commits of all sizes, which are written past the system's
// cache or through it, to a log on a real disk, while zeros are written ahead of it
// and others read it from the file. All of it is what was appended: meanwhile, once
// it was sealed, and when it is opened again. The second directory has no disk.
func TestDirect(t *testing.T) {
	for _, parent := range []string{t.TempDir(), "/dev/shm"} {
		t.Run(path.Base(parent), func(t *testing.T) {
			t.Parallel()
			if i, err := os.Stat(parent); err != nil || !i.IsDir() {
				t.Skip("there is none")
			}
			dir, err := os.MkdirTemp(parent, "direct")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			d := newDirectTest(t, dir, rand.Uint64())
			for range 3 {
				d.live(t, 500*time.Millisecond)
			}
		})
	}
}

// A directTest knows what the log in a directory has, by the offset alone.
type directTest struct {
	o      Options
	seed   uint64
	random *rand.Rand
	pool   []byte
	next   core.Offset
}

func newDirectTest(t *testing.T, dir string, seed uint64) *directTest {
	t.Logf("seed %d", seed)
	d := &directTest{seed: seed, random: rand.New(rand.NewPCG(seed, 0)), pool: make([]byte, 64<<10), next: 1}
	for i := range d.pool {
		d.pool[i] = byte(d.random.Uint32())
	}
	d.o = Options{
		Dir: dir, SegmentBytes: 1 << 20 << d.random.IntN(3), TailBytes: 1, SyncDelay: 5 * time.Millisecond,
		ZeroBytes: 4 << 20, DirectBytes: 16 << 10, PackRecords: 30,
		Busy: func(int64, time.Duration) bool { return true }, // so that spare files are used again
	}
	return d
}

// record is the topic and the payload at an offset.
func (d *directTest) record(at core.Offset) (string, []byte) {
	r := rand.NewPCG(d.seed, uint64(at))
	topic := fmt.Sprint("topic/", r.Uint64()%20)
	from, size := r.Uint64()%uint64(len(d.pool)/2), r.Uint64()%500
	if r.Uint64()%50 == 0 {
		size = r.Uint64() % uint64(len(d.pool)/2)
	}
	return topic, d.pool[from : from+size]
}

// live opens the log, works on it for so long, and closes it.
func (d *directTest) live(t *testing.T, long time.Duration) {
	ctx := context.Background()
	l, err := Open(ctx, d.o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if _, end := l.Bounds(); end != d.next {
		t.Fatalf("the log goes on at %d, want %d", end, d.next)
	}
	d.check(t, l, 1, d.next)

	stop := make(chan struct{})
	var others sync.WaitGroup
	for i := range 2 {
		random := rand.New(rand.NewPCG(d.seed, uint64(d.next)+uint64(i)))
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, end := l.Bounds()
				if end > 1 {
					from := 1 + core.Offset(random.Uint64N(uint64(end)-1))
					if random.IntN(2) == 0 {
						from = max(end-core.Offset(random.Uint64N(min(500, uint64(end)))), 1) // in the active segment
					}
					d.check(t, l, from, min(from+core.Offset(random.IntN(300)), end))
				}
				if random.IntN(4) == 0 {
					time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond)
				}
			}
		})
	}
	for until := time.Now().Add(long); time.Now().Before(until) && !t.Failed(); {
		switch d.random.IntN(30) {
		case 0:
			// Zeros are written while the log is slow: when the large one comes.
			for range 3 {
				time.Sleep(zeroLook)
				d.append(t, l, 1)
				d.append(t, l, 16<<10<<d.random.IntN(4))
			}
		case 1:
			_, end := l.Bounds()
			if _, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Bytes: 6 << 20}}, Now: time.Now(), Before: end}); err != nil {
				t.Fatal(err)
			}
		}
		// Small ones, which ask for zeros, and then a large one.
		for range d.random.IntN(4) {
			d.append(t, l, 1+d.random.IntN(2000))
		}
		for range d.random.IntN(3) {
			d.append(t, l, 8<<10<<d.random.IntN(6)+d.random.IntN(4096))
		}
	}
	close(stop)
	others.Wait()

	if d.random.IntN(2) == 0 {
		if err := l.Seal(ctx); err != nil {
			t.Fatal(err)
		}
	} else {
		indexAll(t, l)
	}
	segments := l.segmentsNow()
	for _, s := range segments[:len(segments)-1] {
		if s.rewritten {
			continue // its index knows what is lost, and what was removed
		}
		b := newIndexBuilder(l, s)
		if err := b.scan(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, l.fs, path.Join(l.dir, indexName(s.name))), b.encode()) {
			t.Errorf("%s: the index is another one than that of the file", s.name)
		}
	}
	d.check(t, l, 1, d.next)
}

// append appends records of so many bytes together, or a few more.
func (d *directTest) append(t *testing.T, l *Log, size int) {
	b := &core.Batch{Time: time.Now().UnixMilli(), Sync: d.random.IntN(3) == 0}
	for at := d.next; len(b.Buf) < size; at++ {
		topic, payload := d.record(at)
		b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: topic, Payload: payload})
		b.Ends = append(b.Ends, uint32(len(b.Buf)))
	}
	if d.random.IntN(10) == 0 {
		b.Changes = []core.Change{{Key: "key", Value: []byte("value")}}
	}
	n := core.Offset(len(b.Ends))
	if first := appendWait(t, l, b); first != d.next {
		t.Errorf("appended at %d, want %d", first, d.next)
	}
	d.next += n
}

// check reads a range of the log. What is missing was removed.
func (d *directTest) check(t *testing.T, l *Log, from, end core.Offset) {
	var buf core.ReadBuffer
	for from < end && !t.Failed() {
		next, err := l.Read(context.Background(), from, end, nil, &buf)
		if err != nil {
			t.Errorf("reading at %d: %v", from, err)
			return
		}
		gaps := buf.Gaps
		removed := func(at core.Offset) bool {
			for _, g := range gaps {
				if g.From <= at && at < g.To && !g.Lost {
					return true
				}
			}
			return false
		}
		for _, r := range buf.Records {
			for ; from < r.Offset; from++ {
				if !removed(from) {
					t.Errorf("%d is not there", from)
					return
				}
			}
			topic, payload := d.record(r.Offset)
			want := core.AppendRecord(nil, &core.Envelope{Topic: topic, Payload: payload})
			if body := want[core.RecordHeaderSize+len(topic):]; r.Topic != topic || !bytes.Equal(r.Body, body) {
				t.Errorf("%d is not what was appended", r.Offset)
				return
			}
			from++
		}
		for ; from < next; from++ {
			if !removed(from) {
				t.Errorf("%d is not there", from)
				return
			}
		}
	}
}
