package seglog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/s2"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/seeded"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A commit is written as one or more frames. Each has a header, then its body,
// then zeros up to a multiple of frameAlign. docs/disk-format.md describes the
// bytes.
const (
	frameMagic      = 0x46584c53 // "SLXF"
	frameHeaderSize = 72
	frameAlign      = 8
	anyGeneration   = 0 // matches every generation, and is none itself

	// frameTarget is how many bytes of records a frame takes before another
	// one begins. It is what must be read and unpacked to get at one record,
	// so it is small; whole segments are read many frames at a time.
	frameTarget = 4 << 10
	// frameRecords is how many records are enough for a frame of half that:
	// packing them with more gains little, and to pick one out costs less.
	frameRecords = 12
	// packRecords is how many records are enough to pack them where nobody
	// waits.
	packRecords = 16
	// maxPacked bounds what a frame that is packed may unpack to.
	maxPacked = 16 << 20
)

// The flags of a frame.
const (
	flagPacked    = 1 << iota // the body is an s2 block
	flagMore                  // the commit goes on in the next frame
	flagContinued             // the commit began in a frame before
	flagOpened                // the log was opened here: commits after synced and before this one are void
	flagClosed                // the log was closed here, nothing follows
	flagSparse                // the prefix holds an offset and a time for each record
	flagsKnown    = 1<<iota - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frameHeader is a frame's header, decoded.
type frameHeader struct {
	generation uint64
	commit     uint64
	// synced is the newest commit that was durable when this one was written;
	// in a sparse frame the offset behind its last record.
	synced  uint64
	base    core.Offset
	time    int64
	count   uint32
	stored  uint32 // length of the body as it stands in the file
	raw     uint32 // length of the body unpacked
	prefix  uint32 // length of what precedes the records in the body
	bodyCRC uint32
	flags   uint32
}

// size is the frame's length in the file.
func (h *frameHeader) size() int64 {
	return align(frameHeaderSize + int64(h.stored))
}

// end is the offset behind the frame's last record.
func (h *frameHeader) end() core.Offset {
	if h.flags&flagSparse != 0 {
		return core.Offset(h.synced)
	}
	return h.base + core.Offset(h.count)
}

// hasChanges says whether the prefix holds changes to the state.
func (h *frameHeader) hasChanges() bool {
	return h.prefix > 0 && h.flags&(flagSparse|flagOpened) == 0
}

func align(n int64) int64 { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// put writes the header to dst, with its checksum.
func (h *frameHeader) put(dst []byte) {
	le := binary.LittleEndian
	_ = dst[frameHeaderSize-1]
	le.PutUint32(dst, frameMagic)
	le.PutUint64(dst[8:], h.generation)
	le.PutUint64(dst[16:], h.commit)
	le.PutUint64(dst[24:], h.synced)
	le.PutUint64(dst[32:], uint64(h.base))
	le.PutUint64(dst[40:], uint64(h.time))
	le.PutUint32(dst[48:], h.count)
	le.PutUint32(dst[52:], h.stored)
	le.PutUint32(dst[56:], h.raw)
	le.PutUint32(dst[60:], h.prefix)
	le.PutUint32(dst[64:], h.bodyCRC)
	le.PutUint32(dst[68:], h.flags)
	le.PutUint32(dst[4:], crc32.Checksum(dst[8:frameHeaderSize], castagnoli))
}

// parseFrameHeader decodes and checks a header; ok is false where there is none
// of this generation. Lengths that it returns are consistent with each other,
// but the file may be too short for them.
func parseFrameHeader(src []byte, generation uint64) (h frameHeader, ok bool) {
	le := binary.LittleEndian
	if len(src) < frameHeaderSize || le.Uint32(src) != frameMagic || le.Uint64(src[8:]) != generation && generation != anyGeneration && !seeded.On(seeded.StaleFrames) ||
		le.Uint32(src[4:]) != crc32.Checksum(src[8:frameHeaderSize], castagnoli) {
		return frameHeader{}, false
	}
	h = decodeFrameHeader(src)
	records := uint64(h.raw) - uint64(h.prefix)
	if h.flags&^flagsKnown != 0 || h.prefix > h.raw || h.end() < h.base+core.Offset(h.count) || uint64(h.count)*core.RecordHeaderSize > records ||
		h.flags&flagPacked == 0 && h.stored != h.raw || h.flags&flagPacked != 0 && (h.stored > h.raw || h.raw > maxPacked) {
		return frameHeader{}, false
	}
	return h, true
}

// decodeFrameHeader decodes a header that is known to be sound.
func decodeFrameHeader(src []byte) frameHeader {
	le := binary.LittleEndian
	return frameHeader{
		generation: le.Uint64(src[8:]),
		commit:     le.Uint64(src[16:]),
		synced:     le.Uint64(src[24:]),
		base:       core.Offset(le.Uint64(src[32:])),
		time:       int64(le.Uint64(src[40:])),
		count:      le.Uint32(src[48:]),
		stored:     le.Uint32(src[52:]),
		raw:        le.Uint32(src[56:]),
		prefix:     le.Uint32(src[60:]),
		bodyCRC:    le.Uint32(src[64:]),
		flags:      le.Uint32(src[68:]),
	}
}

// checkBody says whether the stored body is the one that the header was
// written for.
func (h *frameHeader) checkBody(stored []byte) bool {
	return uint32(len(stored)) == h.stored && (crc32.Checksum(stored, castagnoli) == h.bodyCRC || seeded.On(seeded.SkippedChecksum))
}

// unpack returns the frame's body. Where it is packed, alloc makes room for it;
// otherwise it is stored itself. The checksum has been checked.
func (h *frameHeader) unpack(stored []byte, alloc func(int) []byte) ([]byte, error) {
	if h.flags&flagPacked == 0 {
		return stored, nil
	}
	if n, err := s2.DecodedLen(stored); err != nil || n != int(h.raw) {
		return nil, fmt.Errorf("%w: a packed frame of %d bytes says %d (%v)", core.ErrCorrupt, h.raw, n, err)
	}
	raw, err := s2.Decode(alloc(int(h.raw)), stored)
	if err != nil {
		return nil, fmt.Errorf("%w: a packed frame: %w", core.ErrCorrupt, err)
	}
	return raw, nil
}

// A packer turns batches into frames. It belongs to one goroutine.
type packer struct {
	scratch []byte // the first frame's body, where it must be put together
	skip    int    // how many frames to store as they are before packing is tried again
	misses  int    // how many attempts in a row did not pay
}

// append appends the frames of a batch to dst. What is not known before the
// commit (commit, synced, base, time, generation) is left for seal.
// prefix is the batch's changes, encoded. A batch of fewer records than least is
// not packed. Where the records are large, their heads are appended to heads,
// while they are in the processor's cache. It returns both.
func (p *packer) append(dst, heads, prefix []byte, b *core.Batch, least int) (_, _ []byte) {
	most := 1 + len(b.Buf)/(frameTarget/2)
	dst = grow(dst, len(prefix)+len(b.Buf)+most*(frameHeaderSize+frameAlign)+vfs.Page)
	large := len(b.Buf) >= largeRecord*len(b.Ends)
	start := uint32(0)
	var flags uint32
	for i := 0; ; {
		j, end := i, start
		for j < len(b.Ends) && (end == start || int(b.Ends[j]-start) <= frameTarget && (j-i < frameRecords || int(end-start) < frameTarget/2)) {
			end = b.Ends[j]
			j++
		}
		body := b.Buf[start:end]
		if len(prefix) > 0 {
			p.scratch = append(append(p.scratch[:0], prefix...), body...)
			body = p.scratch
		}
		h := frameHeader{count: uint32(j - i), raw: uint32(len(body)), prefix: uint32(len(prefix)), flags: flags}
		if j < len(b.Ends) {
			h.flags |= flagMore
		}
		dst = p.appendFrame(dst, &h, body, len(b.Ends) >= least)
		if large {
			heads = appendHeads(heads, b.Buf, start, b.Ends[i:j])
		}
		if j == len(b.Ends) {
			return dst, heads
		}
		i, start, prefix, flags = j, end, nil, flagContinued
	}
}

// largeRecord is from which size on, on average, records are so far apart that to
// look at each of them again costs more than to keep what it is looked at for.
const largeRecord = 512

// appendHeads appends what records begin with, up to the end of their topics.
func appendHeads(heads, buf []byte, start uint32, ends []uint32) []byte {
	for _, end := range ends {
		r := buf[start:end]
		heads = append(heads, r[:headSize(r)]...)
		start = end
	}
	return heads
}

// appendFrame appends one frame with the body given, packed if that is wanted
// and pays.
func (p *packer) appendFrame(dst []byte, h *frameHeader, body []byte, pack bool) []byte {
	at := len(dst)
	if pack && (p.skip > 0 || len(body) > maxPacked) {
		p.skip = max(p.skip-1, 0)
		pack = false
	}
	if pack {
		dst = grow(dst, frameHeaderSize+s2.MaxEncodedLen(len(body)))
		room := dst[at+frameHeaderSize : cap(dst)]
		packed := s2.Encode(room, body)
		if len(packed) < len(body)-len(body)/8 {
			h.flags |= flagPacked
			h.stored = uint32(len(packed))
			p.misses = 0
		} else {
			p.misses = min(p.misses+1, 6)
			p.skip = 1 << p.misses
		}
	}
	if h.flags&flagPacked == 0 {
		dst = grow(dst, frameHeaderSize+len(body)+frameAlign)
		h.stored = uint32(len(body))
		h.bodyCRC = copyChecked(dst[at+frameHeaderSize:cap(dst)], body)
	} else {
		h.bodyCRC = crc32.Checksum(dst[at+frameHeaderSize : cap(dst)][:h.stored], castagnoli)
	}
	dst = dst[:at+frameHeaderSize+int(h.stored)]
	for len(dst)%frameAlign != 0 {
		dst = append(dst, 0)
	}
	h.put(dst[at:])
	return dst
}

// copyChecked copies src and returns its checksum, block by block: what was read for
// the one is in the processor's nearest cache for the other.
func copyChecked(dst, src []byte) (crc uint32) {
	const block = 16 << 10
	for len(src) > 0 {
		n := min(len(src), block)
		crc = crc32.Update(crc, castagnoli, src[:n])
		copy(dst, src[:n])
		dst, src = dst[n:], src[n:]
	}
	return crc
}

// grow makes sure that n bytes more fit, and some for the padding. It makes whole
// pages.
func grow(b []byte, n int) []byte {
	n += frameAlign
	if cap(b)-len(b) >= n {
		return b
	}
	grown := vfs.MakePages((max(len(b)+n, 2*cap(b)) + vfs.Page - 1) / vfs.Page)[:len(b)]
	copy(grown, b)
	return grown
}

// A seal is what a commit knows of its frames only when its turn comes.
type seal struct {
	generation, commit, synced uint64
	base                       core.Offset
	time                       int64
}

// apply completes the headers of the frames in buf, which packer.append wrote.
func (s seal) apply(buf []byte) {
	le := binary.LittleEndian
	base := s.base
	for len(buf) > 0 {
		le.PutUint64(buf[8:], s.generation)
		le.PutUint64(buf[16:], s.commit)
		le.PutUint64(buf[24:], s.synced)
		le.PutUint64(buf[32:], uint64(base))
		le.PutUint64(buf[40:], uint64(s.time))
		le.PutUint32(buf[4:], crc32.Checksum(buf[8:frameHeaderSize], castagnoli))
		base += core.Offset(le.Uint32(buf[48:]))
		buf = buf[align(frameHeaderSize+int64(le.Uint32(buf[52:]))):]
	}
}
