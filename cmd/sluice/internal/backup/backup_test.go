package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
	"github.com/sluicemq/sluice/storage/vfs"
)

const (
	dataDir   = "/data"
	backupDir = "/backups"
)

func nobody(int64) {}
func nothing(int)  {}

func openLog(t *testing.T, fs vfs.FS, dir string) *seglog.Log {
	t.Helper()
	l, err := seglog.Open(context.Background(), seglog.Options{Dir: dir, FS: fs, SegmentBytes: 16 << 10, TailBytes: 2 << 10, ZeroBytes: 4 << 10, PackRecords: 16})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t *testing.T, l *seglog.Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A ledger knows what was appended to a log, and what of it was confirmed.
type ledger struct {
	mu        sync.Mutex // guards what follows
	grown     sync.Cond  // signalled when more was confirmed
	topics    map[core.Offset]string
	confirmed core.Offset // up to there, exclusive
	n         int
}

func newLedger() *ledger {
	g := &ledger{topics: make(map[core.Offset]string)}
	g.grown.L = &g.mu
	return g
}

// append appends a batch of records and a change of the state that says how far
// it has come. A log has one caller of it.
func (g *ledger) append(l *seglog.Log) error {
	b := &core.Batch{Time: time.Now().UnixMilli(), Sync: true}
	var topics []string
	g.mu.Lock()
	for range 1 + g.n%7 {
		g.n++
		topics = append(topics, fmt.Sprintf("t/%d/%d", g.n%5, g.n))
		b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: topics[len(topics)-1], Payload: bytes.Repeat([]byte{byte(g.n)}, g.n%200)})
		b.Ends = append(b.Ends, uint32(len(b.Buf)))
	}
	b.Changes = []core.Change{{Key: "last", Value: []byte{}, OffsetOf: len(topics)}, {Key: fmt.Sprint("k/", g.n%50), Value: make([]byte, 100)}}
	g.mu.Unlock()
	done := make(chan error, 1)
	l.Append(b, func(_ *core.Batch, first core.Offset, err error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		for i, topic := range topics {
			g.topics[first+core.Offset(i)] = topic
		}
		if err == nil {
			g.confirmed = first + core.Offset(len(topics))
			g.grown.Broadcast()
		}
		done <- err
	})
	return <-done
}

func (g *ledger) upTo() core.Offset {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.confirmed
}

// wait waits until so much is confirmed.
func (g *ledger) wait(to core.Offset) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.confirmed < to {
		g.grown.Wait()
	}
}

// check compares a log that was restored with the ledger: of what had been
// confirmed up to an offset, nothing that must be there is missing, and nothing
// is there that was not appended. The state is of the same moment.
func (g *ledger) check(l *seglog.Log, to core.Offset, must func(topic string) bool) error {
	buf := core.ReadBuffer{MaxRecords: 100, MaxBytes: 1 << 20}
	first, end := l.Bounds()
	seen := make(map[core.Offset]bool)
	last := core.Offset(0)
	for at := first; at < end; {
		next, err := l.Read(context.Background(), at, 0, nil, &buf)
		if err != nil {
			return err
		}
		for _, r := range buf.Records {
			if topic := g.topics[r.Offset]; topic != r.Topic {
				return fmt.Errorf("offset %d is %q, appended was %q", r.Offset, r.Topic, topic)
			}
			seen[r.Offset] = true
			last = r.Offset
		}
		for _, gap := range buf.Gaps {
			if gap.Lost {
				return fmt.Errorf("%d to %d are said to be lost", gap.From, gap.To)
			}
		}
		at = next
	}
	for at, topic := range g.topics {
		if at < to && must(topic) && !seen[at] {
			return fmt.Errorf("offset %d was confirmed and is missing; there are %d records", at, len(seen))
		}
	}
	v, err := l.Get("last")
	if err != nil || len(v) != 8 {
		return fmt.Errorf("the state says %x: %w", v, err)
	}
	if said := core.Offset(binary.BigEndian.Uint64(v)); said != last {
		return fmt.Errorf("the state is that of offset %d, the log ends at %d", said, last)
	}
	if end <= last+1<<40 {
		return fmt.Errorf("the next offset is %d, which the log may have given after the backup", end)
	}
	return nil
}

