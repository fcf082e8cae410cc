// Package enginetest is the conformance suite of the core's engine port: what
// every engine must do, checked against the model in coretest.
package enginetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Run checks the engines that open makes. Each is new and empty, belongs to the
// test that asked for it, and is closed by Run.
func Run(t *testing.T, open func(t *testing.T) core.Engine) {
	for _, c := range []struct {
		name string
		test func(*testing.T, core.Engine)
	}{
		{"empty", testEmpty},
		{"offsets", testOffsets},
		{"pipeline", testPipeline},
		{"chain", testChain},
		{"here", testHere},
		{"read bounds", testReadBounds},
		{"read filters", testReadFilters},
		{"aliasing", testAliasing},
		{"large records", testLargeRecords},
		{"offset at a time", testOffsetAt},
		{"state", testState},
		{"state sees one moment", testStateMoment},
		{"visible before done", testVisible},
		{"state names what can be read", testNamed},
		{"readers beside a writer", testReaders},
		{"topics", testTopics},
		{"topics after reclaim", testTopicsReclaimed},
		{"reclaim by age", testReclaimAge},
		{"reclaim keeps needs", testReclaimNeeds},
		{"reclaim by bytes", testReclaimBytes},
		{"cancelled read", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t)
			defer func() {
				if err := e.Close(context.Background()); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.test(t, e)
		})
	}
	t.Run("model", func(t *testing.T) { testModel(t, open) })
}

// Start is the time of the batches that tests append, unless they say
// otherwise.
const start = 1_700_000_000_000

// newBatch makes a batch with a record for each topic.
func newBatch(topics ...string) *core.Batch {
	b := &core.Batch{Time: start, Sync: true}
	for _, topic := range topics {
		add(b, topic, []byte("payload of "+topic))
	}
	return b
}

func add(b *core.Batch, topic string, payload []byte) {
	b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: topic, Payload: payload})
	b.Ends = append(b.Ends, uint32(len(b.Buf)))
}

// put appends a batch and waits until it is done.
func put(t testing.TB, e core.Engine, b *core.Batch) core.Offset {
	t.Helper()
	type result struct {
		first core.Offset
		err   error
	}
	done := make(chan result, 1)
	e.Append(b, func(got *core.Batch, first core.Offset, err error) {
		if got != b {
			t.Errorf("done with another batch")
		}
		done <- result{first, err}
	})
	r := <-done
	if r.err != nil {
		t.Fatalf("append: %v", r.err)
	}
	return r.first
}

// reading is all that a read of a range found.
type reading struct {
	offsets []core.Offset
	topics  []string
	gaps    []core.Gap
}

func read(t testing.TB, e core.Engine, from, limit core.Offset, filters *core.FilterSet, max int) (r reading) {
	t.Helper()
	buf := core.ReadBuffer{MaxRecords: max, MaxBytes: 1 << 20}
	_, end := e.Bounds()
	if limit != 0 {
		end = min(end, limit)
	}
	for at := from; at < end; {
		buf.Reset()
		next, err := e.Read(context.Background(), at, limit, filters, &buf)
		if err != nil {
			t.Fatalf("read at %d: %v", at, err)
		}
		if next <= at || next > end {
			t.Fatalf("read at %d goes on at %d; the end is %d", at, next, end)
		}
		if len(buf.Records) > max {
			t.Fatalf("%d records, at most %d were asked for", len(buf.Records), max)
		}
		for _, rec := range buf.Records {
			if rec.Offset < at || rec.Offset >= next {
				t.Fatalf("record %d in a read from %d to %d", rec.Offset, at, next)
			}
			if rec.Hash != core.HashTopic(rec.Topic) {
				t.Fatalf("record %d has hash %x for topic %q", rec.Offset, rec.Hash, rec.Topic)
			}
			r.offsets = append(r.offsets, rec.Offset)
			r.topics = append(r.topics, strings.Clone(rec.Topic))
		}
		r.gaps = append(r.gaps, buf.Gaps...)
		at = next
	}
	if !slices.IsSorted(r.offsets) {
		t.Fatalf("offsets out of order: %v", r.offsets)
	}
	return r
}

