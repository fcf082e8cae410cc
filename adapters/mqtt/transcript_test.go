package mqtt

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/adapters"
)

// A transcript is a conversation with the server, as a client would have it,
// and what it proves. testdata/statements holds them, many to a file:
//
//	== 5.0 MQTT-3.1.0-1, 3.1.1 MQTT-3.1.0-1: the first packet is CONNECT
//	limit publish_in_flight 2
//	a> C0 00
//	a< close
//
// A line names a connection, which is opened when it is first named; ">" is
// what it sends, "<" exactly what it gets next, or "close" where the server
// closes, or "nothing" where nothing comes for a while. Two packets that may
// come in either order stand with "||" between them. "a> close" closes the
// connection. "method" gives the broker an authentication method ([challenger]).
// "restart" closes the broker and starts it again on the same log; "kill" starts
// another one on what is durable, as after kill -9. "hold" has the disk stand still,
// until "let go" or "kill": nothing becomes durable meanwhile. "delete a" deletes the
// session of the client id "a", as an operator does; "after 1h" waits so long.
//
// "stomp a t: x" has a client of the id "a" publish "x" to the topic "t" over
// another protocol, whose name is the step's first word.
//
// "a hi5" opens a connection with a clean MQTT 5 session of the client id "a"
// ("hi4", "hi3" for 3.1.1 and 3.1); "keep5" and "keep4" one that begins a lasting
// session, "again5" and "again4" one that goes on with it.
//
// Bytes are written in hex, in quotes as they are ("MQTT"), as a string with
// its length before it (s"a/b"), or as L(...), which puts the length of what it
// holds before it as a variable byte integer. ?13 stands for any 13 bytes, and
// @(7,1) for the user properties of a delivery: its offset and its attempt.
type transcript struct {
	file   string
	line   int
	proves []string // "5.0 MQTT-3.1.0-1"
	says   string
	steps  []step
}

type step struct {
	line int
	text string
}

func transcripts(t testing.TB) []transcript {
	t.Helper()
	files, err := filepath.Glob("testdata/statements/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts:", err)
	}
	var all []transcript
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(data), "\n") {
			line, _, _ = strings.Cut(line, " # ")
			line = strings.TrimSpace(line)
			switch {
			case line == "" || line[0] == '#':
			case strings.HasPrefix(line, "=="):
				ids, says, ok := strings.Cut(strings.TrimSpace(line[2:]), ": ")
				if !ok {
					t.Fatalf("%s:%d: no text behind the statements", file, i+1)
				}
				all = append(all, transcript{file: file, line: i + 1, proves: strings.Split(ids, ", "), says: says})
			case len(all) == 0:
				t.Fatalf("%s:%d: a step before the first heading", file, i+1)
			default:
				last := &all[len(all)-1]
				last.steps = append(last.steps, step{i + 1, line})
			}
		}
	}
	return all
}

func TestStatements(t *testing.T) {
	for _, tr := range transcripts(t) {
		name := strings.ReplaceAll(strings.Join(tr.proves, ",")+":"+tr.says, " ", "_")
		t.Run(strings.ReplaceAll(name, "/", "|"), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, tr.run)
		})
	}
}

