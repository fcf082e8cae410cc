package stomp_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// FuzzConnection: whatever a client sends, the broker answers in frames, an
// ERROR is its last one, the connection ends with the client, and what another
// client had confirmed is still there.
func FuzzConnection(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, frames := range []string{
		"SEND\ndestination:/queue/q\nreceipt:1\n\nx^@DISCONNECT\nreceipt:2\n\n^@",
		"SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\nselector:a = 'b'\n\n^@ACK\nid:1-1\n\n^@NACK\nid:1-1\nrequeue:false\n\n^@",
		"SUBSCRIBE\nid:0\ndestination:/topic/a.*,/exchange/amq.topic/#\nfrom:earliest\nprefetch-count:0\n\n^@UNSUBSCRIBE\nid:0\n\n^@",
		"BEGIN\ntransaction:t\n\n^@SEND\ndestination:/queue/q\ntransaction:t\n\nx^@COMMIT\ntransaction:t\nreceipt:c\n\n^@ABORT\ntransaction:t\n\n^@",
		"SEND\ndestination:/queue/r\nx-max-length:1\nx-overflow:reject-publish\nexpiration:5\ncontent-length:3\n\na\x00b^@\n\n\n",
		"SUBSCRIBE\nid:b\ndestination:/queue/q\nbrowser:true\nexclusive:true\nauto-delete:true\nactivemq.noLocal:true\n\n^@",
		"SUBSCRIBE\nid:d\ndestination:/topic/a\nactivemq.subscriptionName:s\ndurable:true\nauto-delete:false\n\n^@UNSUBSCRIBE\nid:d\nactivemq.subscriptionName:s\n\n^@",
		"SEND\ndestination:/queue/q\nreply-to:/temp-queue/x\nx\\c:\\n\ncontent-length:99\n\n", "CONNECT\n\n^@", "NONE\n\n^@", "SEND\n^@", "\x00", "ACK\n\n^@",
	} {
		for v := range versions {
			f.Add(byte(v), strings.ReplaceAll(frames, "^@", "\x00"))
		}
	}
	f.Fuzz(func(t *testing.T, v byte, frames string) {
		bubble(t, func(g *gateway) {
			witness := g.connect("1.2")
			witness.publish("/queue/witness", "still here")
			p := g.connect(versions[int(v)%len(versions)], "client-id:fuzz", "heart-beat:0,0")
			written := make(chan struct{})
			go func() {
				defer close(written)
				io.WriteString(p.conn, frames)
			}()
			synctest.Wait()
			p.conn.SetReadDeadline(longAgo)
			failed := false
			for {
				r, err := p.frame()
				if err != nil {
					break
				}
				if failed {
					t.Errorf("behind an ERROR comes\n%s", r)
				}
				switch r.command {
				case "MESSAGE", "RECEIPT":
				case "ERROR":
					failed = true
					if r.header("message") == "internal error" {
						t.Errorf("%q is answered\n%s", frames, r)
					}
				default:
					t.Errorf("%q is answered\n%s", frames, r)
				}
			}
			p.conn.Close()
			<-written
			synctest.Wait()
			if n := g.refused("panic") + g.refused("internal"); n != 0 {
				t.Errorf("%d panics or internal errors", n)
			}
			witness.subscribe("w", "/queue/witness", "browser:true")
			witness.expect("MESSAGE\n", "still here")
		})
	})
}
