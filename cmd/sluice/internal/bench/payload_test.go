package bench

import (
	"compress/flate"
	"io"
	"slices"
	"testing"
)

func TestPayloadsDoNotCompress(t *testing.T) {
	x := noise(0x9e3779b97f4a7c15)
	var all []byte
	for i := range 1000 {
		all = x.appendPayload(all, 100, 0, uint64(i), 0)
	}
	var n counter
	w, _ := flate.NewWriter(&n, flate.BestCompression)
	w.Write(all)
	w.Close()
	// Four fifths of it is noise; the headers compress.
	if int(n) < len(all)*8/10 {
		t.Errorf("%d bytes compress to %d", len(all), n)
	}
}

type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

var _ io.Writer = (*counter)(nil)

func TestPayloadSize(t *testing.T) {
	x := noise(1)
	for size := headerBytes; size < 60; size++ {
		if n := len(x.appendPayload(nil, size, 1, 2, 3)); n != size {
			t.Errorf("size %d: %d bytes", size, n)
		}
	}
	if _, _, _, ok := header(make([]byte, headerBytes-1)); ok {
		t.Error("a short payload has a header")
	}
}

func TestLedger(t *testing.T) {
	for _, c := range []struct {
		name            string
		seqs            []uint64
		got, lost, late uint64
	}{
		{"in order", []uint64{0, 1, 2, 3}, 4, 0, 0},
		{"left out", []uint64{0, 3, 4}, 3, 2, 0},
		{"repeated", []uint64{0, 1, 1, 2}, 4, 0, 1},
		{"out of order", []uint64{0, 2, 1, 3}, 4, 1, 1},
		{"begins late", []uint64{5}, 1, 5, 0},
	} {
		l := newLedger(2)
		for _, seq := range c.seqs {
			if !l.note(1, seq) {
				t.Errorf("%s: publisher 1 is unknown", c.name)
			}
		}
		if l.got != c.got || l.lost != c.lost || l.late != c.late {
			t.Errorf("%s: got %d lost %d late %d, want %d %d %d", c.name, l.got, l.lost, l.late, c.got, c.lost, c.late)
		}
		if l.next[0] != 0 || l.note(2, 0) {
			t.Errorf("%s: publishers are mixed up", c.name)
		}
	}
}

func TestWriteOff(t *testing.T) {
	l := newLedger(1)
	l.note(0, 0)
	l.writeOff(0, 4)
	l.writeOff(0, 2)
	l.note(0, 4)
	if l.lost != 3 || l.late != 0 || !slices.Equal(l.next, []uint64{5}) {
		t.Errorf("lost %d late %d next %v, want 3 0 [5]", l.lost, l.late, l.next)
	}
}

func TestTextPayload(t *testing.T) {
	x := noise(99)
	for size := textHeaderBytes; size < textHeaderBytes+40; size++ {
		b := x.appendText(nil, size, 17, 1<<40+3, 987654321)
		if len(b) != size {
			t.Fatalf("size %d: %d bytes", size, len(b))
		}
		for _, c := range b {
			if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
				t.Fatalf("size %d: %q is not plain text", size, b)
			}
		}
		event := append(append([]byte("data: x "), b...), '"', '}')
		// Wherever the one before it began.
		for behind := range len(event) + 10 {
			was := behind
			publisher, seq, at, ok := textHeader(event, &behind)
			if publisher != 17 || seq != 1<<40+3 || at != 987654321 || !ok {
				t.Fatalf("size %d: header %d %d %d %v", size, publisher, seq, at, ok)
			}
			if behind != size+2 {
				t.Fatalf("size %d: begins %d from the end, not %d; was %d", size, behind, size+2, was)
			}
		}
	}
	for _, part := range []string{"", "bn~0000", "data: x"} {
		behind := len(part)
		if _, _, _, ok := textHeader([]byte(part), &behind); ok {
			t.Errorf("%q is a header", part)
		}
	}
}

func TestHexNumber(t *testing.T) {
	x := uint32(1)
	for range 1000 {
		if got := hexNumber(appendHex(nil, uint64(x), 8)); got != x {
			t.Fatalf("%08x is read as %08x", x, got)
		}
		x = x*1664525 + 1013904223
	}
}

func BenchmarkTextHeader(b *testing.B) {
	x := noise(99)
	message := append(x.appendText([]byte(`{"op":"msg","sub":"s","o":1234567,"ts":1700000000000,"t":"bench/0/0","from":"bench-pub-0","d":"`), 100, 0, 17, 987654321), '"', '}')
	behind := 0
	for b.Loop() {
		if _, _, _, ok := textHeader(message, &behind); !ok {
			b.Fatal("no header")
		}
	}
}
