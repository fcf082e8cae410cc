package mqtt

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// seeds are all packets that the transcripts send.
func seeds(f testing.TB, add func([]byte)) {
	f.Helper()
	files, _ := filepath.Glob("testdata/statements/*.txt")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n") {
			_, text, ok := strings.Cut(line, "> ")
			if !ok || text == "close" {
				continue
			}
			if b, _, err := parseBytes(text); err == nil {
				add(b)
			}
		}
	}
}

// What mochi's decoder takes, ours takes as the same, unless it has a reason
// that mochi's does not look for; and what ours takes, mochi's takes.
func FuzzPublishDecode(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	seeds(f, func(b []byte) {
		if h, ok, _ := parseHeader(b); ok && h.kind() == typePublish && len(b) >= h.size {
			f.Add(h.first&0x0F, b[h.size:], true)
			f.Add(h.first&0x0F, b[h.size:], false)
		}
	})
	f.Fuzz(func(t *testing.T, flags byte, body []byte, five bool) {
		v := v311
		if five {
			v = v5
		}
		flags &= 0x0F
		before := bytes.Clone(body)
		var p publishPacket
		var e core.Envelope
		bad := p.decode(flags, body, v, &e)
		if !bytes.Equal(before, body) {
			t.Fatal("the packet was changed")
		}
		if bad == nil && e.Topic != "" {
			bad = checkTopic(e.Topic)
		}

		theirs := packets.Packet{ProtocolVersion: byte(v)}
		err := theirs.FixedHeader.Decode(typePublish<<4 | flags)
		if err == nil {
			err = theirs.PublishDecode(body)
		}
		if bad != nil {
			return
		}
		if err != nil {
			t.Fatalf("ours takes %x % X, mochi's says %v", flags, body, err)
		}
		if theirs.TopicName != e.Topic || theirs.PacketID != p.id || !bytes.Equal(theirs.Payload, e.Payload) ||
			theirs.Properties.TopicAlias != p.alias || theirs.Properties.ContentType != e.ContentType ||
			theirs.Properties.ResponseTopic != e.ReplyTo || !bytes.Equal(theirs.Properties.CorrelationData, e.CorrelationID) ||
			theirs.Properties.MessageExpiryInterval != p.expiry || len(theirs.Properties.User) != p.users {
			t.Fatalf("ours %+v %+v\nmochi's %+v", p, e, theirs)
		}
	})
}

// A connection that gets any bytes ends or goes on, and nobody else notices.
func FuzzConn(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	hello := func(text string) []byte { return bytesOf(plain, text) }
	greetings := [][]byte{
		nil,
		hello(`10 L(s"MQTT" 05 02 003C L(21 0002 22 0004) s"fuzz")`),
		hello(`10 L(s"MQTT" 04 00 003C s"fuzz")`),
		hello(`10 L(s"MQIsdp" 03 02 003C s"fuzz")`),
	}
	seeds(f, func(b []byte) {
		for i := range greetings {
			f.Add(byte(i), b)
		}
	})
	s := newSite(f)
	f.Fuzz(func(t *testing.T, hello byte, data []byte) {
		client, server := net.Pipe()
		served := make(chan struct{})
		go func() {
			adapters.ServeConn(t.Context(), s.server, server)
			close(served)
		}()
		client.SetDeadline(time.Now().Add(patience))
		read := make(chan struct{})
		go func() {
			io.Copy(io.Discard, client)
			close(read)
		}()
		client.Write(greetings[int(hello)%len(greetings)])
		client.Write(data)
		client.Write([]byte{0xC0, 0})
		client.Close()
		<-served
		<-read
		// The broker still serves.
		s.t = t
		c := s.dial()
		defer c.Close()
		c.Write(greetings[2][:0])
		b, _, _ := parseBytes(`10 L(s"MQTT" 04 02 003C s"other")`)
		c.Write(b)
		if err := expect(c, `20 02 00 00`); err != nil {
			t.Fatal(err)
		}
	})
}
