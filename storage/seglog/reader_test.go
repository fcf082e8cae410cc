package seglog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A secondRecord is a record as testdata/reader.py prints it.
type secondRecord struct {
	Offset        core.Offset    `json:"offset"`
	Time          int64          `json:"time"`
	Topic         string         `json:"topic"`
	Guarantee     core.Guarantee `json:"guarantee,omitempty"`
	Retain        bool           `json:"retain,omitempty"`
	Text          bool           `json:"text,omitempty"`
	Bytes         bool           `json:"bytes,omitempty"`
	Client        string         `json:"client,omitempty"`
	Protocol      string         `json:"protocol,omitempty"`
	Principal     string         `json:"principal,omitempty"`
	Key           string         `json:"key,omitempty"`
	ID            string         `json:"id,omitempty"`
	Headers       [][2]string    `json:"headers,omitempty"`
	ContentType   string         `json:"content_type,omitempty"`
	ReplyTo       string         `json:"reply_to,omitempty"`
	CorrelationID *[]byte        `json:"correlation_id,omitempty"`
	Expires       int64          `json:"expires,omitempty"`
	DeliverAt     int64          `json:"deliver_at,omitempty"`
	Priority      *int           `json:"priority,omitempty"`
	Schedule      []any          `json:"schedule,omitempty"` // cron, delay, period, repeat, left
	Payload       []byte         `json:"payload"`
}

func secondOf(t *testing.T, r core.Record) string {
	t.Helper()
	var e core.Envelope
	if err := r.Envelope(&e); err != nil {
		t.Fatal(err)
	}
	s := secondRecord{
		Offset: r.Offset, Time: r.Time, Topic: r.Topic, Guarantee: e.Guarantee, Retain: e.Retain, Text: e.Text, Bytes: e.Bytes,
		Client: e.Publisher.Client, Protocol: e.Publisher.Protocol, Principal: e.Publisher.Principal,
		Key: e.Key, ID: e.ID, ContentType: e.ContentType, ReplyTo: e.ReplyTo, Payload: append([]byte{}, e.Payload...),
	}
	for _, h := range e.Headers {
		s.Headers = append(s.Headers, [2]string{h.Name, h.Value})
	}
	if e.CorrelationID != nil {
		s.CorrelationID = &e.CorrelationID
	}
	if !e.Expires.IsZero() {
		s.Expires = e.Expires.UnixMilli()
	}
	if !e.DeliverAt.IsZero() {
		s.DeliverAt = e.DeliverAt.UnixMilli()
	}
	if p, ok := e.Priority.Level(); ok {
		s.Priority = &p
	}
	if d := e.Schedule; d != nil {
		s.Schedule = []any{d.Cron, d.Delay.Milliseconds(), d.Period.Milliseconds(), d.Repeat, d.Left()}
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// second reads a data directory with the second reader.
func second(t *testing.T, dir string) (records []string, lost []core.Gap, state map[string]string, err error) {
	t.Helper()
	c := exec.Command("python3", "testdata/reader.py", "--state", dir)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		return nil, nil, nil, errors.New(said.String())
	}
	state = make(map[string]string)
	lines := bufio.NewScanner(&out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			secondRecord
			Lost       []core.Offset
			StateKey   *[]byte `json:"key"`
			StateValue []byte  `json:"value"`
		}
		var kind map[string]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &kind); err != nil {
			t.Fatal(err)
		}
		switch {
		case kind["lost"] != nil:
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Fatal(err)
			}
			lost = append(lost, core.Gap{From: line.Lost[0], To: line.Lost[1], Lost: true})
		case kind["offset"] == nil:
			var key, value string
			json.Unmarshal(kind["key"], &key)
			json.Unmarshal(kind["value"], &value)
			k, err1 := base64.StdEncoding.DecodeString(key)
			v, err2 := base64.StdEncoding.DecodeString(value)
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			state[string(k)] = string(v)
		default:
			var r secondRecord
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Fatalf("%s: %v", lines.Text(), err)
			}
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, string(text))
		}
	}
	return records, lost, state, lines.Err()
}

// export writes a tree of files in memory to the disk.
func export(t *testing.T, fs vfs.FS, from, to string) {
	t.Helper()
	info, err := fs.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if !info.Dir {
		if err := os.WriteFile(to, content(t, fs, from), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		export(t, fs, path.Join(from, name), filepath.Join(to, name))
	}
}

// compareReaders reads a directory on the disk with both readers. The state that
// the log makes is the state only while retention has not been there.
func compareReaders(t *testing.T, dir string, whole bool) {
	t.Helper()
	records, lost, state, err := second(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	have, gaps, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, at := range slices.Sorted(maps.Keys(have)) {
		want = append(want, secondOf(t, have[at]))
	}
	if !slices.Equal(records, want) {
		for i := range max(len(records), len(want)) {
			if i >= len(records) || i >= len(want) || records[i] != want[i] {
				t.Fatalf("record %d of %d and %d:\n%s\nwant\n%s", i, len(records), len(want), at(records, i), at(want, i))
			}
		}
	}
	gaps = slices.DeleteFunc(gaps, func(g core.Gap) bool { return !g.Lost })
	if !slices.Equal(lost, gaps) {
		t.Errorf("lost are %v, the engine says %v", lost, gaps)
	}
	if got := maps.Collect(l.stateStrings()); whole && !maps.Equal(state, got) {
		t.Errorf("the state is %q, the engine says %q", state, got)
	}
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "nothing"
}

// TestSecondReader: docs/disk-format.md is exact. A reader written from it alone
// finds in a directory what the engine finds: in one that was closed, in one
// whose process was killed, in one of which retention has copied segments, and
// in damaged ones.
func TestSecondReader(t *testing.T) {
	t.Parallel()
	needPython(t)
	for _, reclaimed := range []bool{false, true} {
		s := newSpecimen(t, reclaimed)
		name := map[bool]string{false: "whole", true: "reclaimed"}[reclaimed]
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			export(t, s.fs, "/data", dir)
			compareReaders(t, dir, !reclaimed)
		})
		t.Run(name+" and killed", func(t *testing.T) {
			l, err := Open(context.Background(), tiny(s.fs))
			if err != nil {
				t.Fatal(err)
			}
			appendWait(t, l, batchOf(true, "a", "b"))
			appendWait(t, l, batchOf(false, "c", "d"))
			image := s.fs.Crash(vfs.CrashKind)
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "data")
			export(t, image, "/data", dir)
			compareReaders(t, dir, !reclaimed)
		})
		t.Run(name+" and damaged", func(t *testing.T) {
			for n, segment := range slices.Sorted(maps.Keys(s.frames)) {
				f := s.frames[segment][len(s.frames[segment])/2]
				if n > 2 || f.isOpening || f.from == f.to || strings.HasPrefix(segment, "0000000000000001") && reclaimed {
					continue
				}
				image := s.fs.Crash(vfs.CrashKind)
				edit(t, image, path.Join("/data/log", segment), func(b []byte) []byte { b[f.pos+80] ^= 1; return b })
				_ = image.Remove(path.Join("/data/log", indexName(segment)))
				dir := filepath.Join(t.TempDir(), "data")
				export(t, image, "/data", dir)
				compareReaders(t, dir, false)
			}
		})
	}
}

func needPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
}
