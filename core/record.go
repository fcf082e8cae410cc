package core

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"
)

// A record is an envelope as it stands in the log:
//
//	size    uint32  of all that follows it, little-endian like all below
//	hash    uint64  HashTopic of the topic
//	length  uint16  of the topic
//	topic   length bytes
//	body    what the core keeps of the envelope; engines do not look inside
//
// The body is a uvarint of the bits below, then each field whose bit is set,
// in the order of the bits, then the payload up to the end of the record.
// Strings and byte strings are a uvarint length and their bytes, times are
// uvarint milliseconds since 1970.
const (
	fieldGuarantee = 1<<0 | 1<<1 // the Guarantee itself
	fieldRetain    = 1 << 2
	fieldText      = 1 << 3
	fieldClient    = 1 << 4
	fieldProtocol  = 1 << 5
	fieldPrincipal = 1 << 6
	fieldKey       = 1 << 7
	fieldID        = 1 << 8
	fieldHeaders   = 1 << 9 // count, then name and value each
	fieldType      = 1 << 10
	fieldReplyTo   = 1 << 11
	fieldCorr      = 1 << 12
	fieldExpires   = 1 << 13
	fieldDeliverAt = 1 << 14
	fieldPriority  = 1 << 15 // one byte
	fieldSchedule  = 1 << 16 // as appendSchedule writes it
	fieldBytes     = 1 << 17
	fieldsKnown    = 1<<18 - 1
)

// RecordHeaderSize is the length of a record's fixed part: size, hash and the
// topic's length.
const RecordHeaderSize = 4 + 8 + 2

// A Record is one record of the log, as it is read.
type Record struct {
	Offset Offset
	// Time is when the broker took the record, in milliseconds since 1970.
	Time int64
	Hash uint64
	// Topic and Body alias the buffer that the record was read from.
	Topic string
	Body  []byte
}

// AppendRecord appends the record of an envelope to dst. The envelope's topic
// has been checked.
func AppendRecord(dst []byte, e *Envelope) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, HashTopic(e.Topic))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(e.Topic)))
	dst = append(dst, e.Topic...)
	dst = appendBody(dst, e)
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

func appendBody(dst []byte, e *Envelope) []byte {
	fields := uint64(e.Guarantee) & fieldGuarantee
	set := func(bit uint64, is bool) {
		if is {
			fields |= bit
		}
	}
	set(fieldRetain, e.Retain)
	set(fieldText, e.Text)
	set(fieldBytes, e.Bytes)
	set(fieldClient, e.Publisher.Client != "")
	set(fieldProtocol, e.Publisher.Protocol != "")
	set(fieldPrincipal, e.Publisher.Principal != "")
	set(fieldKey, e.Key != "")
	set(fieldID, e.ID != "")
	set(fieldHeaders, len(e.Headers) > 0)
	set(fieldType, e.ContentType != "" || e.EmptyType)
	set(fieldReplyTo, e.ReplyTo != "" || e.EmptyReplyTo)
	set(fieldCorr, e.CorrelationID != nil)
	set(fieldExpires, !e.Expires.IsZero())
	set(fieldDeliverAt, !e.DeliverAt.IsZero())
	set(fieldPriority, e.Priority != 0)
	set(fieldSchedule, e.Schedule != nil)

	dst = binary.AppendUvarint(dst, fields)
	if fields&fieldClient != 0 {
		dst = appendString(dst, e.Publisher.Client)
	}
	if fields&fieldProtocol != 0 {
		dst = appendString(dst, e.Publisher.Protocol)
	}
	if fields&fieldPrincipal != 0 {
		dst = appendString(dst, e.Publisher.Principal)
	}
	if fields&^(fieldGuarantee|fieldRetain|fieldText|fieldBytes|fieldClient|fieldProtocol|fieldPrincipal) == 0 {
		return append(dst, e.Payload...)
	}
	if fields&fieldKey != 0 {
		dst = appendString(dst, e.Key)
	}
	if fields&fieldID != 0 {
		dst = appendString(dst, e.ID)
	}
	if fields&fieldHeaders != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(e.Headers)))
		for i := range e.Headers {
			dst = appendString(dst, e.Headers[i].Name)
			dst = appendString(dst, e.Headers[i].Value)
		}
	}
	if fields&fieldType != 0 {
		dst = appendString(dst, e.ContentType)
	}
	if fields&fieldReplyTo != 0 {
		dst = appendString(dst, e.ReplyTo)
	}
	if fields&fieldCorr != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(e.CorrelationID)))
		dst = append(dst, e.CorrelationID...)
	}
	if fields&fieldExpires != 0 {
		dst = appendTime(dst, e.Expires)
	}
	if fields&fieldDeliverAt != 0 {
		dst = appendTime(dst, e.DeliverAt)
	}
	if fields&fieldPriority != 0 {
		dst = append(dst, byte(e.Priority))
	}
	if fields&fieldSchedule != 0 {
		dst = appendSchedule(dst, e.Schedule)
	}
	return append(dst, e.Payload...)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func appendTime(dst []byte, t time.Time) []byte {
	return binary.AppendUvarint(dst, uint64(max(t.UnixMilli(), 0)))
}

