package http

import (
	"bytes"
	"fmt"
	"io"
	nethttp "net/http"
	"time"
)

// A lineReader takes lines off a request's body as they come. A line's length
// is bounded, the number of lines is not.
type lineReader struct {
	s    *Server
	w    nethttp.ResponseWriter
	r    *nethttp.Request
	most int // bytes of a line

	buf        []byte
	start, end int // what was read and not yet taken
	searched   int // up to there no line break was found
	err        error
}

// lineBytes bounds a line: a message in base64 or with some escapes, and its
// headers.
func (s *Server) lineBytes() int { return 2*s.limits.MessageBytes + 2*s.limits.HeaderBytes }

func (s *Server) lines(w nethttp.ResponseWriter, r *nethttp.Request) *lineReader {
	return &lineReader{s: s, w: w, r: r, most: s.lineBytes(), buf: make([]byte, 16<<10)}
}

// next returns the next line that is not blank, without its break, valid until
// the next call; io.EOF at the end. The last line needs no break.
func (l *lineReader) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.searched:l.end], '\n'); i >= 0 {
			line := l.buf[l.start : l.searched+i]
			l.start = l.searched + i + 1
			l.searched = l.start
			if len(line) > l.most {
				return nil, l.tooLong()
			}
			if line = bytes.TrimSpace(line); len(line) > 0 {
				return line, nil
			}
			continue
		}
		l.searched = l.end
		if l.end-l.start > l.most {
			return nil, l.tooLong()
		}
		if l.err != nil {
			line := bytes.TrimSpace(l.buf[l.start:l.end])
			l.start, l.searched = l.end, l.end
			if l.err == io.EOF && len(line) > 0 {
				return line, nil
			}
			return nil, l.err
		}
		l.fill()
	}
}

// tooLong ends the reading.
func (l *lineReader) tooLong() error {
	l.err = tooLarge.with(fmt.Sprintf("a line has more than %d bytes", l.most))
	l.start, l.searched = l.end, l.end
	return l.err
}

// fill reads more behind what there is. A body is slow where nothing comes for
// the stall time.
func (l *lineReader) fill() {
	if l.start > 0 {
		copy(l.buf, l.buf[l.start:l.end])
		l.end, l.searched = l.end-l.start, l.searched-l.start
		l.start = 0
	}
	if l.end == len(l.buf) {
		l.buf = append(l.buf, make([]byte, len(l.buf))...)
	}
	if l.err = l.s.readUntil(l.w, l.r, time.Now().Add(l.s.limits.Stall)); l.err != nil {
		return
	}
	n, err := l.r.Body.Read(l.buf[l.end:])
	l.end += n
	if err == io.EOF {
		l.err = err
		if err := l.s.readUntil(l.w, l.r, time.Time{}); err != nil {
			l.err = err
		}
	} else if err != nil {
		l.err = bodyError(err)
	}
}
