package mqtt

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// A CONNECT that has to wait for the disk holds up nobody.
func TestConnectThatWaitsHoldsUpNobody(t *testing.T) {
	connect := func(flags byte, id, will string) []byte {
		b := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, flags, 0, 60, 0, byte(len(id))}, id...)
		b = append(b, will...)
		return append([]byte{0x10, byte(len(b))}, b...)
	}
	for _, c := range []struct {
		name, will string
		flags      byte
		before     string // how the client id has a session, or left a will
	}{
		{name: "will", flags: 6, will: "\x00\x01w\x00\x01x"},
		{name: "session", flags: 0},
		{name: "session and will", flags: 4, will: "\x00\x01w\x00\x01x"},
		{name: "session goes on", flags: 0, before: "session"},
		{name: "session ends", flags: 2, before: "session"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			dial := func() net.Conn {
				t.Helper()
				c, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(patience))
				return c
			}
			answered := func(c net.Conn, packet []byte, size int) {
				t.Helper()
				c.Write(packet)
				if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
					t.Fatal(err)
				}
			}
			parked := dial()
			answered(parked, connect(2, "parked", ""), 4)
			if c.before != "" {
				before := dial()
				answered(before, connect(0, "a", ""), 4)
				before.Write([]byte{0xE0, 0})
				io.ReadAll(before)
			}
			s.disk.hold()
			defer s.disk.letGo()
			waits := dial()
			waits.Write(connect(c.flags, "a", c.will))
			for i := range 5 {
				answered(dial(), connect(2, fmt.Sprint("b", i), ""), 4)
				answered(parked, []byte{0xC0, 0}, 2)
			}
			s.disk.letGo()
			answered(waits, nil, 4)
		})
	}
}
