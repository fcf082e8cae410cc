package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"runtime/debug"
	"slices"
	"sort"
	"sync"
	"unsafe"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// The index of a sealed segment is a file of its own: what the segment holds in
// sum, its block table and gaps, its topics in order, and for each topic its
// postings: the offsets of its records, delta-coded. docs/disk-format.md
// describes the bytes. It says nothing that the segment's frames do not, and
// where it is missing or bad it is built again.
const (
	indexMagic      = "SluiceIx"
	indexVersion    = 1
	indexHeaderSize = 136
	indexBlockSize  = 24
	indexGapSize    = 24
	indexTopicSize  = 32
)

// An index is an index file, mapped into memory. Its methods may fault where
// the disk fails; see guard.
type index struct {
	data []byte
	file vfs.Mapping

	blocks, topics, names, posts []byte // sections of data
	gaps                         []gap
	first                        core.Offset // what postings count from
	records                      uint32
	headerCRC, bodyCRC           uint32

	share *share // the one who reclaims keeps it

	check   sync.Once
	checked error
}

// openIndex maps the index of a segment and returns it with the sum of what the
// segment holds. Only the header's checksum has been compared: verify compares
// the rest. An index that belongs to something else is core.ErrCorrupt.
func (l *Log) openIndex(s *segment) (x *index, sum span, err error) {
	defer guard(&err)
	f, err := l.fs.OpenRead(path.Join(l.dir, indexName(s.name)))
	if err != nil {
		return nil, sum, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, sum, err
	}
	if size < indexHeaderSize {
		return nil, sum, fmt.Errorf("%w: an index of %d bytes", core.ErrCorrupt, size)
	}
	m, err := f.Map(int(size))
	if err != nil {
		return nil, sum, err
	}
	x = &index{data: m.Data, file: m}
	if sum, err = x.parse(s.generation); err != nil {
		x.close()
		return nil, sum, err
	}
	return x, sum, nil
}

func (x *index) parse(generation uint64) (sum span, err error) {
	b, le := x.data, binary.LittleEndian
	if err := checkHeader(b[:indexHeaderSize], "index", indexMagic, indexVersion); err != nil {
		return sum, err
	}
	if le.Uint64(b[16:]) != generation {
		return sum, fmt.Errorf("%w: an index of another segment", core.ErrCorrupt)
	}
	sum = span{
		size:       int64(le.Uint64(b[24:])),
		opened:     core.Offset(le.Uint64(b[32:])),
		first:      core.Offset(le.Uint64(b[40:])),
		next:       core.Offset(le.Uint64(b[48:])),
		after:      le.Uint64(b[56:]),
		lastCommit: le.Uint64(b[64:]),
		lastChange: le.Uint64(b[72:]),
		firstTime:  int64(le.Uint64(b[80:])),
		lastTime:   int64(le.Uint64(b[88:])),
		records:    le.Uint32(b[96:]),
	}
	x.first, x.records = sum.first, sum.records
	rest := b[indexHeaderSize:]
	ok := true
	section := func(n uint64) []byte {
		if n > uint64(len(rest)) {
			ok = false
			return nil
		}
		part := rest[:n:n]
		rest = rest[n:]
		return part
	}
	x.blocks = section(uint64(le.Uint32(b[100:])) * indexBlockSize)
	gaps := section(uint64(le.Uint32(b[104:])) * indexGapSize)
	x.topics = section(uint64(le.Uint32(b[108:])) * indexTopicSize)
	x.names = section(le.Uint64(b[112:]))
	x.posts = section(le.Uint64(b[120:]))
	x.headerCRC, x.bodyCRC = le.Uint32(b[12:]), le.Uint32(b[128:])
	if !ok || len(rest) != 0 || len(x.blocks) == 0 {
		return sum, fmt.Errorf("%w: an index whose sections do not fill it", core.ErrCorrupt)
	}
	for ; len(gaps) > 0; gaps = gaps[indexGapSize:] {
		x.gaps = append(x.gaps, gap{
			From: core.Offset(le.Uint64(gaps)),
			To:   core.Offset(le.Uint64(gaps[8:])),
			Lost: gaps[16] == 1,
		})
	}
	return sum, nil
}