func testEmpty(t *testing.T, e core.Engine) {
	if first, end := e.Bounds(); first != end || end != 1 {
		t.Errorf("bounds %d, %d of an empty log", first, end)
	}
	var buf core.ReadBuffer
	if next, err := e.Read(context.Background(), 1, 0, nil, &buf); err != nil || next != 1 || len(buf.Records)+len(buf.Gaps) > 0 {
		t.Errorf("read of an empty log: %d, %v, %v", next, buf, err)
	}
	if at, err := e.OffsetAt(time.UnixMilli(start)); at != 1 || err != nil {
		t.Errorf("offset at a time: %d, %v", at, err)
	}
	if v, err := e.Get("nothing"); v != nil || err != nil {
		t.Errorf("value %q, %v", v, err)
	}
	for s, err := range e.State("", "") {
		t.Errorf("state has %q, %v", s.Key, err)
	}
	if first := put(t, e, &core.Batch{Sync: true}); first != 1 {
		t.Errorf("an empty batch is at %d", first)
	}
}

func testOffsets(t *testing.T, e core.Engine) {
	next := core.Offset(1)
	for i := range 50 {
		b := newBatch(slices.Repeat([]string{"a/b"}, i%7)...)
		b.Sync = i%3 != 0
		first := put(t, e, b)
		if first < next {
			t.Fatalf("batch %d is at %d, behind %d", i, first, next)
		}
		next = first + core.Offset(b.Len())
		if _, end := e.Bounds(); end < next {
			t.Fatalf("the log ends at %d before %d", end, next)
		}
	}
	if r := read(t, e, 1, 0, nil, 10); len(r.offsets) != 7*(1+2+3+4+5+6) {
		t.Errorf("%d records", len(r.offsets))
	}
}

// testChain: done may append the next batch, and is not held up by it.
func testChain(t *testing.T, e core.Engine) {
	const n = 200
	var offsets []core.Offset
	over := make(chan struct{})
	b := newBatch("p", "q")
	b.Sync = true
	var done func(*core.Batch, core.Offset, error)
	done = func(_ *core.Batch, first core.Offset, err error) {
		if err != nil {
			t.Errorf("append %d: %v", len(offsets), err)
		}
		if offsets = append(offsets, first); len(offsets) == n {
			close(over)
			return
		}
		next := newBatch("p", "q")
		next.Sync = len(offsets)%2 == 0
		e.Append(next, done)
	}
	e.Append(b, done)
	<-over
	for i := 1; i < n; i++ {
		if offsets[i] < offsets[i-1]+2 {
			t.Fatalf("append %d is at %d, the one before at %d", i, offsets[i], offsets[i-1])
		}
	}
}

// testHere: a batch whose caller waits is done like any other, and done may append
// the next one, whoever waits for that.
func testHere(t *testing.T, e core.Engine) {
	const n = 100
	var offsets []core.Offset
	over := make(chan struct{})
	var done func(*core.Batch, core.Offset, error)
	done = func(_ *core.Batch, first core.Offset, err error) {
		if err != nil {
			t.Errorf("append %d: %v", len(offsets), err)
		}
		if _, end := e.Bounds(); end != first+2 {
			t.Errorf("append %d is at %d, and the log ends at %d", len(offsets), first, end)
		}
		if offsets = append(offsets, first); len(offsets)%n == 0 {
			over <- struct{}{}
			return
		}
		next := newBatch("p", "q")
		next.Here = len(offsets)%3 == 0
		e.Append(next, done)
	}
	for range 5 {
		b := newBatch("p", "q")
		b.Here = true
		go e.Append(b, done)
		<-over
	}
	for i := 1; i < len(offsets); i++ {
		if offsets[i] < offsets[i-1]+2 {
			t.Fatalf("append %d is at %d, the one before at %d", i, offsets[i], offsets[i-1])
		}
	}
	if r := read(t, e, 1, 0, nil, 100); len(r.offsets) != 2*len(offsets) {
		t.Errorf("%d records of %d", len(r.offsets), 2*len(offsets))
	}
}

