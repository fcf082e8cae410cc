package mqtt

import (
	"net"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A publisher at QoS 2 whose connection breaks sends again what it has no
// PUBREC of. Wherever the first one has got to, it is in the log once.
func TestPublishedOnceOverBreaks(t *testing.T) {
	t.Parallel()
	const (
		connect = `10 L(s"MQTT" 04 00 003C s"a")`
		publish = `34 L(s"t" 0007 "x")`
		again   = `3C L(s"t" 0007 "x")`
		release = `62 02 0007`
		pubrec  = `50 02 0007`
		pubcomp = `70 02 0007`
	)
	ends := func(s *site, want core.Offset) {
		t.Helper()
		if _, end := s.options.engine.Bounds(); end != want {
			t.Errorf("the log ends at %d, want %d", end, want)
		}
	}
	first := func(s *site) net.Conn {
		t.Helper()
		c := s.dial()
		s.say(c, connect)
		s.hear(c, `20 02 00 00`)
		return c
	}
	resumed := func(s *site, what string) net.Conn {
		t.Helper()
		c := s.dial()
		s.say(c, connect)
		s.hear(c, `20 02 01 00`)
		s.say(c, what)
		return c
	}
	published := func(s *site) {
		t.Helper()
		s.poll("nothing was published", func() bool { return s.broker.Stats().Published.Load() == 1 })
	}

	t.Run("taken over while the disk is at work", func(t *testing.T) {
		t.Parallel()
		engine := coretest.NewEngine()
		hold := make(chan struct{})
		s := newSite(t, withEngine(&reopened{Engine: engine}))
		c := first(s)
		// What the session was made with is durable; from here on nothing is.
		engine.Hold = func() { <-hold }
		s.say(c, publish)
		s.poll("the publish did not arrive", func() bool {
			x := s.conn("a")
			x.mu.Lock()
			defer x.mu.Unlock()
			return x.waiting == 1
		})
		c = resumed(s, again)
		s.poll("it was not found to be the same", func() bool { return s.broker.Stats().Duplicates.Load() == 1 })
		close(hold)
		s.hear(c, pubrec)
		s.say(c, release)
		s.hear(c, pubcomp)
		ends(s, 2)
	})
	cut := func(*site) {}
	for name, stops := range map[string][2]func(*site){
		"cut twice":                 {cut, cut},
		"cut and killed":            {cut, (*site).kill},
		"killed twice":              {(*site).kill, (*site).kill},
		"restarted twice":           {(*site).restart, (*site).restart},
		"killed and then restarted": {(*site).kill, (*site).restart},
		"restarted and then killed": {(*site).restart, (*site).kill},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c := first(s)
			s.say(c, publish)
			published(s)
			c.Close()
			stops[0](s)
			// PUBREC does not get through this time either.
			duplicates := s.broker.Stats().Duplicates.Load()
			c = resumed(s, again)
			s.poll("it was not found to be the same", func() bool { return s.broker.Stats().Duplicates.Load() == duplicates+1 })
			c.Close()
			stops[1](s)
			c = resumed(s, again)
			s.hear(c, pubrec)
			s.say(c, release)
			s.hear(c, pubcomp)
			ends(s, 2)
			// Released, the identifier is free for another message.
			s.say(c, publish)
			s.hear(c, pubrec)
			ends(s, 3)
		})
	}
	t.Run("killed before the record", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		c := first(s)
		s.options.engine.(*reopened).Kill()
		s.say(c, publish)
		s.hear(c, "close")
		s.kill()
		c = resumed(s, again)
		s.hear(c, pubrec)
		ends(s, 2)
	})
}

// A client that resumes its session and subscribes anew, as most do on every
// connection, loses nothing of what waits to be sent again ([MQTT-3.8.4-4]).
func TestSubscribedAgainBeforeRedelivery(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]string{
		"same options": `82 L(0002 00 s"t" 01)`,
		"QoS 2":        `82 L(0002 00 s"t" 02)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c := s.dial()
			s.say(c, `10 L(s"MQTT" 05 00 003C L(11 0000003C) s"a") 82 L(0001 00 s"t" 01)`)
			s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000)) 90 L(0001 00 01)`)
			p := s.dial()
			s.say(p, `10 L(s"MQTT" 04 02 003C s"p") 32 L(s"t" 0001 "x") 32 L(s"t" 0002 "y")`)
			s.hear(p, `20 02 00 00 40 02 0001 40 02 0002`)
			s.hear(c, `32 L(s"t" 0002 00 "x") 32 L(s"t" 0003 00 "y")`)
			c.Close()
			// One at a time now: the second one waits while it subscribes.
			c = s.dial()
			s.say(c, `10 L(s"MQTT" 05 00 003C L(11 0000003C 21 0001) s"a")`)
			s.hear(c, `20 L(01 00 L(21 0400 22 0040 27 00110000)) 3A L(s"t" 0002 00 "x")`)
			s.say(c, again+` 40 02 0002`)
			qos := again[len(again)-2 : len(again)-1]
			s.hear(c, `90 L(0002 00 0`+qos+`) 3A L(s"t" 0003 00 "y")`)
			s.say(c, `40 02 0003`)
		})
	}
}
