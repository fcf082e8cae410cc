package clienttest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// STOMP over WebSocket, by each subprotocol and by none, in text and in binary
// messages, whatever of a frame is in each of them. Where no subprotocol says
// so, accept-version says the version.
func TestStompOverWebSocket(t *testing.T) {
	b := startBroker(t)
	for protocol, version := range map[string]string{"v10.stomp": "1.0", "v11.stomp": "1.1", "v12.stomp": "1.2", "": "1.2"} {
		for kind, name := range map[int]string{websocket.TextMessage: "text", websocket.BinaryMessage: "binary"} {
			t.Run(version+protocol+name, func(t *testing.T) {
				t.Parallel()
				dialer := websocket.Dialer{HandshakeTimeout: answerWithin}
				if protocol != "" {
					dialer.Subprotocols = []string{protocol}
				}
				c, _, err := dialer.Dial("ws://"+b.HTTP+"/stomp", nil)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if c.Subprotocol() != protocol {
					t.Errorf("subprotocol %q", c.Subprotocol())
				}
				c.SetReadDeadline(time.Now().Add(answerWithin))
				var got bytes.Buffer
				// read reads frames until n have ended; a body here has no NUL.
				read := func(n int) string {
					t.Helper()
					for bytes.Count(got.Bytes(), []byte("\x00")) < n {
						_, m, err := c.ReadMessage()
						if err != nil {
							t.Fatalf("%v after %q", err, got.Bytes())
						}
						got.Write(m)
					}
					text := got.String()
					got.Reset()
					return text
				}
				write := func(pieces ...string) {
					t.Helper()
					for _, p := range pieces {
						if err := c.WriteMessage(kind, []byte(p)); err != nil {
							t.Fatal(err)
						}
					}
				}
				write("CONNECT\naccept-version:" + version + "\nhost:h\n\n\x00")
				if text := read(1); !strings.HasPrefix(text, "CONNECTED\n") || !strings.Contains(text, "\nversion:"+version+"\n") {
					t.Fatalf("%q", text)
				}
				topic := "/topic/ws/" + strings.Join(strings.Fields(t.Name()), "")
				// A frame in pieces of one byte, heart-beats between them.
				write(strings.Split("\nSUBSCRIBE\nid:0\ndestination:"+topic+"\nreceipt:s\n\n\x00", "")...)
				if text := read(1); !strings.Contains(text, "RECEIPT\nreceipt-id:s\n") {
					t.Fatalf("%q", text)
				}
				// Two frames in one message, the second one's end in another,
				// and a character cut in two where the kind allows it.
				body := "größe"
				cut := 2 // within ö only in binary messages
				if kind == websocket.BinaryMessage {
					cut = 3
				}
				write("SEND\ndestination:"+topic+"\n\none\x00\nSEND\ndestination:"+topic+"\nreceipt:r\n\n"+body[:cut], body[cut:]+"\x00")
				text := read(3)
				if strings.Count(text, "MESSAGE\n") != 2 || !strings.Contains(text, "\n\none\x00") || !strings.Contains(text, "\n\n"+body+"\x00") || !strings.Contains(text, "receipt-id:r\n") {
					t.Errorf("%q", text)
				}
				write("DISCONNECT\nreceipt:bye\n\n\x00")
				if text := read(1); !strings.Contains(text, "receipt-id:bye\n") {
					t.Errorf("%q", text)
				}
			})
		}
	}
}