// testPipeline: done is called in the order of the appends, once each.
func testPipeline(t *testing.T, e core.Engine) {
	const n = 200
	var mu sync.Mutex
	var order []int
	var firsts []core.Offset
	var all sync.WaitGroup
	all.Add(n)
	for i := range n {
		b := newBatch("p", "q")
		b.Sync = i%2 == 0
		e.Append(b, func(_ *core.Batch, first core.Offset, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("append %d: %v", i, err)
			}
			order, firsts = append(order, i), append(firsts, first)
			all.Done()
		})
	}
	all.Wait()
	for i := range n {
		if order[i] != i {
			t.Fatalf("done number %d was that of append %d", i, order[i])
		}
		if i > 0 && firsts[i] < firsts[i-1]+2 {
			t.Fatalf("append %d is at %d, the one before at %d", i, firsts[i], firsts[i-1])
		}
	}
}

// testAliasing: what was read stays as it is until the buffer is used again.
func testAliasing(t *testing.T, e core.Engine) {
	for i := range 100 {
		put(t, e, newBatch(slices.Repeat([]string{fmt.Sprint("topic/", i)}, 20)...))
	}
	buf := core.ReadBuffer{MaxRecords: 500, MaxBytes: 1 << 20}
	if _, err := e.Read(context.Background(), 1, 0, nil, &buf); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		put(t, e, newBatch(slices.Repeat([]string{fmt.Sprint("later/", i)}, 20)...))
	}
	for i, r := range buf.Records {
		var env core.Envelope
		if err := r.Envelope(&env); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint("topic/", i/20); r.Topic != want || string(env.Payload) != "payload of "+want || !env.Time.Equal(time.UnixMilli(start)) {
			t.Fatalf("record %d is %q %q of %v", r.Offset, r.Topic, env.Payload, env.Time)
		}
	}
}

func testLargeRecords(t *testing.T, e core.Engine) {
	sizes := []int{0, 1, 8 << 10, 1 << 20, 3 << 20, 100}
	b := &core.Batch{Time: start, Sync: true}
	for i, size := range sizes {
		add(b, fmt.Sprint("size/", i), bytes.Repeat([]byte{byte('a' + i)}, size))
	}
	first := put(t, e, b)
	buf := core.ReadBuffer{MaxRecords: 10, MaxBytes: 64 << 10}
	at := first
	for i, size := range sizes {
		buf.MaxRecords = 1
		next, err := e.Read(context.Background(), at, 0, nil, &buf)
		if err != nil || len(buf.Records) != 1 {
			t.Fatalf("record %d: %d records, %v", i, len(buf.Records), err)
		}
		var env core.Envelope
		if err := buf.Records[0].Envelope(&env); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(env.Payload, bytes.Repeat([]byte{byte('a' + i)}, size)) {
			t.Errorf("record %d has %d bytes, want %d", i, len(env.Payload), size)
		}
		at = next
	}
}

func testOffsetAt(t *testing.T, e core.Engine) {
	var firsts []core.Offset
	for i := range 50 {
		b := newBatch("t", "t")
		b.Time = start + int64(i)*1000
		firsts = append(firsts, put(t, e, b))
	}
	_, end := e.Bounds()
	for i, first := range firsts {
		at := time.UnixMilli(start + int64(i)*1000)
		for _, ask := range []time.Time{at, at.Add(-time.Nanosecond), at.Add(-999 * time.Millisecond)} {
			if got, err := e.OffsetAt(ask); got != first || err != nil {
				t.Errorf("at %v: %d, %v, want %d", ask, got, err, first)
			}
		}
	}
	if got, err := e.OffsetAt(time.UnixMilli(start + 50_000)); got != end || err != nil {
		t.Errorf("ahead of the log: %d, %v, want %d", got, err, end)
	}
	if got, err := e.OffsetAt(time.Time{}); got != firsts[0] || err != nil {
		t.Errorf("at the beginning of time: %d, %v", got, err)
	}
}