// take makes a backup of a log into a folder, as the command does.
func take(l *seglog.Log, fs vfs.FS) (*Result, error) {
	f, err := OpenFolder(fs, backupDir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := l.Snapshot(context.Background())
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := errors.Join(Send(w, s, f.Request()), s.Close())
		w.CloseWithError(err)
		sent <- err
	}()
	result, err := f.Receive(r, nobody, nothing)
	r.CloseWithError(io.ErrClosedPipe)
	if serr := <-sent; err == nil {
		err = serr
	}
	return result, err
}

// A backup under load is the log at one moment, not before it was asked for.
// Retention goes on meanwhile. A later backup copies just what is new.
func TestBackupUnderLoad(t *testing.T) {
	data, backups := vfs.NewMemory(), vfs.NewMemory()
	l := openLog(t, data, dataDir)
	g := newLedger()
	stop := make(chan struct{})
	var load sync.WaitGroup
	repeat := func(do func() error) {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	repeat(func() error { return g.append(l) })
	repeat(func() error {
		_, err := l.Reclaim(context.Background(), core.Retention{
			Policies: []core.Policy{{Filters: []core.Filter{"t/1/#"}}, {Filters: []core.Filter{"#"}, Bytes: 200 << 10}},
			Now:      time.Now(),
		})
		return err
	})
	type made struct {
		*Result
		confirmed core.Offset
	}
	var all []made
	for range 4 {
		g.wait(g.upTo() + 1500)
		confirmed := g.upTo()
		r, err := take(l, backups)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, made{r, confirmed})
	}
	close(stop)
	load.Wait()
	if t.Failed() {
		return
	}
	// At rest there is hardly anything to copy the second time.
	if _, err := take(l, backups); err != nil {
		t.Fatal(err)
	}
	r, err := take(l, backups)
	if err != nil {
		t.Fatal(err)
	}
	if r.Copied > r.Kept/2 {
		t.Errorf("a second backup copied %d bytes and kept %d", r.Copied, r.Kept)
	}
	closeLog(t, l)
	if names, err := data.List(dataDir); err != nil || len(names) != 2 { // log, state
		t.Errorf("snapshots have left something behind: %v %v", names, err)
	}

	for i, m := range all {
		if _, err := Verify(backups, m.Dir, nobody, nothing); err != nil {
			t.Fatal(err)
		}
		to := fmt.Sprint("/restored", i)
		if _, err := Restore(backups, m.Dir, to, nobody, nothing); err != nil {
			t.Fatal(err)
		}
		if m.Manifest.End < m.confirmed {
			t.Fatalf("the backup ends at %d, confirmed before it was up to %d", m.Manifest.End, m.confirmed)
		}
		l := openLog(t, backups, to)
		if err := g.check(l, m.Manifest.End, func(topic string) bool { return strings.HasPrefix(topic, "t/1/") }); err != nil {
			t.Errorf("backup %d: %v", i, err)
		}
		closeLog(t, l)
		// From the second opening on it is a log like any other.
		l = openLog(t, backups, to)
		if _, end := l.Bounds(); end >= m.Manifest.End+2<<40 {
			t.Errorf("offsets were left out twice: the next is %d", end)
		}
		closeLog(t, l)
	}
	if dir, err := Find(backups, backupDir); err != nil || dir != r.Dir {
		t.Errorf("the newest is %s, %v; want %s", dir, err, r.Dir)
	}
}

