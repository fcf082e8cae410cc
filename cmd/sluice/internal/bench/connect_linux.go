package bench

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// connectMQTT connects and waits for the CONNACK. present says that the server
// had kept the session.
func (d *dialer) connectMQTT(addr string, h mqttHello) (fd int, present bool, err error) {
	fd, err = d.dial(addr)
	if err != nil {
		return 0, false, err
	}
	if err = say(fd, h.append(nil)); err == nil {
		var answer []byte
		answer, err = hear(fd, wholeMQTT)
		if err == nil && (len(answer) < 4 || answer[0] != mqttConnack || answer[3] != 0) {
			err = fmt.Errorf("answered % x", answer)
		}
		present = err == nil && answer[2]&1 == 1
	}
	if err != nil {
		unix.Close(fd)
		return 0, false, fmt.Errorf("MQTT CONNECT of %q to %s: %w", h.id, addr, err)
	}
	return fd, present, nil
}

// subscribeMQTT subscribes on a connection that has nothing under way.
func subscribeMQTT(fd int, level byte, filter string, qos byte) error {
	if err := say(fd, appendMQTTSubscribe(nil, level, 1, filter, qos)); err != nil {
		return err
	}
	answer, err := hear(fd, wholeMQTT)
	if err != nil {
		return fmt.Errorf("MQTT SUBSCRIBE to %q: %w", filter, err)
	}
	if answer[0] != mqttSuback || answer[len(answer)-1] != qos {
		return fmt.Errorf("MQTT SUBSCRIBE to %q: answered % x", filter, answer)
	}
	return nil
}

func wholeMQTT(b []byte) int {
	_, _, n, _ := nextMQTT(b)
	return n
}

// An mqttShape describes a load of MQTT publishers and subscribers.
type mqttShape struct {
	publishers, subscribers int
	// pairs gives each publisher a subscriber of its own, instead of every
	// subscriber every publisher.
	pairs bool
	qos   byte
	level byte
	size  int
	// window is how many messages may be under way to the subscribers, of all
	// publishers together; flight how many of each may be unconfirmed.
	window, flight int
	// rate of all publishers together, messages a second; 0 is as many as the
	// windows let through.
	rate int
}

// batch is how many messages the generator should handle a turn: an eighth of
// what may be under way.
func (sh mqttShape) batch() int {
	under := sh.window
	if !sh.pairs {
		under *= max(1, sh.subscribers)
	}
	if sh.qos > 0 {
		under = min(under, sh.publishers*sh.flight)
	}
	return max(1, under/8)
}

// receiveMaximum is what level 5 subscribers announce.
const receiveMaximum = 1024

// connect connects a load's publishers and subscribers to a server.
func (sh mqttShape) connect(l *loop, d *dialer, addr string) (*traffic, error) {
	if sh.size < headerBytes {
		return nil, fmt.Errorf("a payload of %d bytes has no room for the generator's header, %d bytes", sh.size, headerBytes)
	}
	l.batch = sh.batch()
	groups := 1
	if sh.pairs {
		if sh.publishers != sh.subscribers {
			return nil, errors.New("pairs need as many publishers as subscribers")
		}
		groups = sh.publishers
	}
	t := newTraffic(l, groups)
	t.exact = sh.rate > 0
	for i := range sh.subscribers {
		g := 0
		filter := "bench/0/+"
		if sh.pairs {
			g = i
			filter = fmt.Sprintf("bench/%d/%d", g, i)
		} else if sh.publishers == 1 {
			filter = "bench/0/0"
		}
		r := &mqttReceiver{load: t, level: sh.level, ledger: newLedger(sh.publishers)}
		h := mqttHello{level: sh.level, id: fmt.Sprintf("bench-sub-%d", i), receive: receiveMaximum}
		fd, _, err := d.connectMQTT(addr, h)
		if err != nil {
			return nil, err
		}
		if err := subscribeMQTT(fd, sh.level, filter, sh.qos); err != nil {
			unix.Close(fd)
			return nil, err
		}
		if _, err = l.add(fd, r); err != nil {
			return nil, err
		}
		t.groups[g].receivers = append(t.groups[g].receivers, &r.ledger)
	}
	for i := range sh.publishers {
		g := 0
		if sh.pairs {
			g = i
		}
		if _, err := sh.publisher(t, d, addr, g, i); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// publisher connects one publisher and adds it to a group.
func (sh mqttShape) publisher(t *traffic, d *dialer, addr string, g, i int) (*mqttSender, error) {
	fd, _, err := d.connectMQTT(addr, mqttHello{level: sh.level, id: fmt.Sprintf("bench-pub-%d", i)})
	if err != nil {
		return nil, err
	}
	p := &mqttSender{
		topic: newMQTTTopic(sh.level, sh.qos, fmt.Sprintf("bench/%d/%d", g, i), sh.size),
		sender: sender{
			load: t, index: uint32(i), size: sh.size,
			window: uint64(max(1, sh.window/sh.publishers)),
			sentAt: make([]int64, max(1, sh.flight)),
		},
	}
	p.encode = p.message
	if sh.qos > 0 {
		p.flight = uint64(sh.flight)
	}
	if sh.rate > 0 {
		p.every = int64(1e9) * int64(sh.publishers) / int64(sh.rate)
	}
	if p.peer, err = t.loop.add(fd, p); err != nil {
		return nil, err
	}
	t.groups[g].senders = append(t.groups[g].senders, &p.sender)
	return p, nil
}
