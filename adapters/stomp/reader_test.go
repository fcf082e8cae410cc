package stomp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// readText reads the frames of a text in which ^@ stands for NUL, as they come
// after CONNECTED.
func readText(r *reader) (frames []string, err error) {
	for {
		f, err := r.next()
		if err != nil {
			return frames, err
		}
		var b strings.Builder
		b.WriteString(f.Command)
		for _, h := range f.Headers {
			fmt.Fprintf(&b, " %q=%q", h.Name, h.Value)
		}
		if len(f.Body) > 0 {
			fmt.Fprintf(&b, " body %q", f.Body)
		}
		frames = append(frames, b.String())
	}
}

func connectedReader(v version, src io.Reader) *reader {
	r := newReader(src, adapters.DefaultLimits())
	r.version, r.preAuth = v, false
	return r
}

func TestReader(t *testing.T) {
	all := []version{v10, v11, v12}
	for _, test := range []struct {
		name     string
		versions []version
		text     string
		want     []string
		err      string // in the error; empty is io.EOF
	}{
		{"a frame", all, "SEND\ndestination:/queue/a\n\nbody^@", []string{`SEND "destination"="/queue/a" body "body"`}, ""},
		{"no headers, no body", all, "DISCONNECT\n\n^@", []string{`DISCONNECT`}, ""},
		{"two frames at once", all, "BEGIN\ntransaction:t\n\n^@ABORT\ntransaction:t\n\n^@", []string{`BEGIN "transaction"="t"`, `ABORT "transaction"="t"`}, ""},
		{"line ends between frames", all, "\n\n\nBEGIN\ntransaction:t\n\n^@\n\r\n\nDISCONNECT\n\n^@\n", []string{`BEGIN "transaction"="t"`, `DISCONNECT`}, ""},
		{"CR LF in 1.2", []version{v12}, "SEND\r\ndestination:/queue/a\r\n\r\nbody\r\n^@", []string{`SEND "destination"="/queue/a" body "body\r\n"`}, ""},
		{"CR LF of a frame whose command has it", all, "SEND\r\ndestination:/queue/a\r\n\r\nbody^@", []string{`SEND "destination"="/queue/a" body "body"`}, ""},
		{"LF and CR LF in one 1.2 frame", []version{v12}, "SEND\ndestination:/queue/a\r\n\nbody^@", []string{`SEND "destination"="/queue/a" body "body"`}, ""},
		{"a CR is data in 1.1", []version{v11}, "SEND\na:b\r\n\n^@", []string{`SEND "a"="b\r"`}, ""},
		{"content-length", all, "SEND\ncontent-length:4\n\nbody^@", []string{`SEND "content-length"="4" body "body"`}, ""},
		{"NUL in the body", all, "SEND\ncontent-length:5\n\na^@b^@c^@DISCONNECT\n\n^@", []string{`SEND "content-length"="5" body "a\x00b\x00c"`, `DISCONNECT`}, ""},
		{"content-length 0", all, "SEND\ncontent-length:0\n\n^@", []string{`SEND "content-length"="0"`}, ""},
		{"the first content-length counts", all, "SEND\ncontent-length:1\ncontent-length:3\n\na^@", []string{`SEND "content-length"="1" "content-length"="3" body "a"`}, ""},
		{"content-length of a frame without body", all, "BEGIN\ncontent-length:0\ntransaction:t\n\n^@", []string{`BEGIN "content-length"="0" "transaction"="t"`}, ""},
		{"a body ends at NUL", all, "SEND\n\nline\nline^@", []string{`SEND body "line\nline"`}, ""},
		{"repeats are kept in order", all, "SEND\na:1\nb:2\na:3\n\n^@", []string{`SEND "a"="1" "b"="2" "a"="3"`}, ""},
		{"an empty value", all, "SEND\na:\n\n^@", []string{`SEND "a"=""`}, ""},
		{"a colon in a value", all, "SEND\na:b:c\n\n^@", []string{`SEND "a"="b:c"`}, ""},
		{"spaces are kept", []version{v11, v12}, "SEND\na : b \n\n^@", []string{`SEND "a "=" b "`}, ""},
		{"1.0 pads values", []version{v10}, "SEND\na: b \n\n^@", []string{`SEND "a"="b "`}, ""},
		{"escapes of 1.2", []version{v12}, `SEND` + "\n" + `a\cb:\r\n\c\\x` + "\n\n^@", []string{`SEND "a:b"="\r\n:\\x"`}, ""},
		{"escapes of 1.1", []version{v11}, `SEND` + "\n" + `a\cb:\n\c\\x` + "\n\n^@", []string{`SEND "a:b"="\n:\\x"`}, ""},
		{"1.0 has no escapes", []version{v10}, `SEND` + "\n" + `a:\r\n\c\\x\t` + "\n\n^@", []string{`SEND "a"="\\r\\n\\c\\\\x\\t"`}, ""},
		{"CONNECT is not unescaped", all, `CONNECT` + "\n" + `passcode:a\cb\t` + "\n\n^@", []string{`CONNECT "passcode"="a\\cb\\t"`}, ""},
		{"STOMP is not unescaped", all, `STOMP` + "\n" + `passcode:a\cb\t` + "\n\n^@", []string{`STOMP "passcode"="a\\cb\\t"`}, ""},
		{"UTF-8", all, "SEND\nü:→\n\n^@", []string{`SEND "ü"="→"`}, ""},

		{"\\r in 1.1", []version{v11}, "SEND\na:\\r\n\n^@", nil, "wrong escape"},
		{"unknown escape", []version{v11, v12}, "SEND\na:\\t\n\n^@", nil, "wrong escape"},
		{"escape at the end", []version{v11, v12}, "SEND\na:x\\\n\n^@", nil, "wrong escape"},
		{"unknown command", all, "SELL\n\n^@", nil, "unknown command"},
		{"lower case", all, "send\n\n^@", nil, "unknown command"},
		{"a server's command", all, "MESSAGE\n\n^@", nil, "unknown command"},
		{"something else", all, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", nil, "unknown command"},
		{"no colon", all, "SEND\nabc\n\n^@", nil, "malformed header"},
		{"no name", all, "SEND\n:abc\n\n^@", nil, "malformed header"},
		{"NUL in the headers", all, "SEND\na:b^@", nil, "malformed frame"},
		{"NUL for a command", all, "^@SEND\n\n^@", nil, "malformed frame"},
		{"not UTF-8", all, "SEND\na:\xff\n\n^@", nil, "malformed header"},
		{"content-length too short", all, "SEND\ncontent-length:2\n\nbody^@", nil, "wrong content-length"},
		{"content-length is no number", all, "SEND\ncontent-length:x\n\n^@", nil, "wrong content-length"},
		{"content-length is negative", all, "SEND\ncontent-length:-1\n\n^@", nil, "wrong content-length"},
		{"content-length is empty", all, "SEND\ncontent-length:\n\n^@", nil, "wrong content-length"},
		{"a body where there is none", all, "BEGIN\ntransaction:t\n\nx^@", nil, "unexpected body"},
		{"the end within a command", all, "SEN", nil, io.ErrUnexpectedEOF.Error()},
		{"the end within the headers", all, "SEND\na:b", nil, io.ErrUnexpectedEOF.Error()},
		{"the end within a body", all, "SEND\n\nbo", nil, io.ErrUnexpectedEOF.Error()},
		{"the end within a counted body", all, "SEND\ncontent-length:9\n\nbo", nil, io.ErrUnexpectedEOF.Error()},
		{"a lone CR", all, "\r", nil, io.ErrUnexpectedEOF.Error()},
	} {
		for _, v := range test.versions {
			t.Run(test.name+"/"+v.String(), func(t *testing.T) {
				text := strings.ReplaceAll(test.text, "^@", "\x00")
				for name, src := range map[string]io.Reader{"at once": strings.NewReader(text), "by bytes": iotest.OneByteReader(strings.NewReader(text))} {
					got, err := readText(connectedReader(v, src))
					if d := cmp.Diff(test.want, got); d != "" {
						t.Errorf("%s: frames (-want +got):\n%s", name, d)
					}
					if test.err == "" && err != io.EOF || !strings.Contains(err.Error(), test.err) {
						t.Errorf("%s: error %v, want %q", name, err, test.err)
					}
				}
			})
		}
	}
}

// TestReaderLimits breaks each limit by one and by nothing.
func TestReaderLimits(t *testing.T) {
	limits := adapters.DefaultLimits()
	limits.MessageBytes, limits.StompHeaders, limits.StompHeaderBytes, limits.StompHeadersBytes = 1000, 3, 100, 250
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, test := range []struct {
		name, good, bad, reason string
	}{
		{"headers", "SEND\na:1\nb:2\nc:3\n\n\x00", "SEND\na:1\nb:2\nc:3\nd:4\n\n\x00", "headers_too_many"},
		{"a header", "SEND\na:" + x(98) + "\n\n\x00", "SEND\na:" + x(99) + "\n\n\x00", "header_too_long"},
		{"a header that does not end", "SEND\na:" + x(98) + "\n\n\x00", "SEND\na:" + x(500), "header_too_long"},
		{"all headers", "SEND\na:" + x(98) + "\na:" + x(98) + "\na:" + x(40) + "\n\n\x00", "SEND\na:" + x(98) + "\na:" + x(98) + "\na:" + x(41) + "\n\n\x00", "headers_too_long"},
		{"a body", "SEND\n\n" + x(1000) + "\x00", "SEND\n\n" + x(1001) + "\x00", "message_too_large"},
		{"a body that does not end", "SEND\n\n" + x(1000) + "\x00", "SEND\n\n" + x(1001), "message_too_large"},
		{"a claimed body", "SEND\ncontent-length:1000\n\n" + x(1000) + "\x00", "SEND\ncontent-length:1001\n\n", "message_too_large"},
		{"a command", "UNSUBSCRIBE\n\n\x00", "UNSUBSCRIBER" + x(10), "malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, slowly := range []bool{false, true} {
				read := func(text string) error {
					var src io.Reader = strings.NewReader(text)
					if slowly {
						src = iotest.OneByteReader(src)
					}
					r := newReader(src, limits)
					r.version, r.preAuth = v12, false
					_, err := readText(r)
					return err
				}
				if err := read(test.good); err != io.EOF {
					t.Errorf("at the limit: %v", err)
				}
				err := read(test.bad)
				if r := (*refusal)(nil); !errors.As(err, &r) || r.reason != test.reason {
					t.Errorf("past the limit: %v, want %s", err, test.reason)
				}
			}
		})
	}
}

