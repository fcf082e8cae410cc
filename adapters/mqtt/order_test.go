package mqtt

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"
)

// A session's backlog comes in order, and what is published meanwhile behind
// it.
func TestBacklogComesInOrder(t *testing.T) {
	for round := range 20 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			sub := s.dial()
			s.say(sub, `10 L(s"MQTT" 04 00 003C s"a") 82 L(0001 s"t" 01)`)
			s.hear(sub, `20 02 00 00 90 L(0001 01)`)
			s.say(sub, `E0 00`)
			s.hear(sub, "close")
			pub := s.dial()
			s.say(pub, `10 L(s"MQTT" 04 02 003C s"b")`)
			s.hear(pub, `20 02 00 00`)
			const half, n = 500, 1000
			publish := func(from, to int) {
				for i := from; i < to; i++ {
					pub.Write(bytesOf(t, fmt.Sprintf(`32 L(s"t" %04x "%d")`, i+1, i)))
					if err := expect(pub, fmt.Sprintf(`40 02 %04x`, i+1)); err != nil {
						t.Error(err)
						return
					}
				}
			}
			publish(0, half)
			done := make(chan struct{})
			go func() {
				publish(half, n)
				close(done)
			}()
			sub = s.dial()
			s.say(sub, `10 L(s"MQTT" 04 00 003C s"a")`)
			s.hear(sub, `20 02 01 00`)
			r := bufio.NewReader(sub)
			sub.SetReadDeadline(time.Now().Add(2 * patience))
			for i := range n {
				head := make([]byte, 2)
				if _, err := io.ReadFull(r, head); err != nil {
					t.Fatal(err)
				}
				body := make([]byte, head[1])
				if _, err := io.ReadFull(r, body); err != nil {
					t.Fatal(err)
				}
				if got := string(body[5:]); got != strconv.Itoa(i) {
					t.Fatalf("got %q (first byte %X), want %d", got, head[0], i)
				}
				sub.Write([]byte{0x40, 2, body[3], body[4]})
			}
			<-done
		})
	}
}