// ParseRecord takes the first record off buf, which is not copied: the record
// aliases it. The error wraps [ErrCorrupt].
func ParseRecord(buf []byte) (r Record, rest []byte, err error) {
	if len(buf) < RecordHeaderSize {
		return Record{}, nil, fmt.Errorf("%w: %d bytes left where a record begins", ErrCorrupt, len(buf))
	}
	size := uint64(binary.LittleEndian.Uint32(buf))
	topic := uint64(binary.LittleEndian.Uint16(buf[12:]))
	if size+4 > uint64(len(buf)) || topic+RecordHeaderSize > size+4 {
		return Record{}, nil, fmt.Errorf("%w: a record of %d bytes with a topic of %d in %d bytes", ErrCorrupt, size, topic, len(buf))
	}
	r.Hash = binary.LittleEndian.Uint64(buf[4:])
	r.Topic = alias(buf[RecordHeaderSize : RecordHeaderSize+topic])
	r.Body = buf[RecordHeaderSize+topic : size+4 : size+4]
	return r, buf[size+4:], nil
}

// Envelope decodes the record into e, all of which is overwritten but for the
// array behind e.Headers, which is used again. Strings and slices alias the
// record. The error wraps [ErrCorrupt].
func (r *Record) Envelope(e *Envelope) error {
	headers := e.Headers[:0]
	*e = Envelope{Topic: r.Topic, Time: time.UnixMilli(r.Time)}
	d := bodyDecoder{rest: r.Body}
	fields := d.uvarint()
	if fields&^fieldsKnown != 0 {
		return fmt.Errorf("%w: offset %d: unknown fields %#x", ErrCorrupt, r.Offset, fields)
	}
	e.Guarantee = Guarantee(fields & fieldGuarantee)
	e.Retain = fields&fieldRetain != 0
	e.Text, e.Bytes = fields&fieldText != 0, fields&fieldBytes != 0
	if fields&fieldClient != 0 {
		e.Publisher.Client = d.string()
	}
	if fields&fieldProtocol != 0 {
		e.Publisher.Protocol = d.string()
	}
	if fields&fieldPrincipal != 0 {
		e.Publisher.Principal = d.string()
	}
	if fields&fieldKey != 0 {
		e.Key = d.string()
	}
	if fields&fieldID != 0 {
		e.ID = d.string()
	}
	if fields&fieldHeaders != 0 {
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			headers = append(headers, Header{Name: d.string(), Value: d.string()})
		}
	}
	e.Headers = headers
	if fields&fieldType != 0 {
		e.ContentType = d.string()
		e.EmptyType = e.ContentType == ""
	}
	if fields&fieldReplyTo != 0 {
		e.ReplyTo = d.string()
		e.EmptyReplyTo = e.ReplyTo == ""
	}
	if fields&fieldCorr != 0 {
		e.CorrelationID = d.bytes()
	}
	if fields&fieldExpires != 0 {
		e.Expires = time.UnixMilli(int64(d.uvarint()))
	}
	if fields&fieldDeliverAt != 0 {
		e.DeliverAt = time.UnixMilli(int64(d.uvarint()))
	}
	if fields&fieldPriority != 0 {
		e.Priority = Priority(d.byte())
	}
	if fields&fieldSchedule != 0 {
		e.Schedule = d.schedule()
	}
	if d.bad {
		return fmt.Errorf("%w: offset %d: the body ends early", ErrCorrupt, r.Offset)
	}
	e.Payload = d.rest
	return nil
}