func TestReaderBeforeConnected(t *testing.T) {
	limits := adapters.DefaultLimits()
	limits.PreAuthBytes = 1 << 10
	frame := func(n int) string {
		text := "CONNECT\n"
		for len(text) < n-200 {
			text += "a:" + strings.Repeat("x", 96) + "\n"
		}
		return text + "a:" + strings.Repeat("x", n-len(text)-5) + "\n\n\x00"
	}
	r := newReader(strings.NewReader(frame(1<<10)), limits)
	if _, err := readText(r); err != io.EOF {
		t.Errorf("at the limit: %v", err)
	}
	for _, text := range []string{frame(1<<10 + 1), frame(1 << 14), "SEND\n\n" + strings.Repeat("x", 1<<14), "SEND\ncontent-length:100000\n\n"} {
		r := newReader(strings.NewReader(text), limits)
		_, err := readText(r)
		if r := (*refusal)(nil); !errors.As(err, &r) || r.reason != "frame_too_large" {
			t.Errorf("%d bytes: %v", len(text), err)
		}
		if len(r.buf) > 4<<10 {
			t.Errorf("a buffer of %d bytes", len(r.buf))
		}
	}
}

// TestReaderAllocatesWhatArrives: a length that is only claimed costs nothing.
func TestReaderAllocatesWhatArrives(t *testing.T) {
	limits := adapters.DefaultLimits()
	limits.MessageBytes = 1 << 30
	r := newReader(strings.NewReader("SEND\ncontent-length:1073741824\n\nlittle"), limits)
	r.preAuth = false
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readText(r)
	runtime.ReadMemStats(&after)
	if err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 256<<10 {
		t.Errorf("%d bytes allocated for six that came", grown)
	}
}

