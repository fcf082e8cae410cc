package stomp_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/adapters/adaptertest"
	"github.com/sluicemq/sluice/core"
)

// A client that does not read while the memory is short is told to come again,
// at once and not behind all that it did not read; what it had not acknowledged
// is there when it comes.
func TestSlowClientIsShed(t *testing.T) {
	bubble(t, func(g *gateway) {
		p := g.connect("1.2")
		p.send("SUBSCRIBE", "id:1", "destination:/queue/q", "ack:client", "receipt:s")
		p.receipt("s")
		p.conn.(*adaptertest.Line).Hold(true)
		q := g.connect("1.2")
		body := " " + strings.Repeat("x", 8<<10)
		for range 20 {
			q.send("SEND", "destination:/queue/q", "persistent:true", "receipt:r", body)
			q.receipt("r")
			synctest.Wait()
		}
		for range 2 {
			time.Sleep(time.Second)
			g.broker.SetResources(core.Resources{MemoryUsed: 90 << 20, MemoryTotal: 100 << 20})
			synctest.Wait()
		}
		p.conn.(*adaptertest.Line).Hold(false)
		n := 0
		r := p.read()
		for ; r.command == "MESSAGE"; r = p.read() {
			n++
		}
		if !strings.HasPrefix(r.String(), "ERROR\n") || r.header("message") != "too slow" || !strings.Contains(r.body, "Connect again") || n >= 20 {
			t.Errorf("%d messages, and then\n%s", n, r)
		}
		p.expectEnd()
		if g.refused("shed") != 1 {
			t.Error("not counted")
		}
		again := g.connect("1.2")
		again.send("SUBSCRIBE", "id:1", "destination:/queue/q", "ack:client")
		for range 20 {
			again.expect("MESSAGE\n")
		}
	})
}
