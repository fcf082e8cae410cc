package seglog

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

var crashImages = flag.Int("images", 250, "how many crashes of the scripted workload are tried; 0 is all of them")

// A ledger knows what was handed to a log and what it confirmed.
type ledger struct {
	mu       sync.Mutex
	batches  []ledgerBatch
	reclaims core.Offset // everything before may be gone
}

type ledgerBatch struct {
	first     core.Offset
	topics    []string
	changes   []core.Change
	sync      bool
	confirmed bool
}

// small are options under which a little makes many segments.
func small(fs vfs.FS) Options {
	return Options{Dir: "/data", FS: fs, SegmentBytes: 16 << 10, TailBytes: 2 << 10, SyncDelay: time.Hour, ZeroBytes: 4 << 10, DirectBytes: 2 << 10, PackRecords: packRecords}
}

func (g *ledger) payload(batch, record int) string {
	return fmt.Sprintf("batch %d record %d %s", batch, record, strings.Repeat("x", (batch*7+record*13)%90))
}

// appendBatch appends a batch, waits for it, and says at which offset it begins.
func appendBatch(l *Log, b *core.Batch) (at core.Offset, err error) {
	done := make(chan error, 1)
	l.Append(b, func(_ *core.Batch, first core.Offset, err error) { at = first; done <- err })
	err = <-done
	return at, err
}

// append appends one batch and waits for it.
func (g *ledger) append(l *Log, b ledgerBatch) error {
	g.mu.Lock()
	i := len(g.batches)
	// It is large, so that the state's own log is written, too, before it is
	// synced.
	b.changes = append(b.changes, core.Change{Key: "large", Value: bytes.Repeat([]byte{byte(i)}, 9000)})
	b.changes = append(b.changes, core.Change{Key: "last", Value: binary.BigEndian.AppendUint64(nil, uint64(i))})
	if !b.sync && i%8 == 6 {
		b.changes = nil
	}
	g.batches = append(g.batches, b)
	g.mu.Unlock()
	batch := &core.Batch{Time: int64(1000 * (i + 1)), Sync: b.sync, Changes: b.changes}
	for k, topic := range b.topics {
		batch.Buf = core.AppendRecord(batch.Buf, &core.Envelope{Topic: topic, Payload: []byte(g.payload(i, k))})
		batch.Ends = append(batch.Ends, uint32(len(batch.Buf)))
	}
	done := make(chan error, 1)
	l.Append(batch, func(_ *core.Batch, first core.Offset, err error) {
		if err == nil {
			g.mu.Lock()
			g.batches[i].first, g.batches[i].confirmed = first, true
			g.mu.Unlock()
		}
		done <- err
	})
	return <-done
}

