package ws

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRFC6455 holds the door against the wire rules of RFC 6455: what is sent
// as bytes, and the close code that answers it; 0 stands for a pong as the
// answer to a ping behind what was sent, the connection lives.
func TestRFC6455(t *testing.T) {
	ping := `{"op":"ping"}`
	long := func(n int) string { return `{"op":"ping","req":1` + strings.Repeat(" ", n) + `}` }
	unmasked := append([]byte{0x81, byte(len(ping))}, ping...)
	for _, c := range []struct {
		name  string
		bytes []byte
		code  int
	}{
		{"5.1 a frame without a mask", unmasked, 1002},
		{"5.2 RSV1 without an extension", masked(0x81|0x40, ping), 1002},
		{"5.2 RSV2", masked(0x81|0x20, ping), 1002},
		{"5.2 RSV3", masked(0x81|0x10, ping), 1002},
		{"5.2 opcode 3", masked(0x83, ""), 1002},
		{"5.2 opcode 7", masked(0x87, ""), 1002},
		{"5.2 opcode 11", masked(0x8b, ""), 1002},
		{"5.2 opcode 15", masked(0x8f, ""), 1002},
		{"5.2 a length of 16 bits", masked(frameText, long(200)), 0},
		{"5.2 a length of 64 bits", masked(frameText, long(70_000)), 0},
		{"5.2 a length with its highest bit set", []byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4}, 1002},
		{"5.2 a length of petabytes", []byte{0x81, 0xff, 0, 0x7f, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4}, 1009},
		{"5.4 a text in fragments", append(masked(0x01, `{"op":`), masked(0x80, `"ping"}`)...), 0},
		{"5.4 in many, some empty", cat(masked(0x01, ""), masked(0x00, `{"op"`), masked(0x00, ""), masked(0x00, `:"ping"}`), masked(0x80, "")), 0},
		{"5.4 a ping between fragments", cat(masked(0x01, `{"op":`), masked(framePing, "x"), masked(0x80, `"ping"}`)), 0},
		{"5.4 a continuation of nothing", masked(0x80, ping), 1002},
		{"5.4 a text within a text", append(masked(0x01, `{"op":`), masked(frameText, ping)...), 1002},
		{"5.5 a control frame in fragments", masked(0x09, "x"), 1002},
		{"5.5 a control frame of 126 bytes", masked(framePing, strings.Repeat("x", 126)), 1002},
		{"5.5 a ping of 125 bytes", masked(framePing, strings.Repeat("x", 125)), 0},
		{"5.5.1 a close without a code", masked(frameClose, ""), 1000},
		{"5.5.1 a close with a code and a reason", masked(frameClose, "\x03\xe8done"), 1000},
		{"5.5.1 a close with a code of the application", masked(frameClose, "\x0f\xa0"), 4000},
		{"5.5.1 a close whose reason is not UTF-8", masked(frameClose, "\x03\xe8\xff"), 1002},
		{"5.5.3 a pong that nobody asked for", masked(framePong, "x"), 0},
		{"7.4.1 close 1004", masked(frameClose, "\x03\xec"), 1002},
		{"7.4.1 close 1005", masked(frameClose, "\x03\xed"), 1002},
		{"7.4.1 close 1006", masked(frameClose, "\x03\xee"), 1002},
		{"7.4.2 close 999", masked(frameClose, "\x03\xe7"), 1002},
		{"7.4.2 close 5000", masked(frameClose, "\x13\x88"), 1002},
		{"8.1 a text that is not UTF-8", masked(frameText, "{\"op\":\"\xff\"}"), 1007},
		{"8.1 a text with half a rune", masked(frameText, "\xe2\x82"), 1007},
		{"8.1 a text with a surrogate", masked(frameText, "\"\xed\xa0\x80\""), 1007},
		{"8.1 a rune cut by a fragment's end", append(masked(0x01, "{\"op\":\"ping\",\"req\":\"\xe2\x82"), masked(0x80, "\xac\"}")...), 0},
		{"a binary message to the JSON protocol", masked(frameBinary, ping), 1003},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			conn := r.raw("/ws", "sluice.v1.json")
			conn.Write(c.bytes)
			if c.code == 0 {
				conn.Write(masked(framePing, "alive"))
			}
			if err := wantEnd(conn, c.code); err != nil {
				t.Fatal(err)
			}
			if c.code == 1002 {
				r.wantRefused("frame_malformed")
			}
		})
	}
}

func cat(frames ...[]byte) (all []byte) {
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

// wantEnd reads frames up to a close frame with the code and the end of the
// connection; up to a pong where code is 0.
func wantEnd(conn net.Conn, code int) error {
	conn.SetReadDeadline(time.Now().Add(patience))
	all, closed := []byte(nil), 0
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		for len(all) >= 2 {
			h, l := 2, int(all[1])
			if l == 126 && len(all) >= 4 {
				h, l = 4, int(binary.BigEndian.Uint16(all[2:]))
			}
			if len(all) < h+l {
				break
			}
			first, payload := all[0], string(all[h:h+l])
			all = all[h+l:]
			switch {
			case closed != 0:
				return fmt.Errorf("frame %#x behind the close frame", first)
			case first == framePong && payload == "alive" && code == 0:
				return nil
			case first == frameClose:
				if closed = 1005; l >= 2 {
					closed = int(payload[0])<<8 | int(payload[1])
				}
				conn.Write(masked(frameClose, payload)) // as a peer does
			}
		}
		if closed != 0 && errors.Is(err, syscall.ECONNRESET) {
			// Where the close frame was the answer to ours, ours to it found
			// nobody any more.
			err = io.EOF
		}
		if err == io.EOF {
			if closed != code {
				return fmt.Errorf("closed with %d, want %d", closed, code)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}