// A byte that is flipped anywhere in a backup is found, and such a backup is
// not restored.
func TestFlippedByte(t *testing.T) {
	fs := vfs.NewMemory()
	r := takeSmall(t, fs)
	files := []string{manifestName, sumName}
	for _, f := range r.Manifest.Files {
		files = append(files, f.Name)
	}
	damage := func(name string, change func(vfs.File, int64) error) {
		t.Helper()
		at := path.Join(r.Dir, name)
		was, err := readAll(fs, at)
		if err != nil {
			t.Fatal(err)
		}
		if len(was) == 0 {
			return
		}
		f, err := fs.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := change(f, int64(len(was))); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(fs, r.Dir, nobody, nothing); !errors.Is(err, ErrDamaged) || name != sumName && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: verify says %v", name, err)
		}
		if _, err := Restore(fs, r.Dir, "/restored", nobody, nothing); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: restore says %v", name, err)
		}
		if name != manifestName && name != sumName {
			if _, err := seglog.Open(context.Background(), seglog.Options{Dir: "/restored", FS: fs}); !errors.Is(err, seglog.ErrRestoring) {
				t.Fatalf("%s: what was restored of it is opened: %v", name, err)
			}
		}
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(was, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range files {
		for _, share := range []int64{0, 3, 7} {
			damage(name, func(f vfs.File, size int64) error {
				b := make([]byte, 1)
				at := (size - 1) * share / 7
				if _, err := f.ReadAt(b, at); err != nil {
					return err
				}
				b[0] ^= 0x10
				_, err := f.WriteAt(b, at)
				return err
			})
		}
		damage(name, func(f vfs.File, size int64) error { return f.Truncate(size - 1) })
	}
	if _, err := Verify(fs, r.Dir, nobody, nothing); err != nil {
		t.Error(err)
	}
	if err := fs.Remove(path.Join(r.Dir, r.Manifest.Files[0].Name)); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(fs, r.Dir, nobody, nothing); !errors.Is(err, ErrDamaged) {
		t.Errorf("a missing file: %v", err)
	}
}