// script is a workload with all that a log does: synced and unsynced batches,
// large and small, state, segments that roll, retention, closing and opening.
func (g *ledger) script(fs vfs.FS) error {
	for round := range 3 {
		l, err := Open(context.Background(), small(fs))
		if err != nil {
			return err
		}
		for i := range 60 {
			b := ledgerBatch{sync: i%8 < 4}
			for k := range []int{1, 3, 40, 0, 2, 17}[i%6] {
				b.topics = append(b.topics, fmt.Sprintf("t/%d", (i+k)%5))
			}
			if i%5 == 0 && len(b.topics) > 0 {
				b.changes = []core.Change{{Key: fmt.Sprint("k/", i%20), Value: []byte("v"), OffsetOf: len(b.topics)}}
			} else if i%7 == 0 {
				b.changes = []core.Change{{Key: fmt.Sprint("k/", (i+5)%20)}}
			}
			if len(b.topics) == 0 {
				b.sync = true
			}
			if err := g.append(l, b); err != nil {
				l.Close(context.Background())
				return err
			}
		}
		if round > 0 {
			// t/0 is needed in part, t/1 is kept, the others go.
			_, end := l.Bounds()
			g.mu.Lock()
			g.reclaims = end
			g.mu.Unlock()
			_, err := l.Reclaim(context.Background(), core.Retention{
				Policies: []core.Policy{{Filters: []core.Filter{"t/1"}}, {Filters: []core.Filter{"#"}, Age: time.Second}},
				Needs:    scriptNeeds{},
				Now:      time.UnixMilli(1 << 50),
			})
			if err != nil {
				l.Close(context.Background())
				return err
			}
		}
		if err := l.Close(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// scriptNeeds needs every other record of t/0.
type scriptNeeds struct{}

func (scriptNeeds) Of(topic string) func(core.Offset) bool {
	if topic != "t/0" {
		return nil
	}
	return func(at core.Offset) bool { return at%2 == 0 }
}

// mayGo says whether the script's retention may remove a record.
func mayGo(topic string, at core.Offset) bool {
	return topic != "t/1" && (topic != "t/0" || at%2 != 0)
}

// everything reads a whole log.
func everything(l *Log) (records map[core.Offset]core.Record, gaps []core.Gap, err error) {
	records = make(map[core.Offset]core.Record)
	buf := core.ReadBuffer{MaxRecords: 37, MaxBytes: 1 << 20}
	last := core.Offset(0)
	first, end := l.Bounds()
	for at := first; at < end; {
		next, err := l.Read(context.Background(), at, 0, nil, &buf)
		if err != nil {
			return nil, nil, err
		}
		if next <= at {
			return nil, nil, fmt.Errorf("reading at %d goes on at %d", at, next)
		}
		for _, r := range buf.Records {
			if r.Offset <= last || r.Offset < at || r.Offset >= next {
				return nil, nil, fmt.Errorf("record %d behind %d in a read from %d to %d", r.Offset, last, at, next)
			}
			last = r.Offset
			r.Topic, r.Body = strings.Clone(r.Topic), slices.Clone(r.Body)
			records[r.Offset] = r
		}
		gaps = append(gaps, buf.Gaps...)
		at = next
	}
	return records, gaps, nil
}

// check compares what a log that was opened after a crash holds with the
// ledger. confirmed is how far the ledger had confirmed when the crash came.
func (g *ledger) check(l *Log, batches []ledgerBatch, reclaims core.Offset) error {
	if len(l.asides) > 0 {
		return fmt.Errorf("segments %d are said to be missing", l.asides)
	}
	records, gaps, err := everything(l)
	if err != nil {
		return err
	}
	for _, gap := range gaps {
		if gap.Lost {
			return fmt.Errorf("the log says that %d to %d were lost", gap.From, gap.To)
		}
	}
	state := maps.Collect(l.stateStrings())
	applied := -1
	if v, ok := state["last"]; ok {
		applied = int(binary.BigEndian.Uint64([]byte(v)))
	}
	_, end := l.Bounds()
	for i, b := range batches {
		there := 0
		for k, topic := range b.topics {
			at := b.first + core.Offset(k)
			r, ok := records[at]
			if !ok || b.first == 0 {
				if b.confirmed && b.sync && !(at < reclaims && mayGo(topic, at)) {
					return fmt.Errorf("batch %d: record %d at offset %d was confirmed and is not there", i, k, at)
				}
				continue
			}
			there++
			var e core.Envelope
			if err := r.Envelope(&e); err != nil {
				return err
			}
			if r.Topic != topic || string(e.Payload) != g.payload(i, k) || r.Time != int64(1000*(i+1)) {
				return fmt.Errorf("batch %d: record %d at offset %d is %s %q of %d", i, k, at, r.Topic, e.Payload, r.Time)
			}
			delete(records, at)
		}
		if b.confirmed && i <= applied && there < len(b.topics) && b.first >= reclaims {
			return fmt.Errorf("the state is that of batch %d, but records of batch %d are missing", applied, i)
		}
		if there > 0 && there < len(b.topics) && b.first >= reclaims {
			return fmt.Errorf("batch %d: %d of %d records are there", i, there, len(b.topics))
		}
		if b.confirmed && len(b.topics) > 0 && b.first+core.Offset(len(b.topics)) > end {
			return fmt.Errorf("batch %d: offset %d was named and will be given again from %d on", i, b.first, end)
		}
		if b.confirmed && b.sync && applied < i {
			return fmt.Errorf("batch %d: its state was confirmed and is not there; it is that of %d", i, applied)
		}
	}
	want := make(map[string]string)
	for i, b := range batches {
		if i > applied {
			break
		}
		for _, c := range b.changes {
			switch {
			case c.Value == nil:
				delete(want, c.Key)
			case c.OffsetOf > 0 && b.first == 0:
				// Not known to the ledger where it stands.
				want[c.Key] = state[c.Key]
			case c.OffsetOf > 0:
				want[c.Key] = string(binary.BigEndian.AppendUint64(c.Value[:len(c.Value):len(c.Value)], uint64(b.first)+uint64(c.OffsetOf)-1))
			default:
				want[c.Key] = string(c.Value)
			}
		}
	}
	if !maps.Equal(state, want) {
		return fmt.Errorf("state as of batch %d: %q, want %q", applied, state, want)
	}
	for at, r := range records {
		// What is left is of batches that were not confirmed.
		if i := slices.IndexFunc(batches, func(b ledgerBatch) bool { return !b.confirmed }); i < 0 {
			return fmt.Errorf("record %s at offset %d was never appended", r.Topic, at)
		}
	}
	return nil
}

func (l *Log) stateStrings() func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for s, err := range l.State("", "") {
			if err != nil {
				panic(err)
			}
			if !yield(s.Key, string(s.Value)) {
				return
			}
		}
	}
}

// TestCrashEverywhere runs the script once, takes an image of what a power cut
// would leave at each write, sync and change of a name, and opens each of them.
func TestCrashEverywhere(t *testing.T) {
	ops := 0
	if err := new(ledger).script(&vfs.Faulty{FS: vfs.NewMemory(), Inject: func(vfs.Op) *vfs.Fault { ops++; return nil }}); err != nil {
		t.Fatal(err)
	}
	every := 1
	if *crashImages > 0 {
		every = max(ops*3 / *crashImages, 1)
	}
	g := new(ledger)
	memory := vfs.NewMemory()
	memory.Disorder("/data/log")
	tried := 0
	crash := func(o vfs.Op) *vfs.Fault {
		for k, seed := range []uint64{vfs.CrashStrict, vfs.CrashKind, uint64(o.Index) + 2} {
			if (3*o.Index+k)%every != 0 {
				continue
			}
			g.mu.Lock()
			batches, reclaims := slices.Clone(g.batches), g.reclaims
			g.mu.Unlock()
			image := memory.Crash(seed)
			tried++
			if err := g.recover(image, batches, reclaims, seed); err != nil {
				t.Errorf("crash before call %d of %d, %s %s, seed %d: %v", o.Index, ops, o.Kind, o.Name, seed, err)
			}
		}
		return nil
	}
	if err := g.script(&vfs.Faulty{FS: memory, Inject: crash}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d crashes at %d calls", tried, ops)
}

// recover opens what a crash left, checks it, appends to it, and opens it again
// after a second crash.
func (g *ledger) recover(image *vfs.Memory, batches []ledgerBatch, reclaims core.Offset, seed uint64) error {
	var end core.Offset
	for range 2 {
		l, err := Open(context.Background(), small(image))
		if err != nil {
			return err
		}
		err = g.check(l, batches, reclaims)
		_, at := l.Bounds()
		if at < end {
			err = fmt.Errorf("the log ended at %d and now at %d", end, at)
		}
		if err == nil {
			done := make(chan error, 1)
			b := &core.Batch{Time: 1, Sync: true}
			b.Buf = core.AppendRecord(nil, &core.Envelope{Topic: "after"})
			b.Ends = []uint32{uint32(len(b.Buf))}
			l.Append(b, func(_ *core.Batch, first core.Offset, err error) { end = first + 1; done <- err })
			err = <-done
		}
		next := image.Crash(seed)
		if cerr := l.Close(context.Background()); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		image = next
		batches = append(slices.Clone(batches), ledgerBatch{})
	}
	return nil
}