// testVisible: a record can be read, and a change seen, when done is called.
func testVisible(t *testing.T, e core.Engine) {
	for i := range 50 {
		b := newBatch("t")
		b.Sync = i%2 == 0
		b.Changes = []core.Change{{Key: "k", Value: fmt.Append(nil, i)}}
		done := make(chan error, 1)
		e.Append(b, func(_ *core.Batch, first core.Offset, err error) {
			buf := core.ReadBuffer{MaxRecords: 1, MaxBytes: 1 << 10}
			_, rerr := e.Read(context.Background(), first, 0, nil, &buf)
			v, gerr := e.Get("k")
			switch _, end := e.Bounds(); {
			case err != nil || rerr != nil || gerr != nil:
				err = fmt.Errorf("%v, %v, %v", err, rerr, gerr)
			case end <= first:
				err = fmt.Errorf("the log ends at %d", end)
			case len(buf.Records) != 1 || buf.Records[0].Offset != first:
				err = fmt.Errorf("record %d is not there", first)
			case string(v) != fmt.Sprint(i):
				err = fmt.Errorf("k is %q", v)
			}
			done <- err
		})
		if err := <-done; err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
}

// testNamed: a record that a state change names can be read as soon as the
// change is seen.
func testNamed(t *testing.T, e core.Engine) {
	const batches = 1000
	var done atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		buf := core.ReadBuffer{MaxRecords: 1, MaxBytes: 1 << 10}
		for last := core.Offset(0); !done.Load(); {
			v, err := e.Get("k")
			if err != nil {
				t.Error(err)
				return
			}
			if len(v) == 0 {
				continue
			}
			at := core.Offset(binary.BigEndian.Uint64(v))
			if at == last {
				runtime.Gosched()
				continue
			}
			last = at
			buf.Reset()
			if _, err := e.Read(context.Background(), at, at+1, nil, &buf); err != nil || len(buf.Records) != 1 {
				t.Errorf("the state names record %d: %d records, %v", at, len(buf.Records), err)
				return
			}
		}
	})
	for range batches {
		b := newBatch("t")
		b.Changes = []core.Change{{Key: "k", Value: []byte{}, OffsetOf: 1}}
		put(t, e, b)
	}
	done.Store(true)
	reader.Wait()
}

// testReaders: readers that follow the log see every record once, in order.
func testReaders(t *testing.T, e core.Engine) {
	const batches = 300
	const each = 20
	var readers sync.WaitGroup
	for n := range 4 {
		var filters *core.FilterSet
		want := batches * each
		if n%2 == 1 {
			filters = core.NewFilterSet("odd")
			want /= 2
		}
		readers.Go(func() {
			buf := core.ReadBuffer{MaxRecords: 10 + 50*n, MaxBytes: 1 << 20}
			at, last, got := core.Offset(1), core.Offset(0), 0
			for got < want {
				next, err := e.Read(context.Background(), at, 0, filters, &buf)
				if err != nil {
					t.Errorf("read at %d: %v", at, err)
					return
				}
				for _, r := range buf.Records {
					if r.Offset <= last {
						t.Errorf("record %d behind %d", r.Offset, last)
						return
					}
					last = r.Offset
					got++
				}
				if len(buf.Gaps) > 0 {
					t.Errorf("gaps %v", buf.Gaps)
					return
				}
				at = next
			}
			if got != want {
				t.Errorf("%d records, want %d", got, want)
			}
		})
	}
	for i := range batches {
		b := newBatch(slices.Repeat([]string{"even", "odd"}, each/2)...)
		b.Sync = i%10 == 0
		put(t, e, b)
	}
	readers.Wait()
}

func testCancelled(t *testing.T, e core.Engine) {
	put(t, e, newBatch("t"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var buf core.ReadBuffer
	if _, err := e.Read(ctx, 1, 0, nil, &buf); err == nil {
		t.Errorf("a cancelled read succeeded")
	}
}