// verify compares the checksum of the whole index, once. Most of it is not
// looked at again before long.
func (x *index) verify() error {
	x.check.Do(func() {
		defer guard(&x.checked)
		defer x.file.Forget()
		if crc32.Checksum(x.data[indexHeaderSize:], castagnoli) != x.bodyCRC {
			x.checked = fmt.Errorf("%w: an index fails its checksum", core.ErrCorrupt)
		}
	})
	return x.checked
}

func (x *index) close() { x.file.Unmap() }

func (x *index) numBlocks() int { return len(x.blocks) / indexBlockSize }

func (x *index) block(i int) block {
	b := x.blocks[i*indexBlockSize : (i+1)*indexBlockSize]
	le := binary.LittleEndian
	return block{
		base: core.Offset(le.Uint64(b)),
		time: int64(le.Uint64(b[8:])),
		pos:  int64(le.Uint64(b[16:])),
	}
}

func (x *index) numTopics() int { return len(x.topics) / indexTopicSize }

// A topicEntry is an entry of the topic dictionary. Its name aliases the file.
type topicEntry struct {
	name  string
	bytes uint64 // of its records
	posts uint64 // where its postings begin
	count uint32 // of its records
}

func (x *index) topic(i int) topicEntry {
	b := x.topics[i*indexTopicSize : (i+1)*indexTopicSize]
	le := binary.LittleEndian
	name := x.names[le.Uint64(b):][:le.Uint32(b[28:])]
	return topicEntry{
		name:  unsafe.String(unsafe.SliceData(name), len(name)),
		bytes: le.Uint64(b[8:]),
		posts: le.Uint64(b[16:]),
		count: le.Uint32(b[24:]),
	}
}

// offsets appends the offsets of a topic's records to dst.
func (x *index) offsets(dst []core.Offset, t topicEntry) []core.Offset {
	posts := x.posts[t.posts:]
	last := x.first
	for range t.count {
		d, n := binary.Uvarint(posts)
		posts = posts[n:]
		last += core.Offset(d)
		dst = append(dst, last)
	}
	return dst
}

// matching appends the topics that a filter of the set matches to dst, by their
// place in the dictionary, in order.
func (x *index) matching(dst []int32, filters *core.FilterSet) []int32 {
	n := x.numTopics()
	for _, f := range filters.Filters() {
		prefix := f.Prefix()
		i := sort.Search(n, func(i int) bool { return x.topic(i).name >= prefix })
		if f.Exact() {
			if i < n && x.topic(i).name == prefix {
				dst = append(dst, int32(i))
			}
			continue
		}
		for ; i < n; i++ {
			name := x.topic(i).name
			if len(name) < len(prefix) || name[:len(prefix)] != prefix {
				break
			}
			if f.Match(name) {
				dst = append(dst, int32(i))
			}
		}
	}
	if len(filters.Filters()) > 1 {
		slices.Sort(dst)
		dst = slices.Compact(dst)
	}
	return dst
}

// guard turns a fault on mapped memory, which comes where the disk fails, into
// an error. It is deferred.
func guard(err *error) {
	switch p := recover().(type) {
	case nil:
	case interface{ Addr() uintptr }:
		*err = fmt.Errorf("%w: a mapped file cannot be read at %#x", core.ErrStorage, p.Addr())
	default:
		panic(p)
	}
}

// faults makes faults panic on this goroutine, until it is called again with
// what it returned.
func faults(on bool) bool { return debug.SetPanicOnFault(on) }

// loadIndex gives a segment its index, if there is a good one.
func (l *Log) loadIndex(s *segment) (bool, error) {
	defer faults(faults(true))
	x, sum, err := l.openIndex(s)
	var newer errVersion
	switch {
	case err == nil:
		s.span, s.index = sum, x
		return true, nil
	case errors.As(err, &newer):
		return false, fmt.Errorf("%s: %w", indexName(s.name), err)
	case !errors.Is(err, fs.ErrNotExist):
		l.log.Warn("index is bad and will be built again", "file", indexName(s.name), "err", err)
	}
	return false, nil
}