func (tr *transcript) run(t *testing.T) {
	time.Sleep(10 * 365 * 24 * time.Hour) // a time has thirteen digits
	options := []siteOption{inBubble}
	var s *site
	conns := make(map[string]net.Conn)
	for _, st := range tr.steps {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("%s:%d: %s\n%s", tr.file, st.line, st.text, fmt.Sprintf(format, args...))
		}
		if limit, ok := strings.CutPrefix(st.text, "limit "); ok {
			name, value, _ := strings.Cut(limit, " ")
			options = append(options, withLimits(func(l *adapters.Limits) {
				if err := setLimit(l, name, value); err != nil {
					fail("%v", err)
				}
			}))
			continue
		}
		if st.text == "method" {
			options = append(options, withAuthorizer(challenger{}))
			continue
		}
		if s == nil {
			s = newSite(t, options...)
		}
		switch st.text {
		case "restart":
			s.restart()
			clear(conns)
			continue
		case "kill":
			s.kill()
			clear(conns)
			continue
		case "hold":
			s.disk.hold()
			continue
		case "let go":
			s.disk.letGo()
			continue
		}
		if protocol, what, ok := strings.Cut(st.text, " "); ok && (protocol == "stomp" || protocol == "ws" || protocol == "http") {
			to, payload, _ := strings.Cut(what, ": ")
			id, topic, _ := strings.Cut(to, " ")
			s.publish(protocol, id, topic, payload)
			continue
		}
		if id, ok := strings.CutPrefix(st.text, "delete "); ok {
			s.delete(id)
			continue
		}
		if wait, ok := strings.CutPrefix(st.text, "after "); ok {
			d, err := time.ParseDuration(wait)
			if err != nil {
				fail("%v", err)
			}
			time.Sleep(d)
			continue
		}
		if name, how, ok := strings.Cut(st.text, " "); ok && greetings[how] != nil {
			c := s.dial()
			conns[name] = c
			hi := greetings[how]
			send, _, err := parseBytes(strings.ReplaceAll(hi[0], "ID", name))
			if err != nil {
				fail("%v", err)
			}
			c.Write(send)
			if err := expect(c, hi[1]); err != nil {
				fail("%v", err)
			}
			continue
		}
		if at := strings.IndexAny(st.text, "<>"); at < 1 {
			fail("want a step")
		} else {
			name, dir, rest := st.text[:at], st.text[at], strings.TrimSpace(st.text[at+1:])
			c := conns[name]
			if c == nil {
				c = s.dial()
				conns[name] = c
			}
			if dir == '>' && rest == "close" {
				c.Close()
				delete(conns, name)
				s.gone(name) // what it sent last has been read
				continue
			}
			if dir == '>' {
				want, _, err := parseBytes(rest)
				if err != nil {
					fail("%v", err)
				}
				// What is sent to a socket whose peer is gone is not told from what
				// is on its way.
				if _, err := c.Write(want); err != nil && !errors.Is(err, io.ErrClosedPipe) {
					fail("%v", err)
				}
				continue
			}
			if err := expect(c, rest); err != nil {
				fail("%v", err)
			}
			if rest == "close" {
				delete(conns, name)
			}
		}
	}
}

// greetings are a CONNECT and its CONNACK.
var greetings = map[string][]string{
	"hi3":    {`10 L(s"MQIsdp" 03 02 003C s"ID")`, `20 02 00 00`},
	"hi4":    {`10 L(s"MQTT" 04 02 003C s"ID")`, `20 02 00 00`},
	"hi5":    {`10 L(s"MQTT" 05 02 003C 00 s"ID")`, `20 L(00 00 L(21 0400 22 0040 27 00110000))`},
	"keep4":  {`10 L(s"MQTT" 04 00 003C s"ID")`, `20 02 00 00`},
	"keep5":  {`10 L(s"MQTT" 05 00 003C L(11 00000E10) s"ID")`, `20 L(00 00 L(21 0400 22 0040 27 00110000))`},
	"again4": {`10 L(s"MQTT" 04 00 003C s"ID")`, `20 02 01 00`},
	"again5": {`10 L(s"MQTT" 05 00 003C L(11 00000E10) s"ID")`, `20 L(01 00 L(21 0400 22 0040 27 00110000))`},
}

func setLimit(l *adapters.Limits, name, value string) error {
	for _, row := range l.Table() {
		if row.Name != name {
			continue
		}
		switch p := row.Value.(type) {
		case *int:
			n, err := strconv.Atoi(value)
			*p = n
			return err
		case *time.Duration:
			d, err := time.ParseDuration(value)
			*p = d
			return err
		}
	}
	return fmt.Errorf("there is no limit %q", name)
}

// expect reads what the step says comes next.
func expect(c net.Conn, what string) error { return expectWithin(c, what, patience) }