// takeSmall makes a log with a few segments and a backup of it.
func takeSmall(t *testing.T, fs vfs.FS) *Result {
	t.Helper()
	l := openLog(t, fs, dataDir)
	defer closeLog(t, l)
	g := newLedger()
	for range 100 {
		if err := g.append(l); err != nil {
			t.Fatal(err)
		}
	}
	r, err := take(l, fs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A backup that a crash cuts off, at whatever step, is not taken for one, does
// not hurt those before it, and does not hinder the next.
func TestCrashDuringBackup(t *testing.T) {
	l := openLog(t, vfs.NewMemory(), dataDir)
	defer closeLog(t, l)
	g := newLedger()
	more := func() {
		for range 60 {
			if err := g.append(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	more()
	memory := vfs.NewMemory()
	before, err := take(l, memory)
	if err != nil {
		t.Fatal(err)
	}
	more()
	var images []*vfs.Memory
	crash := &vfs.Faulty{FS: memory, Inject: func(o vfs.Op) *vfs.Fault {
		images = append(images, memory.Crash(vfs.CrashStrict), memory.Crash(vfs.CrashKind), memory.Crash(uint64(o.Index)+2))
		return nil
	}}
	after, err := take(l, crash)
	if err != nil {
		t.Fatal(err)
	}
	last, err := List(memory.Crash(vfs.CrashStrict), backupDir)
	if err != nil || len(last) != 2 || last[1] != after.Dir {
		t.Errorf("a backup that was said to be made is not there after a power cut: %v %v", last, err)
	}
	both := 0
	for i, image := range images {
		dirs, err := List(image, backupDir)
		if err != nil || len(dirs) == 0 || dirs[0] != before.Dir {
			t.Fatalf("image %d has %v: %v", i, dirs, err)
		}
		for _, dir := range dirs {
			if _, err := Verify(image, dir, nobody, nothing); err != nil {
				t.Errorf("image %d: %v", i, err)
			}
		}
		if len(dirs) == 2 {
			both++
		}
		if i%10 != 0 {
			continue
		}
		r, err := take(l, image)
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		if names, err := image.List(backupDir); err != nil || len(names) != len(dirs)+1 {
			t.Errorf("image %d: after the next backup there are %v: %v", i, names, err)
		}
		if _, err := Verify(image, r.Dir, nobody, nothing); err != nil {
			t.Errorf("image %d: %v", i, err)
		}
	}
	if both == len(images) {
		t.Error("no crash came before the second backup was whole")
	}
}

// A restore that a crash cuts off is not opened as a log, and can be repeated;
// one that was said to be done is there whatever comes.
func TestCrashDuringRestore(t *testing.T) {
	const to = "/restored"
	memory := vfs.NewMemory()
	r := takeSmall(t, memory)
	var images []*vfs.Memory
	crash := &vfs.Faulty{FS: memory, Inject: func(o vfs.Op) *vfs.Fault {
		images = append(images, memory.Crash(vfs.CrashStrict), memory.Crash(vfs.CrashKind), memory.Crash(uint64(o.Index)+2))
		return nil
	}}
	if _, err := Restore(crash, r.Dir, to, nobody, nothing); err != nil {
		t.Fatal(err)
	}
	images = append(images, memory.Crash(vfs.CrashStrict))
	opened := 0
	open := func(image *vfs.Memory) (whole bool, err error) {
		l, err := seglog.Open(context.Background(), seglog.Options{Dir: to, FS: image, SegmentBytes: 16 << 10})
		if err != nil {
			return false, err
		}
		defer l.Close(context.Background())
		first, _ := l.Bounds()
		return first == r.Manifest.First, nil
	}
	for i, image := range images {
		marker := path.Join(to, seglog.RestoringName)
		_, restoring := image.Stat(marker)
		_, logThere := image.Stat(path.Join(to, "log"))
		_, done := image.Stat(path.Join(to, seglog.RestoredName))
		switch {
		case done == nil:
			opened++
			if whole, err := open(image); err != nil || !whole {
				t.Errorf("image %d: a restore that was done is not opened, or not whole: %v", i, err)
			}
		case restoring == nil:
			if _, err := open(image); !errors.Is(err, seglog.ErrRestoring) {
				t.Errorf("image %d: a restore that was not finished is opened: %v", i, err)
			}
			if i%7 > 0 {
				continue
			}
			if _, err := Restore(image, r.Dir, to, nobody, nothing); err != nil {
				t.Errorf("image %d: the restore cannot be repeated: %v", i, err)
			}
			if whole, err := open(image); err != nil || !whole {
				t.Errorf("image %d: what was restored the second time is not whole: %v", i, err)
			}
		case logThere == nil:
			t.Errorf("image %d: there is a log, and no mark that it is being restored", i)
		}
	}
	if last := images[len(images)-1]; opened == 0 || opened == len(images) {
		t.Errorf("%d of %d images are done", opened, len(images))
	} else if _, err := last.Stat(path.Join(to, seglog.RestoredName)); err == nil {
		t.Error("the last image was not opened") // opening removes the mark
	}
}

// Nothing is restored over something that is there.
func TestRestoreRefusesWhatIsNotEmpty(t *testing.T) {
	fs := vfs.NewMemory()
	r := takeSmall(t, fs)
	if _, err := Restore(fs, r.Dir, dataDir, nobody, nothing); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("over a log: %v", err)
	}
	l := openLog(t, fs, dataDir) // and did not touch it
	if _, err := Restore(fs, r.Dir, dataDir, nobody, nothing); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("over a log that is open: %v", err)
	}
	closeLog(t, l)
	if _, err := Find(fs, "/elsewhere"); err == nil {
		t.Error("a backup was found where there is none")
	}
	if _, err := Find(fs, dataDir); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("a folder without backups: %v", err)
	}
}

// A stream that ends early, or that names files elsewhere, makes no backup.
func TestBadStreams(t *testing.T) {
	source := vfs.NewMemory()
	l := openLog(t, source, dataDir)
	defer closeLog(t, l)
	if err := newLedger().append(l); err != nil {
		t.Fatal(err)
	}
	s, err := l.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := errors.Join(Send(&stream, s, Request{}), s.Close()); err != nil {
		t.Fatal(err)
	}
	receive := func(b []byte) error {
		f, err := OpenFolder(vfs.NewMemory(), backupDir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = f.Receive(bytes.NewReader(b), nobody, nothing)
		return err
	}
	if err := receive(stream.Bytes()); err != nil {
		t.Fatal(err)
	}
	whole := bytes.TrimRight(stream.Bytes(), "\x00")
	for n := 0; n < len(whole); n += 997 {
		if err := receive(stream.Bytes()[:n]); err == nil {
			t.Fatalf("a stream of %d bytes of %d was taken", n, len(whole))
		}
	}
	for _, evil := range []string{"../log", "log/../../x", "log/", "/log/x", "other/x", "log/a/b", "log"} {
		plan := Plan{Manifest: Manifest{Format: formatVersion, Time: time.Now(), Files: []File{{Name: evil, Size: 1}}}}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := sendJSON(w, planName, &plan); err != nil {
			t.Fatal(err)
		}
		if err := receive(b.Bytes()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", evil, err)
		}
	}
}
