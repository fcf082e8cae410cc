package mqtt

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A heardConn is a connection that remembers its deadline.
type heardConn struct {
	net.Conn
	until time.Time
}

func (h *heardConn) SetReadDeadline(t time.Time) error {
	h.until = t
	return nil
}

// The keep-alive is for packets: bytes that drip do not lengthen it, a large
// packet that comes slowly does ([MQTT-3.1.2-22] of 5.0).
func TestKeepAliveCountsPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nc heardConn
		c := &conn{nc: &nc, connected: true, keepAlive: 90 * time.Second}
		armed := func(want bool, before, left int) {
			t.Helper()
			time.Sleep(time.Minute)
			had := nc.until
			if c.heard(before, left); nc.until.After(had) != want {
				t.Errorf("%d bytes before, %d left: the deadline goes from %v to %v", before, left, had, nc.until)
			}
		}
		armed(true, 2, 0)
		armed(false, 1, 1)
		armed(false, 500, 500)
		armed(true, 1000, 1000)
		armed(false, 1999, 1999)
		armed(true, 3000, 3000)
		armed(true, 5000, 10)
		armed(false, 1009, 1009)
		armed(true, 1010, 1010)
		armed(true, 4000, 0)
	})
}

func TestDrippingBytesDoNotKeepAConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.dial()
	s.say(c, `10 L(s"MQTT" 05 02 0001 00 s"a")`)
	s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, b := range append([]byte{0x30, 0x7f, 0, 0x7d}, make([]byte, 0x7d)...) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	}()
	s.hear(c, `E0 L(8D L(1F s"nothing came within one and a half keep-alive times"))`)
	c.Close()
	<-ended
}
