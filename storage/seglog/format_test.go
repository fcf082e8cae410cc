package seglog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
	"github.com/sluicemq/sluice/storage/vfs"
)

var update = flag.Bool("update", false, "write the golden files")

// goldenBatch has all that a frame can hold.
func goldenBatch(records int) *core.Batch {
	b := &core.Batch{Time: 1_700_000_000_123, Changes: []core.Change{
		{Key: "queue/orders", Value: []byte{1, 2}, OffsetOf: 2},
		{Key: "gone"},
		{Key: "plain", Value: []byte{}},
	}}
	for i := range records {
		b.Buf = core.AppendRecord(b.Buf, &core.Envelope{
			Topic: "plant/3/temp", Payload: []byte("21.5"), Key: "k", ContentType: "text/plain", Guarantee: core.AtLeastOnce,
			Publisher: core.Publisher{Client: "sensor", Protocol: "mqtt"},
			Headers:   []core.Header{{Name: "i", Value: string(rune('a' + i%26))}},
		})
		b.Ends = append(b.Ends, uint32(len(b.Buf)))
	}
	return b
}

func goldenFrames(b *core.Batch) []byte {
	var p packer
	buf, _ := p.append(nil, nil, appendChanges(nil, b.Changes), b, packRecords)
	seal{generation: 0x1122334455667789, commit: 7, synced: 6, base: 42, time: b.Time}.apply(buf)
	return buf
}

// TestGolden pins the bytes of the format, which docs/disk-format.md describes.
func TestGolden(t *testing.T) {
	s := newSegment(segmentHeader{generation: 0x1122334455667789, sequence: 3, through: 4, rewritten: true}, segmentName(3), nil)
	memory := vfs.NewMemory()
	f, err := memory.Create("/" + s.name)
	if err != nil {
		t.Fatal(err)
	}
	content := append(s.encode(), goldenFrames(goldenBatch(20))...)
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	s.file = f
	s.span.opened, s.span.first, s.span.next, s.span.size = 40, 42, 62, int64(len(content))
	s.rewritten = false
	b := newIndexBuilder(&Log{closing: make(chan struct{})}, s)
	if err := b.scan(); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{
		"segment-header": s.segmentHeader.encode()[:segmentHeaderUsed],
		"frame":          goldenFrames(goldenBatch(2)),
		"frame-packed":   goldenFrames(goldenBatch(20)),
		"opening":        opening{end: 5, lost: 6}.encode(),
		"index":          b.encode(),
	} {
		file := filepath.Join("testdata", name+".hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.Dump(got)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if hex.Dump(got) != string(want) {
			t.Errorf("%s is\n%swant\n%s", name, hex.Dump(got), want)
		}
	}
}

// TestFrames: what was packed is unpacked, for batches of all shapes.
func TestFrames(t *testing.T) {
	for _, n := range []int{0, 1, 2, 15, 16, 100, 1000} {
		b := goldenBatch(n)
		buf := goldenFrames(b)
		var records []byte
		count, base := 0, core.Offset(42)
		for at := 0; at < len(buf); {
			h, ok := parseFrameHeader(buf[at:], 0x1122334455667789)
			if !ok || h.base != base || h.commit != 7 || h.time != b.Time {
				t.Fatalf("%d records: header %+v at %d", n, h, at)
			}
			stored := buf[at+frameHeaderSize:][:h.stored]
			if !h.checkBody(stored) {
				t.Fatalf("%d records: the body at %d is not what the header says", n, at)
			}
			body, err := h.unpack(stored, func(n int) []byte { return make([]byte, n) })
			if err != nil {
				t.Fatal(err)
			}
			if (h.prefix > 0) != (at == 0) || (h.flags&flagContinued != 0) != (at > 0) {
				t.Fatalf("%d records: prefix %d, flags %x at %d", n, h.prefix, h.flags, at)
			}
			records = append(records, body[h.prefix:]...)
			count += int(h.count)
			base = h.end()
			at += int(h.size())
			if (h.flags&flagMore != 0) != (at < len(buf)) {
				t.Fatalf("%d records: flags %x at %d", n, h.flags, at)
			}
		}
		if count != n || !bytes.Equal(records, b.Buf) {
			t.Errorf("%d records, want %d", count, n)
		}
	}
}

// FuzzFrame decodes what claims to be a frame with a good checksum.
func FuzzFrame(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, n := range []int{0, 1, 20, 100} {
		f.Add(goldenFrames(goldenBatch(n)))
	}
	var p packer
	h := frameHeader{generation: 1, count: 1, synced: 10, base: 5, flags: flagSparse, prefix: 2, raw: 30}
	f.Add(p.appendFrame(nil, &h, append([]byte{0, 0}, goldenBatch(1).Buf...), false))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < frameHeaderSize {
			return
		}
		le := binary.LittleEndian
		le.PutUint32(b, frameMagic)
		if stored := le.Uint32(b[52:]); uint64(stored) <= uint64(len(b)-frameHeaderSize) {
			le.PutUint32(b[64:], crc32.Checksum(b[frameHeaderSize:][:stored], castagnoli))
		}
		le.PutUint32(b[4:], crc32.Checksum(b[8:frameHeaderSize], castagnoli))
		h, ok := parseFrameHeader(b, anyGeneration)
		if !ok || h.size() > int64(len(b)) {
			return
		}
		stored := b[frameHeaderSize:][:h.stored]
		if !h.checkBody(stored) {
			t.Fatalf("the checksum that was just made is not good")
		}
		body, err := h.unpack(stored, func(n int) []byte { return make([]byte, n) })
		if err != nil {
			if !errors.Is(err, core.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if !checkRecords(body[h.prefix:], h.count) {
			return
		}
		buf := core.ReadBuffer{MaxRecords: 1 << 20, MaxBytes: 1 << 30}
		newReader(nil, &buf).readFrame(&h, body, 0, 1<<63)
		if len(buf.Records) > int(h.count) {
			t.Fatalf("%d records of %d", len(buf.Records), h.count)
		}
		if h.hasChanges() {
			_ = eachChange(body[:h.prefix], h.base, func(_, _ []byte) error { return nil }, func([]byte) error { return nil })
		}
	})
}

// FuzzScan looks for frames in anything.
func FuzzScan(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add(goldenFrames(goldenBatch(40)), uint16(100), byte(1))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, with byte) {
		whole := append(goldenFrames(goldenBatch(3)), b...)
		if int(at) < len(whole) {
			whole[at] ^= with
		}
		m := vfs.NewMemory()
		file, err := m.Create("/f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(whole, 0); err != nil {
			t.Fatal(err)
		}
		sc := newScanner(file, 0x1122334455667789, 0, int64(len(whole)))
		for end := int64(0); ; {
			found, ok, err := sc.next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			if found.pos < end || found.pos%frameAlign != 0 {
				t.Fatalf("a frame at %d, behind one that ends at %d", found.pos, end)
			}
			end = found.pos + found.header.size()
		}
	})
}