// A bodyDecoder takes fields off a record's body; bad is set, and stays, once
// the body ends early.
type bodyDecoder struct {
	rest []byte
	bad  bool
}

func (d *bodyDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *bodyDecoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *bodyDecoder) string() string { return alias(d.bytes()) }

func (d *bodyDecoder) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

// alias views bytes that are never written again as a string.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// A Batch is what one commit appends: records, back to back as AppendRecord
// wrote them, and changes to the state.
type Batch struct {
	// Time is when the broker took the batch's records, in milliseconds since
	// 1970. It never goes back within a log.
	Time int64
	// Fence is the owner's, where an engine has owners.
	Fence uint64
	// Sync says that somebody waits for the batch to be durable.
	Sync bool
	// Here says that the caller of Append waits for it and does nothing else
	// meanwhile.
	Here    bool
	Buf     []byte
	Ends    []uint32 // where in Buf each record ends
	Changes []Change
}

// Len is the number of records.
func (b *Batch) Len() int { return len(b.Ends) }

// Record returns the record at index i, without its offset and time.
func (b *Batch) Record(i int) (Record, error) {
	start := uint32(0)
	if i > 0 {
		start = b.Ends[i-1]
	}
	r, _, err := ParseRecord(b.Buf[start:b.Ends[i]])
	return r, err
}

// A ReadBuffer receives what Engine.Read found. Its owner sets the bounds and
// uses it again and again.
type ReadBuffer struct {
	// MaxRecords and MaxBytes say when the buffer is full; a record that is
	// larger than MaxBytes alone is returned alone.
	MaxRecords, MaxBytes int

	Records []Record
	Gaps    []Gap
	// Scratch is the engine's own, kept for the next read.
	Scratch any
}

// Reset empties the buffer and keeps what it has allocated.
func (b *ReadBuffer) Reset() { b.Records, b.Gaps = b.Records[:0], b.Gaps[:0] }

// A FilterSet is a set of filters that an engine reads with.
type FilterSet struct {
	filters []Filter
	wild    []Filter
	// few are the filters without wildcards, with their hashes; where there are
	// many, they stand in exact and hashes instead. Most readers have one, and
	// there are as many sets as readers.
	few    []hashed
	exact  map[string]bool
	hashes map[uint64]bool
}

type hashed struct {
	hash  uint64
	topic string
}

// fewFilters is up to how many a list is as quick as a map.
const fewFilters = 4

// NewFilterSet makes a set of filters; it is not changed afterwards.
func NewFilterSet(filters ...Filter) *FilterSet {
	s := &FilterSet{filters: filters}
	for _, f := range filters {
		if f.Exact() {
			s.few = append(s.few, hashed{HashTopic(string(f)), string(f)})
		} else {
			s.wild = append(s.wild, f)
		}
	}
	if len(s.few) <= fewFilters {
		return s
	}
	s.exact, s.hashes = make(map[string]bool, len(s.few)), make(map[uint64]bool, len(s.few))
	for _, f := range s.few {
		s.exact[f.topic], s.hashes[f.hash] = true, true
	}
	s.few = nil
	return s
}

// Filters returns the set's filters, which must not be changed.
func (s *FilterSet) Filters() []Filter { return s.filters }

// Skip reports, from a topic's hash alone, that no filter of the set matches.
func (s *FilterSet) Skip(hash uint64) bool {
	if len(s.wild) > 0 {
		return false
	}
	for i := range s.few {
		if s.few[i].hash == hash {
			return false
		}
	}
	return !s.hashes[hash]
}

// Match reports whether a filter of the set matches the topic.
func (s *FilterSet) Match(topic string) bool {
	for i := range s.few {
		if s.few[i].topic == topic {
			return true
		}
	}
	if s.exact[topic] {
		return true
	}
	for _, f := range s.wild {
		if f.Match(topic) {
			return true
		}
	}
	return false
}
