package ws

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestRFC6455Sweep goes through whole ranges of what RFC 6455 speaks of, in the
// order of the well known suite's chapters: sizes, pings, reserved bits, opcodes,
// fragments, UTF-8, close codes, and what no suite has: lengths and masks. Each
// is said on a connection of its own, in raw bytes; 0 stands for a pong that
// comes behind it, any other number for the close code.
func TestRFC6455Sweep(t *testing.T) {
	type sweep struct {
		name   string
		writes [][]byte
		code   int
	}
	var all []sweep
	add := func(name string, code int, writes ...[]byte) { all = append(all, sweep{name, writes, code}) }
	ping := `{"op":"ping"}`

	// 1: sizes at the edges of the three forms of length, whole and octet by octet.
	for _, n := range []int{13, 125, 126, 127, 128, 65535, 65536, 65537} {
		add(fmt.Sprintf("1 a text of %d bytes", n), 0, masked(frameText, ping+strings.Repeat(" ", n-len(ping))))
	}
	for _, n := range []int{13, 126, 300} {
		add(fmt.Sprintf("1 a text of %d bytes, octet by octet", n), 0, octets(masked(frameText, ping+strings.Repeat(" ", n-len(ping))))...)
	}
	add("1 an empty text is no object", 0, masked(frameText, ""))

	// 2: pings of every kind of size; many; pongs that answer nothing.
	for _, n := range []int{0, 1, 124, 125} {
		add(fmt.Sprintf("2 a ping of %d bytes", n), 0, masked(framePing, strings.Repeat("p", n)))
		add(fmt.Sprintf("2 a pong of %d bytes", n), 0, masked(framePong, strings.Repeat("p", n)))
	}
	for _, n := range []int{126, 65536} {
		add(fmt.Sprintf("2 a ping of %d bytes", n), 1002, masked(framePing, strings.Repeat("p", n)))
		add(fmt.Sprintf("2 a pong of %d bytes", n), 1002, masked(framePong, strings.Repeat("p", n)))
		add(fmt.Sprintf("2 a close of %d bytes", n), 1002, masked(frameClose, "\x03\xe8"+strings.Repeat("p", n-2)))
	}
	var many [][]byte
	for range 100 {
		many = append(many, masked(framePing, "x"))
	}
	add("2 a hundred pings", 0, many...)

	// 3: reserved bits, on each kind of frame, alone and behind a good message.
	for _, rsv := range []byte{0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70} {
		for _, first := range []byte{frameText, frameBinary, framePing, framePong, frameClose} {
			add(fmt.Sprintf("3 bits %#x on frame %#x", rsv, first), 1002, masked(frameText, ping), masked(first|rsv, ""))
		}
		add(fmt.Sprintf("3 bits %#x on a continuation", rsv), 1002, masked(0x01, `{"op":`), masked(0x80|rsv, `"ping"}`))
	}

	// 4: opcodes that nobody has given a meaning, final and not.
	for _, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		add(fmt.Sprintf("4 opcode %d", opcode), 1002, masked(frameText, ping), masked(0x80|opcode, ""))
		add(fmt.Sprintf("4 opcode %d in fragments", opcode), 1002, masked(opcode, "x"))
		add(fmt.Sprintf("4 opcode %d with a payload, within a message", opcode), 1002, masked(0x01, `{"op":`), masked(0x80|opcode, "x"))
	}

	// 5: fragments, and control frames between them.
	add("5 a ping in fragments", 1002, masked(0x09, "a"), masked(0x80, "b"))
	add("5 a pong in fragments", 1002, masked(0x0a, "a"), masked(0x80, "b"))
	add("5 a close in fragments", 1002, masked(0x08, "\x03"), masked(0x80, "\xe8"))
	add("5 a continuation of nothing, not final", 1002, masked(0x00, ping))
	add("5 a continuation behind a whole message", 1002, masked(frameText, ping), masked(0x80, ping))
	add("5 a continuation behind a fragmented message", 1002, masked(0x01, `{"op":`), masked(0x80, `"ping"}`), masked(0x80, ping))
	add("5 a binary message within a text", 1002, masked(0x01, `{"op":`), masked(frameBinary, "x"))
	add("5 a fragment of a text within a text", 1002, masked(0x01, `{"op":`), masked(0x01, `"ping"}`))
	for i := 0; i <= len(ping); i++ {
		add(fmt.Sprintf("5 cut at %d, with a ping and a pong between", i), 0,
			masked(0x01, ping[:i]), masked(framePing, "between"), masked(framePong, ""), masked(0x80, ping[i:]))
	}
	var pieces [][]byte
	for i := range ping {
		pieces = append(pieces, masked([]byte{0x00, 0x01}[min(1, 1-min(i, 1))], ping[i:i+1]))
	}
	add("5 a fragment for each byte", 0, append(pieces, masked(0x80, ""))...)
	add("5 a thousand empty fragments", 0, append([][]byte{masked(0x01, ping)}, append(repeat(masked(0x00, ""), 1000), masked(0x80, ""))...)...)

	// 6: UTF-8. A good text, cut at each byte, in two fragments and in two writes.
	good := `{"op":"ping","req":"κόσμε ` + "\u00e9\ufffd\U0010ffff\U0001f600" + `"}`
	for i := range len(good) + 1 {
		add(fmt.Sprintf("6 cut by a fragment at %d", i), 0, masked(0x01, good[:i]), masked(0x80, good[i:]))
	}
	frame := masked(frameText, good)
	for i := range frame {
		add(fmt.Sprintf("6 cut by a write at %d", i), 0, frame[:i], frame[i:])
	}
	for name, bad := range map[string]string{
		"a lone continuation byte": "\x80", "two of them": "\xbf\xbf", "one byte of two": "\xc3", "two bytes of three": "\xe2\x82", "three bytes of four": "\xf0\x9f\x98",
		"an overlong slash of two": "\xc0\xaf", "of three": "\xe0\x80\xaf", "of four": "\xf0\x80\x80\xaf", "of five": "\xf8\x80\x80\x80\xaf", "of six": "\xfc\x80\x80\x80\x80\xaf",
		"an overlong NUL": "\xc0\x80", "the largest overlong of three": "\xe0\x9f\xbf", "a high surrogate": "\xed\xa0\x80", "a low surrogate": "\xed\xbf\xbf",
		"a pair of surrogates": "\xed\xa0\x80\xed\xb0\x80", "above U+10FFFF": "\xf4\x90\x80\x80", "five bytes": "\xf8\x88\x80\x80\x80", "six bytes": "\xfc\x84\x80\x80\x80\x80", "FE": "\xfe", "FF": "\xff",
	} {
		text := `{"op":"ping","req":"` + bad + `"}`
		if utf8.ValidString(text) {
			t.Fatalf("%s is good", name)
		}
		add("6 "+name, 1007, masked(frameText, text))
		for i := range len(bad) + 1 {
			at := strings.Index(text, bad) + i
			add(fmt.Sprintf("6 %s, cut at %d", name, i), 1007, masked(0x01, text[:at]), masked(0x00, ""), masked(0x80, text[at:]))
		}
	}

	// 7: close codes, and what follows a close.
	closing := func(code int, reason string) []byte {
		return masked(frameClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(fmt.Sprintf("7 close %d", code), code, closing(code, ""))
		add(fmt.Sprintf("7 close %d with the longest reason", code), code, closing(code, strings.Repeat("é", 61)+"e"))
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(fmt.Sprintf("7 close %d", code), 1002, closing(code, ""))
	}
	add("7 close 1014, octet by octet", 1014, octets(closing(1014, "gone"))...)
	add("7 close 1014 by a mask of its own", 1014, maskedBy([4]byte{3, 0xf6, 0x12, 0x34}, frameClose, "\x03\xf6"))
	add("7 close 1014 behind messages", 1014, masked(frameText, ping), masked(0x01, `{"op":`), masked(framePing, "\x03\xf6"), closing(1014, ""))
	add("7 1014 in a ping and a text", 0, masked(framePing, "\x03\xf6"), masked(frameText, "\x03"))
	add("7 a close of one byte", 1002, masked(frameClose, "\x03"))
	add("7 a close of one byte, octet by octet", 1002, octets(masked(frameClose, "\x03"))...)
	add("7 a close of one byte behind messages", 1002, append(masked(framePing, "12345"), append(masked(frameText, strings.Repeat(" ", 70_000)+ping), masked(frameClose, "\x03")...)...))
	add("7 a close of one byte within a message", 1002, masked(0x01, `{"op":`), masked(frameClose, "\x03"))
	for _, reason := range []string{"\x80", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"} {
		add(fmt.Sprintf("7 a reason of %x", reason), 1002, closing(1000, reason))
	}
	add("7 a message behind a close", 1000, closing(1000, ""), masked(frameText, `{"op":"pub","req":1,"topic":"t"}`))
	add("7 a ping behind a close", 1000, closing(1000, ""), masked(framePing, "late"))
	add("7 two closes", 1000, closing(1000, ""), closing(1001, ""))
	add("7 a close within a message", 1000, masked(0x01, `{"op":`), closing(1000, ""))
	add("7 garbage behind a close", 1000, closing(1000, ""), []byte("\xff\xff\xff\xff\xff\xff\xff\xff"))

	// 9: lengths: longer than need be, that nobody could send, that are not there.
	add("9 13 bytes, as 16 bits", 0, lengthened(ping, 2))
	add("9 13 bytes, as 64 bits", 0, lengthened(ping, 8))
	for _, length := range []uint64{1 << 22, 1<<31 - 1, 1 << 31, 1 << 32, 1<<62 + 1, 1<<63 - 1} {
		head := binary.BigEndian.AppendUint64([]byte{frameText, 0xff}, length)
		add(fmt.Sprintf("9 a length of %d", length), 1009, append(head, 1, 2, 3, 4))
	}
	add("9 a length of minus one", 1002, append(binary.BigEndian.AppendUint64([]byte{frameText, 0xff}, 1<<64-1), 1, 2, 3, 4))
	add("9 fragments that are too long together", 1009, append([][]byte{masked(0x01, ping)}, repeat(masked(0x00, strings.Repeat(" ", 1<<20)), 3)...)...)
	// 10: masks: none, all zero, all ones; and none in the middle.
	for _, mask := range [][4]byte{{}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1}, {0x81, 0x80, 0x88, 0x89}} {
		add(fmt.Sprintf("10 mask %x", mask), 0, maskedBy(mask, frameText, ping))
	}
	add("10 no mask on a continuation", 1002, masked(0x01, `{"op":`), append([]byte{0x80, 7}, `"ping"}`...))
	add("10 no mask on a ping", 1002, []byte{framePing, 0})
	add("10 no mask on a close", 1002, []byte{frameClose, 2, 3, 0xe8})

	r := newRig(t)
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			conn := r.raw("/ws", "sluice.v1.json")
			defer conn.Close()
			conn.(*net.TCPConn).SetNoDelay(true)
			conn.SetWriteDeadline(time.Now().Add(patience))
			for _, w := range c.writes {
				conn.Write(w)
			}
			if c.code == 0 {
				conn.Write(masked(framePing, "alive"))
			}
			if err := wantEnd(conn, c.code); err != nil {
				t.Fatal(err)
			}
		})
	}
	if len(all) < 390 {
		t.Errorf("only %d cases", len(all))
	}
	// After all of that the broker serves whoever comes.
	r.native().quiet()
}

func octets(b []byte) (all [][]byte) {
	for i := range b {
		all = append(all, b[i:i+1])
	}
	return all
}

func repeat(b []byte, n int) (all [][]byte) {
	for range n {
		all = append(all, b)
	}
	return all
}

// lengthened is a text frame whose length takes more bytes than it needs.
func lengthened(payload string, size int) []byte {
	frame := []byte{frameText, 0x80 | 126}
	if size == 8 {
		frame[1]++
	}
	for i := size - 1; i >= 0; i-- {
		frame = append(frame, byte(uint64(len(payload))>>(8*i)))
	}
	return append(append(frame, 0, 0, 0, 0), payload...)
}

// maskedBy is masked with another mask.
func maskedBy(mask [4]byte, first byte, payload string) []byte {
	frame := append([]byte{first, 0x80 | byte(len(payload))}, mask[:]...)
	for i := range len(payload) {
		frame = append(frame, payload[i]^mask[i%4])
	}
	return frame
}