func expectWithin(c net.Conn, what string, d time.Duration) error {
	switch what {
	case "close":
		c.SetReadDeadline(time.Now().Add(d))
		rest, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			return fmt.Errorf("not closed: %v, after % X", err, rest)
		}
		if len(rest) > 0 {
			return fmt.Errorf("before it closed: % X %q", rest, rest)
		}
		return nil
	case "nothing":
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		var b [64]byte
		if n, err := c.Read(b[:]); n > 0 || !isTimeout(err) {
			return fmt.Errorf("got % X %q, %v", b[:n], b[:n], err)
		}
		return nil
	}
	first, second, _ := strings.Cut(what, "||")
	want, any, err := parseBytes(first + second)
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	c.SetReadDeadline(time.Now().Add(d))
	n, err := io.ReadFull(c, got)
	if matches(got[:n], want, any) {
		return nil
	}
	if want, any, _ := parseBytes(second + first); second != "" && matches(got[:n], want, any) {
		return nil
	}
	return fmt.Errorf("want % X %q\n got % X %q, %v", want, want, got[:n], got[:n], err)
}

func matches(got, want []byte, any []bool) bool {
	for i := range want {
		if i >= len(got) || !any[i] && got[i] != want[i] {
			return false
		}
	}
	return true
}

// bytesOf is bytes in that notation, none of which may be anything.
func bytesOf(t testing.TB, text string) []byte {
	t.Helper()
	b, _, err := parseBytes(text)
	if err != nil {
		t.Fatal(text, err)
	}
	return b
}

// parseBytes reads the notation of bytes. any says which bytes may be anything.
func parseBytes(s string) (b []byte, any []bool, err error) {
	put := func(x ...byte) {
		b = append(b, x...)
		any = append(any, make([]bool, len(x))...)
	}
	for {
		before, rest, ok := strings.Cut(s, "@(")
		if !ok {
			break
		}
		what, after, _ := strings.Cut(rest, ")")
		offset, attempt, _ := strings.Cut(what, ",")
		s = before + fmt.Sprintf(`26 s"offset" s"%s" 26 s"time" 000D ?13 26 s"attempt" s"%s"`, offset, attempt) + after
	}
	type open struct{ at int }
	var stack []open
	r := bufio.NewReader(strings.NewReader(s))
	quoted := func() (string, error) {
		var text strings.Builder
		text.WriteByte('"')
		for {
			c, err := r.ReadByte()
			if err != nil {
				return "", errors.New("a quote is not closed")
			}
			text.WriteByte(c)
			if c == '\\' {
				c, _ = r.ReadByte()
				text.WriteByte(c)
				continue
			}
			if c == '"' {
				return strconv.Unquote(text.String())
			}
		}
	}
	for {
		c, err := r.ReadByte()
		if err == io.EOF {
			break
		}
		switch {
		case c == ' ':
		case c == '"':
			text, err := quoted()
			if err != nil {
				return nil, nil, err
			}
			put([]byte(text)...)
		case c == 's':
			r.ReadByte()
			text, err := quoted()
			if err != nil {
				return nil, nil, err
			}
			put(byte(len(text)>>8), byte(len(text)))
			put([]byte(text)...)
		case c == 'L':
			r.ReadByte()
			stack = append(stack, open{len(b)})
		case c == ')':
			if len(stack) == 0 {
				return nil, nil, errors.New("nothing to close")
			}
			at := stack[len(stack)-1].at
			stack = stack[:len(stack)-1]
			inner, innerAny := bytes.Clone(b[at:]), append([]bool(nil), any[at:]...)
			b, any = b[:at], any[:at]
			put(appendVarint(nil, len(inner))...)
			b, any = append(b, inner...), append(any, innerAny...)
		case c == '?':
			n := 0
			for {
				c, err := r.ReadByte()
				if err != nil {
					break
				}
				if c < '0' || c > '9' {
					r.UnreadByte()
					break
				}
				n = n*10 + int(c-'0')
			}
			for range n {
				b, any = append(b, 0), append(any, true)
			}
		default:
			d, _ := r.ReadByte()
			x, err := hex.DecodeString(string([]byte{c, d}))
			if err != nil {
				return nil, nil, err
			}
			put(x...)
		}
	}
	if len(stack) > 0 {
		return nil, nil, errors.New("an L( is not closed")
	}
	return b, any, nil
}