// TestReaderGivesBack: a connection that has been busy is small again.
func TestReaderGivesBack(t *testing.T) {
	large := "SEND\ncontent-length:500000\n\n" + strings.Repeat("x", 500000) + "\x00"
	small := "SEND\n\nx\x00"
	r := connectedReader(v12, io.MultiReader(strings.NewReader(large), strings.NewReader(strings.Repeat(small, 10000)), iotest.OneByteReader(strings.NewReader(small))))
	frames, err := readText(r)
	if len(frames) != 10002 || err != io.EOF {
		t.Fatal(len(frames), err)
	}
	if len(r.buf) != idleBytes || r.lent != nil {
		t.Errorf("a silent connection has a buffer of %d bytes", len(r.buf))
	}
}

// endless gives the same bytes for ever.
type endless struct {
	text []byte
	at   int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

const typicalSend = "SEND\ndestination:/topic/plant/3/temp\ncontent-type:text/plain\nreceipt:12345\nkey:pump\ntrace:abc\npriority:4\ncorrelation-id:77\n\n" +
	"a payload of some thirty bytes\x00\n"

// TestSendDoesNotAllocate: from the socket to the envelope.
func TestSendDoesNotAllocate(t *testing.T) {
	r := connectedReader(v12, &endless{text: []byte(strings.Repeat(typicalSend, 100))})
	var s sending
	replyTo := func(string) (string, error) { return "", nil }
	if n := testing.AllocsPerRun(10000, func() {
		f, err := r.next()
		if err == nil {
			err = s.read(f, replyTo)
		}
		if err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a SEND", n)
	}
	want := core.Envelope{
		Headers: []core.Header{{Name: "trace", Value: "abc"}}, ContentType: "text/plain", Key: "pump",
		Payload: []byte("a payload of some thirty bytes"), CorrelationID: []byte("77"), Priority: core.PriorityOf(4), Guarantee: core.AtLeastOnce,
	}
	if d := cmp.Diff(want, s.envelope); d != "" {
		t.Errorf("envelope (-want +got):\n%s", d)
	}
}

func BenchmarkReadSend(b *testing.B) {
	r := connectedReader(v12, &endless{text: []byte(strings.Repeat(typicalSend, 100))})
	var s sending
	b.ReportAllocs()
	b.SetBytes(int64(len(typicalSend)))
	for b.Loop() {
		f, err := r.next()
		if err != nil {
			b.Fatal(err)
		}
		if err := s.read(f, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzReader: whatever the bytes and however they are cut, the reader returns
// the same frames and the same error, within its limits.
func FuzzReader(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, text := range []string{
		typicalSend, "CONNECT\naccept-version:1.2\n\n\x00", "\n\r\n\nSEND\r\na:\\c\\n\\r\r\n\r\n\x00", "SEND\ncontent-length:3\n\na\x00b\x00",
		"ACK\nid:1-2\n\n\x00NACK\nid:1-2\n\n\x00", "SEND\n\n" + strings.Repeat("x", 300), "SEND\ncontent-length:99999999999999999999\n\n",
	} {
		for v := range 3 {
			f.Add([]byte(text), uint8(v), uint8(7))
		}
	}
	limits := adapters.DefaultLimits()
	limits.MessageBytes, limits.StompHeaders, limits.StompHeaderBytes, limits.StompHeadersBytes, limits.PreAuthBytes = 200, 5, 50, 120, 250
	f.Fuzz(func(t *testing.T, data []byte, v, cut uint8) {
		preAuth := v > 127
		read := func(src io.Reader) ([]string, string) {
			r := newReader(src, limits)
			r.version, r.preAuth = version(v%3), preAuth
			frames, err := readText(r)
			if len(r.buf) > 8<<10 && r.lent == nil {
				t.Fatalf("a buffer of %d bytes", len(r.buf))
			}
			r.close()
			if preAuth && errors.As(err, new(*refusal)) {
				// What is wrong with a frame that is too large anyway depends
				// on how much of it has come.
				return frames, "refused"
			}
			return frames, err.Error()
		}
		frames, err := read(bytes.NewReader(data))
		again, err2 := read(&pieces{data, int(cut%16) + 1})
		if d := cmp.Diff(frames, again); d != "" || err != err2 {
			t.Fatalf("cut in %d: %s (%s, %s)", cut, d, err, err2)
		}
	})
}

type pieces struct {
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}
