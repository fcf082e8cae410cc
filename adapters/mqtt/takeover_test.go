package mqtt

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/adapters/adaptertest"
)

// A client that says goodbye and comes again at once loses nothing of what it has
// said, although it is here again before the broker has read it: what it published
// is published, and its will is not ([MQTT-3.14.4-3] of 5.0, [MQTT-3.1.2-10] of
// 3.1.1).
func TestGoodbyeBeforeTakeover(t *testing.T) {
	const rounds = 200
	s := newSite(t)
	sub := s.dial()
	s.say(sub, `10 L(s"MQTT" 04 02 003C s"s") 82 L(0001 s"#" 00)`)
	s.hear(sub, `20 02 00 00 90 L(0001 00)`)
	for i := range rounds {
		c := s.dial()
		present := min(i, 1)
		s.say(c, `10 L(s"MQTT" 04 04 003C s"a" s"w" s"will")`)
		s.hear(c, fmt.Sprintf(`20 02 %02x 00`, present))
		if i%2 == 0 {
			s.say(c, fmt.Sprintf(`30 L(s"t" "%03d") E0 00`, i))
		} else {
			s.say(c, fmt.Sprintf(`30 L(s"t" "%03d")`, i))
			s.say(c, `E0 00`)
		}
		c.Close()
	}
	for i := range rounds {
		if err := expect(sub, fmt.Sprintf(`30 L(s"t" "%03d")`, i)); err != nil {
			t.Fatalf("of round %d: %v", i, err)
		}
	}
	s.say(sub, `C0 00`)
	s.hear(sub, `D0 00`)
}

// So does what it says at once behind CONNECT: the connection that comes next may
// find this one without its session yet.
func TestGoodbyeBehindConnect(t *testing.T) {
	const rounds = 100
	s := newSite(t)
	sub := s.dial()
	s.say(sub, `10 L(s"MQTT" 04 02 003C s"s") 82 L(0001 s"#" 00)`)
	s.hear(sub, `20 02 00 00 90 L(0001 00)`)
	for i := range rounds {
		c := s.dial()
		s.say(c, fmt.Sprintf(`10 L(s"MQTT" 04 04 003C s"a" s"w" s"will") 30 L(s"t" "%03d") E0 00`, i))
		defer c.Close()
	}
	// In which order they are accepted is not said, but each is heard once, and no
	// will is.
	heard := make(map[string]bool)
	for range rounds {
		var p [8]byte
		if _, err := io.ReadFull(sub, p[:]); err != nil {
			t.Fatal(err)
		}
		if string(p[:5]) != "\x30\x06\x00\x01t" || heard[string(p[5:])] {
			t.Fatalf("heard %q", p)
		}
		heard[string(p[5:])] = true
	}
	s.say(sub, `C0 00`)
	s.hear(sub, `D0 00`)
}

// Of several connections of a client that come one behind the other, while the
// first takes nothing any more, the last one stays.
func TestLastOfTakeoversStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeSite(t)
		var conns []net.Conn
		var ends []<-chan error
		old, ended := p.overrun()
		for range 5 {
			c, ended := p.connect("")
			conns, ends = append(conns, c), append(ends, ended)
			time.Sleep(lastTime)
		}
		last := len(conns) - 1
		for _, c := range conns[:last] {
			go io.Copy(io.Discard, c)
		}
		<-ended
		for _, ended := range ends[:last] {
			<-ended
		}
		p.take(conns[last], typeConnack<<4)
		p.takeBacklog(conns[last])
		for _, c := range append(conns, old) {
			c.Close()
		}
		<-ends[last]
	})
}

// What has come on a connection is read before it is ended because its client has
// another one, on a socket and on what carries MQTT otherwise; and if nothing has,
// it is not waited for.
func TestSupersede(t *testing.T) {
	pipe := func(t *testing.T) (here, there net.Conn) {
		here, there = net.Pipe()
		return adaptertest.NewLine(here), there
	}
	socket := func(t *testing.T) (here, there net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if there, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return here, there
	}
	for name, dial := range map[string]func(*testing.T) (here, there net.Conn){"pipe": pipe, "socket": socket} {
		for _, said := range []string{"", `C0 00`, `E0 00`, `C0 00 E0 00`} {
			t.Run(name+"/"+said, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				here, there := dial(t)
				defer here.Close()
				k := s.server.OpenConn(there).(*conn)
				go s.say(here, `10 L(s"MQTT" 05 06 003C 00 s"a" 00 s"w" s"will")`)
				if rests, err := k.Serve(); !rests {
					t.Fatalf("it does not rest: %v", err)
				}
				s.hear(here, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
				var saying sync.WaitGroup
				if said != "" {
					saying.Go(func() { s.say(here, said) })
				}
				if name == "socket" {
					saying.Wait()
				}
				k.supersede()
				if rests, _ := k.Serve(); rests {
					t.Error("it rests")
				}
				saying.Wait()
				left := strings.HasSuffix(said, `E0 00`)
				if k.left != left || k.noWill != left {
					t.Errorf("left: %v, without a will: %v", k.left, k.noWill)
				}
				if strings.HasPrefix(said, `C0`) {
					s.hear(here, `D0 00`)
				}
				if !left {
					s.hear(here, `E0 L(8E L(1F s"`+errTakenOver.text+`"))`)
				}
			})
		}
	}
}

// A client that does not stop sending does not keep its next connection waiting.
func TestTakeoverOfFlood(t *testing.T) {
	s := newSite(t)
	old := s.dial()
	defer old.Close()
	const hello = `10 L(s"MQTT" 04 02 003C s"a")`
	s.say(old, hello)
	s.hear(old, `20 02 00 00`)
	flood := bytesOf(t, `30 L(s"t" "x")`)
	go func() {
		for {
			if _, err := old.Write(flood); err != nil {
				return
			}
		}
	}()
	c := s.dial()
	s.say(c, hello)
	s.hear(c, `20 02 00 00`)
}
