package stomp

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A reader reads frames off a stream (STOMP 1.2 "Augmented BNF"). It allocates
// nothing that the peer merely claims: its buffer doubles when it is full of
// what has arrived, up to the limits, which are checked before the bytes that
// would break them are waited for. One goroutine uses it.
type reader struct {
	src     io.Reader
	limits  adapters.Limits
	version version
	// preAuth holds the frame to PreAuthBytes, and its headers to the 1.0
	// rules that CONNECT has in every version.
	preAuth bool

	idle  []byte           // the buffer of a silent connection
	lent  *[busyBytes]byte // from busyBuffers, or nil
	buf   []byte           // the one in use
	start int              // of what is not taken yet
	end   int              // of what has been read
	full  bool             // the last read filled the buffer
	spans []span           // of the frame that is being read
	frame clientFrame      // the frame that is lent
}

// A span is where a header stands, from the frame's first byte.
type span struct{ name, colon, end int }

func newReader(src io.Reader, limits adapters.Limits) *reader {
	idle := make([]byte, idleBytes)
	return &reader{src: src, limits: limits, preAuth: true, idle: idle, buf: idle}
}

// close gives the buffer back. The frame that is lent ends.
func (r *reader) close() {
	if r.lent != nil {
		busyBuffers.Put(r.lent)
		r.lent = nil
	}
	r.buf, r.start, r.end = nil, 0, 0
}

// next reads a frame, past any heart-beats. An error of the peer's making is a
// *refusal, with which the frame's receipt comes, as far as it has been read;
// io.EOF is an end between two frames, io.ErrUnexpectedEOF one within.
func (r *reader) next() (*clientFrame, error) {
	if err := r.skipEOLs(); err != nil {
		return nil, err
	}
	bodyStart, err := r.readHeader()
	if err != nil {
		r.lookAhead(bodyStart)
		return r.refused(), err
	}
	bodyEnd, err := r.readBody(bodyStart)
	if err == nil && r.preAuth && bodyEnd+1 > r.limits.PreAuthBytes {
		err = r.frameTooLarge()
	}
	if err != nil {
		return r.refused(), err
	}
	if err := r.decodeHeaders(); err != nil {
		return &r.frame, err
	}
	r.frame.Body = r.buf[r.start+bodyStart : r.start+bodyEnd : r.start+bodyEnd]
	r.start += bodyEnd + 1
	return &r.frame, nil
}

