package seglog

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"

	"github.com/sluicemq/sluice/core/seeded"
	"github.com/sluicemq/sluice/storage/vfs"
)

// scanChunk is how much of a file a scan reads at once.
const scanChunk = 1 << 20

// scanAhead is how much the disk is asked for before it is read: what was written
// past the operating system's memory is read from the disk, also where the machine
// has not been off.
const scanAhead = 4 << 20

var magicBytes = binary.LittleEndian.AppendUint32(nil, frameMagic)

// A scanner goes through the frames of a file that nobody has vouched for.
type scanner struct {
	file       vfs.File
	generation uint64
	size       int64 // of the file
	pos        int64

	buf    []byte
	bufPos int64
	asked  int64 // as far as the disk was asked for it

	read *atomic.Int64 // bytes read of the file, for all who scan; nil is nobody
}

func newScanner(f vfs.File, generation uint64, pos, size int64) *scanner {
	return &scanner{file: f, generation: generation, size: size, pos: pos}
}

// window returns the n bytes at pos, fewer where the file ends.
func (s *scanner) window(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.size-pos))
	if n <= 0 {
		return nil, nil
	}
	if pos < s.bufPos || pos+int64(n) > s.bufPos+int64(len(s.buf)) {
		want := int(min(int64(max(n, scanChunk)), s.size-pos))
		if cap(s.buf) < want {
			s.buf = make([]byte, want)
		}
		if end := min(pos+int64(want)+scanAhead, s.size); s.asked < end {
			from := max(s.asked, pos)
			s.file.ReadAhead(from, end-from)
			s.asked = end
		}
		got, err := readFull(s.file, s.buf[:want], pos)
		if s.read != nil {
			s.read.Add(int64(got))
		}
		if err != nil {
			s.buf = s.buf[:0]
			if seeded.On(seeded.EIOAsEnd) {
				return nil, nil
			}
			return nil, err
		}
		s.buf, s.bufPos = s.buf[:got], pos
	}
	i := int(pos - s.bufPos)
	return s.buf[i:min(i+n, len(s.buf))], nil
}

// A found frame: where it stands, its header and its body as it is stored,
// which is valid until the next call.
type found struct {
	pos    int64
	header frameHeader
	stored []byte
	// jumped says that bytes were skipped in front of it that are no frame.
	jumped bool
}

// next finds the next frame that is whole; ok is false at the file's end.
func (s *scanner) next() (f found, ok bool, err error) {
	for {
		b, err := s.window(s.pos, frameHeaderSize)
		if err != nil {
			return f, false, err
		}
		h, ok := parseFrameHeader(b, s.generation)
		if ok && s.pos+h.size() <= s.size {
			stored, err := s.window(s.pos+frameHeaderSize, int(h.stored))
			if err != nil {
				return f, false, err
			}
			if h.checkBody(stored) {
				f.pos, f.header, f.stored = s.pos, h, stored
				s.pos += h.size()
				return f, true, nil
			}
		}
		f.jumped = true
		at, _, ok, err := s.find(s.pos + frameAlign)
		if err != nil {
			return f, false, err
		}
		if !ok {
			s.pos = s.size
			return f, false, nil
		}
		s.pos = at
	}
}

// find looks for the next header of the generation at or behind pos.
func (s *scanner) find(pos int64) (at int64, h frameHeader, ok bool, err error) {
	for pos+frameHeaderSize <= s.size {
		b, err := s.window(pos, scanChunk)
		if err != nil || len(b) < frameHeaderSize {
			return 0, h, false, err
		}
		i := bytes.Index(b[:len(b)-frameHeaderSize+len(magicBytes)], magicBytes)
		if i < 0 {
			pos += align(int64(len(b)) - frameHeaderSize + 1)
			continue
		}
		if at := pos + int64(i); at%frameAlign == 0 {
			if h, ok := parseFrameHeader(b[i:], s.generation); ok {
				return at, h, true, nil
			}
		}
		pos = align(pos + int64(i) + 1)
	}
	return 0, h, false, nil
}

// findFrame looks for the next header of a generation at or behind pos.
func findFrame(f vfs.File, generation uint64, pos, size int64) (int64, frameHeader, bool, error) {
	return newScanner(f, generation, pos, size).find(pos)
}
