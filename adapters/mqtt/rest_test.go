package mqtt

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/adapters/adaptertest"
)

// An interrupted connection has something happen just before its read deadline is
// moved the next time.
type interrupted struct {
	net.Conn
	meanwhile func()
}

func (i *interrupted) SetReadDeadline(t time.Time) error {
	if f := i.meanwhile; f != nil {
		i.meanwhile = nil
		f()
	}
	return i.Conn.SetReadDeadline(t)
}

// A connection that is stopped as it is about to rest does not rest, although it
// moves the deadline by which the stop would have it wake.
func TestStopAsItRests(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(*conn)
		bye  string
	}{
		"shutdown": {(*conn).Stop, `E0 L(8B L(1F s"the server shuts down"))`},
		"takeover": {(*conn).supersede, `E0 L(8E L(1F s"` + errTakenOver.text + `"))`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, inBubble)
				here, there := net.Pipe()
				nc := &interrupted{Conn: there}
				client := adaptertest.NewLine(here)
				k := s.server.OpenConn(nc).(*conn)
				go s.say(client, `10 L(s"MQTT" 05 02 003C 00 s"a")`)
				if rests, err := k.Serve(); !rests {
					t.Fatalf("it does not rest: %v", err)
				}
				s.hear(client, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
				time.Sleep(30 * time.Second) // so that it moves its deadline
				nc.meanwhile = func() { c.stop(k) }
				go s.say(client, `C0 00`)
				if rests, _ := k.Serve(); rests {
					t.Error("it rests")
					k.Serve()
				}
				s.hear(client, `D0 00 `+c.bye)
				s.hear(client, "close")
			})
		})
	}
}

// A connection on which many pings come at once holds up no other, however long
// they take.
func TestFloodOfPings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	flood, other := s.dial(), s.dial()
	for name, c := range map[string]net.Conn{"flood": flood, "other": other} {
		s.say(c, `10 L(s"MQTT" 05 02 003C 00 s"`+name+`")`)
		s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
	}
	s.say(flood, strings.Repeat("C0 00 ", 8192))
	s.hear(flood, `D0 00 D0 00`) // more than the first one is handled
	held, goOn := make(chan struct{}), make(chan struct{})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.conn("flood").out.Append(func(b []byte) []byte { // no answer is given meanwhile
			close(held)
			<-goOn
			return b
		})
	}()
	<-held
	s.say(other, `C0 00`)
	err := expect(other, `D0 00`)
	close(goOn)
	<-answered
	if err != nil {
		t.Fatal(err)
	}
	s.hear(flood, strings.Repeat("D0 00 ", 8190))
}
