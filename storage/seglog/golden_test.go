package seglog

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
	"github.com/sluicemq/sluice/storage/vfs"
)

// Golden data directories are what each format has left behind on a disk, with
// what they hold beside them. They are never made anew: a format that changes
// gets directories of its own, and those before them must open for ever.
//
//	go test ./storage/seglog -run TestGoldenDirectories -new-golden v2 -update
//
// makes v2-whole, v2-reclaimed, v2-steps, v2-bounded and v2-snapshot of today's
// format: the first has all kinds of frames, retention has copied and freed
// segments of the second, the third has a queue whose position is followed by
// steps, the fourth a bounded queue of which the state says what leads to it, and
// the fifth a session amid the retained values of a binding. Another one,
// which a broker made, comes from cmd/sluice. -update writes what a directory holds
// beside it where that is missing; what is there is never changed.
var newGolden = flag.String("new-golden", "", "make golden data directories whose names begin with this")

const goldenDir = "testdata/golden"

func TestGoldenDirectories(t *testing.T) {
	if *newGolden != "" {
		for kind, make := range map[string]func() vfs.FS{
			"-whole":     func() vfs.FS { return newSpecimen(t, false).fs },
			"-reclaimed": func() vfs.FS { return newSpecimen(t, true).fs },
			"-steps":     func() vfs.FS { return goldenSteps(t) },
			"-bounded":   func() vfs.FS { return goldenBounded(t) },
			"-snapshot":  func() vfs.FS { return goldenSnapshot(t) },
		} {
			dir := filepath.Join(goldenDir, *newGolden+kind)
			if _, err := os.Stat(dir); err == nil {
				t.Fatalf("%s is there already; golden directories are never made anew", dir)
			}
			export(t, make(), "/data", dir)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(goldenDir, "v*[^n]"))
	if err != nil || len(dirs) < 3 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(data, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if x, err := Examine(context.Background(), Options{Dir: data}, Progress{}); err != nil || !x.Healthy() {
				t.Errorf("%+v, %v", x, err)
			}
			held := dir + ".ndjson"
			got := holdings(t, data)
			if _, err := os.Stat(held); err != nil && *update {
				if err := os.WriteFile(held, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(held)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("it holds\n%s\nwant\n%s", got, want)
			}
			// It can be written to, and opened again.
			for range 2 {
				l, err := Open(context.Background(), Options{Dir: data})
				if err != nil {
					t.Fatal(err)
				}
				appendWait(t, l, batchOf(true, "after"))
				if err := l.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if got := holdings(t, data); strings.Count(got, `"topic":"after"`) != 2 || strings.Count(got, "\n") != strings.Count(string(want), "\n")+2 {
				t.Errorf("it holds now\n%s", got)
			}
		})
	}
}

// TestGoldenSecondReader reads the golden directories with both readers.
func TestGoldenSecondReader(t *testing.T) {
	t.Parallel()
	needPython(t)
	for _, name := range []string{"v1-whole", "v1-reclaimed", "v1-broker", "v1-freed-whole", "v1-freed-reclaimed", "v1-freed-steps", "v1-bounded"} {
		data := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(data, os.DirFS(filepath.Join(goldenDir, name))); err != nil {
			t.Fatal(err)
		}
		compareReaders(t, data, !strings.HasSuffix(name, "-reclaimed"))
	}
}

// TestGoldenFreed: a directory from before there were notes of what is freed has
// none, and one of later has what was freed in it.
func TestGoldenFreed(t *testing.T) {
	for name, noted := range map[string]bool{"v1-reclaimed": false, "v1-freed-reclaimed": true} {
		data := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(data, os.DirFS(filepath.Join(goldenDir, name))); err != nil {
			t.Fatal(err)
		}
		st, err := openState(filepath.Join(data, stateDirName), vfs.OS{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if st.noted != noted || noted && (len(st.freed) != 1 || st.freed[0].opened == 0 || st.freed[0].next == 0) {
			t.Errorf("%s has the note %v: %+v", name, st.noted, st.freed)
		}
		if err := st.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// goldenSteps is what a broker left behind that was killed: of a queue of ten
// messages, the first and the third have been accepted, the second was given back
// and the fourth is held; nine and ten have not been given to anybody.
func goldenSteps(t *testing.T) vfs.FS {
	ctx := context.Background()
	memory := vfs.NewMemory()
	_, b, c, w := openWorker(t, memory, 1)
	if err := c.DeclareQueue(ctx, core.QueueDefinition{Name: "work", Settings: core.QueueSettings{Lease: core.Unlimited}}); err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		if err := c.Publish(ctx, &core.Envelope{Topic: core.QueueTopic("work"), Payload: fmt.Append(nil, n+1)}, core.Receipt(n+1)); err != nil {
			t.Fatal(err)
		}
		if err := <-w.confirmed; err != nil {
			t.Fatal(err)
		}
	}
	k, err := c.Consume(ctx, core.Consumption{Queue: "work", Settlement: core.SettleAlways}, w)
	if err != nil {
		t.Fatal(err)
	}
	k.Grant(core.Credit{Messages: 8, Bytes: 1 << 20})
	var held []core.Delivery
	for range 8 {
		held = append(held, <-w.got)
	}
	for n, o := range []core.Outcome{core.Accepted, core.Released, core.Accepted} {
		w.settle(t, k, held[n], o)
	}
	image := memory.Crash(vfs.CrashKind)
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return image
}

// A goldenWorker is a client of the broker that makes a golden directory.
type goldenWorker struct {
	got       chan core.Delivery
	confirmed chan error
}

// openWorker opens a broker on a log of tiny segments, with a worker's client.
// Positions are kept in steps from so many outstanding messages on.
func openWorker(t *testing.T, fs vfs.FS, stepsFrom int) (*Log, *core.Broker, *core.Client, *goldenWorker) {
	t.Helper()
	ctx := context.Background()
	l, err := Open(ctx, tiny(fs))
	if err != nil {
		t.Fatal(err)
	}
	b, err := core.Open(ctx, core.Options{Engine: l, StepsFrom: stepsFrom})
	if err != nil {
		t.Fatal(err)
	}
	w := &goldenWorker{got: make(chan core.Delivery, 100), confirmed: make(chan error, 10)}
	c, err := b.Connect(ctx, core.Credentials{Client: "golden"}, w)
	if err != nil {
		t.Fatal(err)
	}
	return l, b, c, w
}

// settle settles a message that has come, and waits until that is durable.
func (w *goldenWorker) settle(t *testing.T, k *core.Consumer, d core.Delivery, o core.Outcome) {
	t.Helper()
	if err := k.Settle(d.Offset, o, core.SettleOptions{Receipt: 1}); err != nil {
		t.Fatal(err)
	}
	if err := <-w.confirmed; err != nil {
		t.Fatal(err)
	}
}

func (w *goldenWorker) Notice(core.Notice) {}

func (w *goldenWorker) Deliver(ds []core.Delivery) {
	for _, d := range ds {
		w.got <- d.Clone()
	}
}

func (w *goldenWorker) Confirm(cs []core.Confirmation) {
	for _, c := range cs {
		w.confirmed <- c.Err
	}
}

// TestGoldenSteps opens the directory with steps as a broker does.
func TestGoldenSteps(t *testing.T) {
	ctx := context.Background()
	data := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(goldenDir, "v1-freed-steps"))); err != nil {
		t.Fatal(err)
	}
	l, err := Open(ctx, Options{Dir: data})
	if err != nil {
		t.Fatal(err)
	}
	state := maps.Collect(l.stateStrings())
	steps := 0
	for key := range state {
		if strings.HasPrefix(key, "s/work") {
			steps++
		}
	}
	if steps < 2 || state["p/work"] == "" || state["p/work"][0] != 5 {
		t.Fatalf("it has %d steps behind the position %q", steps, state["p/work"])
	}
	b, err := core.Open(ctx, core.Options{Engine: l})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(ctx)
	c, err := b.Connect(ctx, core.Credentials{Client: "golden"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	page, err := c.Browse(ctx, "work", core.ReadRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, d := range page.Messages {
		got += fmt.Sprintf("%s:%d ", d.Envelope.Payload, d.Attempt)
	}
	if want := "2:1 4:1 5:1 6:1 7:1 8:1 9:0 10:0 "; got != want {
		t.Errorf("the queue has %q, want %q", got, want)
	}
}

// goldenBounded is what a broker left behind that was closed: of a queue of at
// most 20 messages, and of as many bytes as 15 of its eight have, the first, the
// second and the fourth have been accepted. What leads to it has been counted in
// parts of four offsets.
func goldenBounded(t *testing.T) vfs.FS {
	ctx := context.Background()
	memory := vfs.NewMemory()
	_, b, c, w := openWorker(t, memory, 4)
	if err := c.DeclareQueue(ctx, core.QueueDefinition{
		Name: "work", Settings: core.QueueSettings{Lease: core.Unlimited, MaxLength: 20, MaxBytes: 15 * 100},
		Bindings: []core.Binding{{Filter: "jobs/+"}},
	}); err != nil {
		t.Fatal(err)
	}
	for n := range 12 {
		if err := goldenJob(c, w, []string{core.QueueTopic("work"), "jobs/a", "other"}[n%3], n); err != nil {
			t.Fatal(err)
		}
	}
	k, err := c.Consume(ctx, core.Consumption{Queue: "work", Settlement: core.SettleAlways}, w)
	if err != nil {
		t.Fatal(err)
	}
	k.Grant(core.Credit{Messages: 4, Bytes: 1 << 20})
	for n := range 4 {
		if d := <-w.got; n != 2 {
			w.settle(t, k, d, core.Accepted)
		}
	}
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return memory
}

// goldenJob publishes a message that counts 100 bytes.
func goldenJob(c *core.Client, w *goldenWorker, topic string, n int) error {
	e := &core.Envelope{Topic: topic, Payload: fmt.Appendf(nil, "%02d", n)}
	for e.Size() < 100 {
		e.Payload = append(e.Payload, '.')
	}
	if err := c.Publish(context.Background(), e, core.Receipt(n+1)); err != nil {
		return err
	}
	return <-w.confirmed
}

// TestGoldenBounded opens the directory with the bounded queue as a broker does:
// it takes what the state says for what the queue holds, and keeps its bounds.
func TestGoldenBounded(t *testing.T) {
	ctx := context.Background()
	data := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(goldenDir, "v1-bounded"))); err != nil {
		t.Fatal(err)
	}
	l, err := Open(ctx, Options{Dir: data})
	if err != nil {
		t.Fatal(err)
	}
	value := maps.Collect(l.stateStrings())["n/work"]
	if value == "" || value[0] != 1 {
		t.Fatalf("of what leads to the queue the state says %q", value)
	}
	r := &coretest.Reads{Engine: l}
	b, err := core.Open(ctx, core.Options{Engine: r, StepsFrom: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(ctx)
	// Five are left, and only the part of the third had to be read for that.
	if r.Records > 4 {
		t.Errorf("%d records are read", r.Records)
	}
	if err := b.Miscounts(ctx, "work"); err != nil {
		t.Error(err)
	}
	w := &goldenWorker{confirmed: make(chan error, 10)}
	c, err := b.Connect(ctx, core.Credentials{Client: "golden"}, w)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		if err := goldenJob(c, w, "jobs/b", 20+n); err != nil {
			t.Fatalf("with %d more: %v", n, err)
		}
	}
	if err := goldenJob(c, w, "jobs/b", 30); !errors.Is(err, core.ErrQueueFull) {
		t.Errorf("with as many as fit: %v", err)
	}
}

// goldenSession attaches a worker to the session of the golden directory.
func goldenSession(t *testing.T, c *core.Client, w *goldenWorker) *core.Consumer {
	t.Helper()
	k, err := c.Consume(context.Background(), core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &core.QueueSettings{Kind: core.KindSession}}, w)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// goldenSnapshot is what a broker left behind that was killed: a session has been
// given the first two of five retained values, and has settled the first. Of
// another filter it has been given none.
func goldenSnapshot(t *testing.T) vfs.FS {
	ctx := context.Background()
	memory := vfs.NewMemory()
	_, b, c, w := openWorker(t, memory, 0)
	for n := range 5 {
		if err := c.Publish(ctx, &core.Envelope{Topic: fmt.Sprintf("r/%d", n), Payload: []byte("x"), Retain: true, Guarantee: core.ExactlyOnce}, core.Receipt(n+1)); err != nil {
			t.Fatal(err)
		}
		if err := <-w.confirmed; err != nil {
			t.Fatal(err)
		}
	}
	k := goldenSession(t, c, w)
	for _, f := range []core.Filter{"r/+", "r/1/#"} {
		if err := k.Bind(ctx, core.Binding{Filter: f, Tag: 7, Settlement: core.SettleGuaranteed}, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
	}
	k.Grant(core.Credit{Messages: 2, Bytes: 1 << 20})
	first := <-w.got
	<-w.got
	w.settle(t, k, first, core.Accepted)
	image := memory.Crash(vfs.CrashKind)
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return image
}

// TestGoldenSnapshot opens the directory with the retained values as a broker
// does: the session is given again what it has not settled, then the rest, and then
// what the other filter matches.
func TestGoldenSnapshot(t *testing.T) {
	ctx := context.Background()
	data := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(goldenDir, "v1-snapshot"))); err != nil {
		t.Fatal(err)
	}
	l, err := Open(ctx, Options{Dir: data})
	if err != nil {
		t.Fatal(err)
	}
	b, err := core.Open(ctx, core.Options{Engine: l})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(ctx)
	w := &goldenWorker{got: make(chan core.Delivery, 100), confirmed: make(chan error, 10)}
	c, err := b.Connect(ctx, core.Credentials{Client: "golden"}, w)
	if err != nil {
		t.Fatal(err)
	}
	k := goldenSession(t, c, w)
	got := ""
	for range 5 { // one at a time: what is on its way is not sent once more
		k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
		d := <-w.got
		got += fmt.Sprint(d.Topic, ":", d.Attempt, d.Retained, d.Tags, " ")
		w.settle(t, k, d, core.Accepted)
	}
	if want := "r/1:2 true [7] r/2:1 true [7] r/3:1 true [7] r/4:1 true [7] r/1:1 true [7] "; got != want {
		t.Errorf("it is given %q, want %q", got, want)
	}
	k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
	if err := c.Publish(ctx, &core.Envelope{Topic: "r/5", Payload: []byte("x"), Guarantee: core.AtLeastOnce}, 0); err != nil {
		t.Fatal(err)
	}
	if d := <-w.got; d.Topic != "r/5" || d.Retained {
		t.Errorf("then comes %+v", d)
	}
}

// holdings are the records and the state of a data directory, a line each.
func holdings(t *testing.T, dir string) string {
	t.Helper()
	l, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	records, gaps, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, at := range slices.Sorted(maps.Keys(records)) {
		r := records[at]
		if r.Topic == "after" {
			r.Time = 0
		}
		b.WriteString(secondOf(t, r) + "\n")
	}
	for _, g := range gaps {
		if g.Lost {
			t.Errorf("%v is lost", g)
		}
	}
	state := maps.Collect(l.stateStrings())
	for _, key := range slices.Sorted(maps.Keys(state)) {
		line, err := json.Marshal(struct{ Key, Value []byte }{[]byte(key), []byte(state[key])})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}