// skipEOLs takes the line ends between frames: they are heart-beats, or follow
// a frame for the eye.
func (r *reader) skipEOLs() error {
	for {
		for r.start < r.end {
			switch c := r.buf[r.start]; {
			case c == '\n':
				r.start++
			case c == '\r' && r.start+1 < r.end && r.buf[r.start+1] == '\n':
				r.start += 2
			case c == '\r' && r.start+1 == r.end:
				if err := r.fill(); err != nil {
					return midFrame(err)
				}
			default:
				return nil
			}
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// readHeader reads the command and the headers up to the empty line and
// returns the length of all that, or where the line is that is wrong. Lines may end in CR LF in 1.2, before the
// version is known, and in a frame of any version whose command's line does.
func (r *reader) readHeader() (length int, err error) {
	r.spans, r.frame.Command = r.spans[:0], ""
	crlf := r.version == v12 || r.preAuth
	at := 0 // of the line, from r.start
	for line := 0; ; line++ {
		limit := r.limits.StompHeaderBytes
		if line == 0 {
			limit = longestCommand + 1
		}
		stop, err := r.readLine(at, limit, line)
		if err != nil {
			return at, err
		}
		text := r.buf[r.start+at : r.start+stop]
		if cr := len(text) > 0 && text[len(text)-1] == '\r'; cr && (line == 0 || crlf) {
			text, crlf = text[:len(text)-1], true
		}
		next := stop + 1
		switch {
		case line == 0:
			command, ok := clientCommand(text)
			if !ok {
				return at, unknownCommand(text)
			}
			r.frame.Command = command
		case len(text) == 0:
			return next, nil
		default:
			if len(r.spans) == r.limits.StompHeaders {
				return at, refuse("headers_too_many", "too many headers",
					fmt.Sprintf("A frame may have %d headers. Send fewer, or put the data in the body.", r.limits.StompHeaders))
			}
			colon := bytes.IndexByte(text, ':')
			if colon <= 0 {
				return at, refuse("malformed", "malformed header",
					fmt.Sprintf("The line %q of %s is not a header: want name:value.", clip(text), r.frame.Command))
			}
			r.spans = append(r.spans, span{at, at + colon, at + len(text)})
		}
		at = next
	}
}

// readLine returns where the line that begins at at ends, both from r.start. It
// looks at no more bytes than the line may have, so that what it says does not
// depend on how many have come.
func (r *reader) readLine(at, limit, line int) (end int, err error) {
	most := max(min(limit, r.limits.StompHeadersBytes-at-1), 0)
	for from := at; ; {
		have := r.buf[r.start+from : min(r.end, r.start+at+most+1)]
		i := bytes.IndexByte(have, '\n')
		if i >= 0 {
			have = have[:i]
		}
		if bytes.IndexByte(have, 0) >= 0 {
			return 0, r.unterminated(line)
		}
		if i >= 0 {
			return from + i, nil
		}
		from += len(have)
		switch {
		case from <= at+most:
		case line == 0:
			return 0, unknownCommand(r.buf[r.start+at : r.start+from])
		case most < limit:
			return 0, r.headersTooLong()
		default:
			return 0, refuse("header_too_long", "header too long",
				fmt.Sprintf("A header may have %d bytes. Put long data in the body.", limit))
		}
		if err := r.more(1); err != nil {
			return 0, err
		}
	}
}

func (r *reader) headersTooLong() error {
	return refuse("headers_too_long", "headers too long",
		fmt.Sprintf("The headers of a frame may have %d bytes together. Put long data in the body.", r.limits.StompHeadersBytes))
}

func (r *reader) unterminated(line int) error {
	if line == 0 {
		return refuse("malformed", "malformed frame",
			"A NUL byte stands where a command is expected. A body that contains NUL bytes needs a content-length header.")
	}
	return refuse("malformed", "malformed frame",
		fmt.Sprintf("The headers of %s contain a NUL byte. An empty line ends the headers, also where there is no body.", r.frame.Command))
}

func unknownCommand(text []byte) error {
	return refuse("malformed", "unknown command",
		fmt.Sprintf("%q is not a STOMP command of a client: want CONNECT, STOMP, SEND, SUBSCRIBE, UNSUBSCRIBE, ACK, NACK, BEGIN, COMMIT, ABORT or DISCONNECT.", clip(text)))
}

// readBody reads a body that begins at at, with the NUL behind it, and returns
// where it ends, both from r.start (STOMP 1.2 "Body", "Header content-length").
func (r *reader) readBody(at int) (end int, err error) {
	limit := 0
	if r.frame.Command == frame.SEND || r.frame.Command == frame.SUBSCRIBE && r.version == v10 {
		// Of a SUBSCRIBE it "is ignored" (STOMP 1.0).
		limit = r.limits.MessageBytes
	}
	length, ok, err := r.contentLength()
	if err != nil {
		return 0, err
	}
	if ok {
		if length > limit {
			return 0, r.bodyTooLong(limit)
		}
		for r.end-r.start < at+length+1 {
			if err := r.more(at + length + 1 - (r.end - r.start)); err != nil {
				return 0, err
			}
		}
		if r.buf[r.start+at+length] != 0 {
			return 0, refuse("malformed", "wrong content-length",
				fmt.Sprintf("The header content-length of %s says %d, but the byte behind so many is not the NUL that ends a frame. Count bytes, not characters.", r.frame.Command, length))
		}
		return at + length, nil
	}
	for from := at; ; {
		have := r.buf[r.start+from : r.end]
		i := bytes.IndexByte(have, 0)
		if i >= 0 {
			have = have[:i]
		}
		if from-at+len(have) > limit {
			return 0, r.bodyTooLong(limit)
		}
		if i >= 0 {
			return from + i, nil
		}
		from += len(have)
		if err := r.more(1); err != nil {
			return 0, err
		}
	}
}

func (r *reader) bodyTooLong(limit int) error {
	if limit == 0 {
		return refuse("malformed", "unexpected body", fmt.Sprintf("A %s frame has no body; only SEND has one.", r.frame.Command))
	}
	return refuse("message_too_large", "message too large", fmt.Sprintf("A message may have %d bytes. Send it in parts.", limit))
}

// contentLength is the first header of that name.
func (r *reader) contentLength() (n int, ok bool, err error) {
	for _, s := range r.spans {
		if string(r.buf[r.start+s.name:r.start+s.colon]) != frame.ContentLength {
			continue
		}
		text := bytes.Trim(r.buf[r.start+s.colon+1:r.start+s.end], " ")
		if len(text) == 0 || len(text) > 18 {
			return 0, false, badContentLength(text)
		}
		for _, c := range text {
			if c < '0' || c > '9' {
				return 0, false, badContentLength(text)
			}
			n = n*10 + int(c-'0')
		}
		return n, true, nil
	}
	return 0, false, nil
}

func badContentLength(text []byte) error {
	return refuse("malformed", "wrong content-length", fmt.Sprintf("The header content-length is %q: want the body's length in bytes.", clip(text)))
}

// decodeHeaders makes the headers of the spans, once nothing moves any more. If
// one is wrong, only the frame's receipt is left of them.
func (r *reader) decodeHeaders() error {
	r.frame.Headers = r.frame.Headers[:0]
	for i, s := range r.spans {
		h, err := r.decodeHeader(s)
		if err != nil {
			if _, ok := r.frame.header(frame.Receipt); !ok {
				r.spans = r.spans[i+1:]
				r.refused()
			}
			return err
		}
		r.frame.Headers = append(r.frame.Headers, h)
	}
	return nil
}

// decodeHeader makes the header of a span, in its place.
func (r *reader) decodeHeader(s span) (h core.Header, err error) {
	connecting := r.frame.Command == frame.CONNECT || r.frame.Command == frame.STOMP
	name := r.buf[r.start+s.name : r.start+s.colon]
	value := r.buf[r.start+s.colon+1 : r.start+s.end]
	if r.version > v10 && !connecting {
		var ok bool
		if name, ok = unescape(name, r.version); ok {
			value, ok = unescape(value, r.version)
		}
		if !ok {
			return h, refuse("malformed", "wrong escape",
				fmt.Sprintf("The header %q of %s has a backslash that STOMP %s does not know: want %s.", clip(name), r.frame.Command, r.version, escapes[r.version]))
		}
	}
	if !utf8.Valid(name) || !utf8.Valid(value) {
		return h, refuse("malformed", "malformed header", fmt.Sprintf("The header %q of %s is not UTF-8.", clip(name), r.frame.Command))
	}
	h = core.Header{Name: alias(name), Value: alias(value)}
	if r.version == v10 && !connecting {
		h.Value = strings.TrimLeft(h.Value, " ")
	}
	return h, nil
}

// lookAhead looks for a receipt behind the line at at, which is wrong: in what
// has come of the frame, without waiting for more.
func (r *reader) lookAhead(at int) {
	rest, _, _ := bytes.Cut(r.buf[r.start+at:r.end], []byte{0})
	for {
		_, next, more := bytes.Cut(rest, []byte("\n"))
		at, rest = at+len(rest)-len(next), next
		line, _, whole := bytes.Cut(rest, []byte("\n"))
		if !more || !whole || len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(name) == frame.Receipt {
			end := at + len(line) - len(value) + len(bytes.TrimSuffix(value, []byte("\r")))
			r.spans = append(r.spans, span{at, at + len(name), end})
			return
		}
	}
}

// refused is what is known of a frame that cannot be read: the receipt, by
// which the client finds it.
func (r *reader) refused() *clientFrame {
	r.frame.Headers, r.frame.Body = r.frame.Headers[:0], nil
	for _, s := range r.spans {
		if string(r.buf[r.start+s.name:r.start+s.colon]) != frame.Receipt {
			continue
		}
		if h, err := r.decodeHeader(s); err == nil {
			r.frame.Headers = append(r.frame.Headers, h)
		}
		break
	}
	return &r.frame
}

// clip bounds what a peer's words take in an answer to it.
func clip[S []byte | string](s S) string {
	const most = 80
	if len(s) > most {
		return string(s[:most]) + "…"
	}
	return string(s)
}

// alias views bytes of the reader's buffer as a string.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
