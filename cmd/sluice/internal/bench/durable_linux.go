package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// mqttIdleScenario measures what an MQTT connection costs that says nothing, and
// how fast such come: some of them one by one, the others with so many of them at
// a time as mosquitto's listener keeps without losing one.
func mqttIdleScenario(name string, connections int, most float64) scenario {
	const atATime = 64
	s := idleScenario(name, fmt.Sprintf("%d connections that say nothing", connections), connections, most, func(ctx context.Context, r *rig, n int, out *result) ([]int, error) {
		alone := n / 10
		hello := func(i int) mqttHello { return mqttHello{level: 4, id: fmt.Sprintf("bench-idle-%d", i)} }
		start := time.Now()
		fds, err := r.dialer.ramp(ctx, r.mqtt, alone, 1, hello)
		if err != nil {
			return fds, err
		}
		out.add("connects, one by one", "/s", float64(alone)/time.Since(start).Seconds())
		cpu, err := cpuOf(r.pid())
		if err != nil {
			return fds, err
		}
		own, start := ownCPU(), time.Now()
		more, err := r.dialer.ramp(ctx, r.mqtt, n-alone, atATime, func(i int) mqttHello { return hello(alone + i) })
		fds = append(fds, more...)
		if err != nil {
			return fds, err
		}
		took, own := time.Since(start), ownCPU()-own
		spent, err := cpuOf(r.pid())
		each := func(d time.Duration) float64 { return microseconds(d) / float64(n-alone) }
		out.add("connects", "/s", float64(n-alone)/took.Seconds())
		out.addLower("server CPU", "µs/connect", each(spent-cpu))
		out.addAside("generator CPU", "µs/connect", each(own))
		return fds, err
	})
	s.rivals = []string{mosquittoName}
	s.goals = append(s.goals, goal{reading: "connects", times: 1})
	return s
}

// oneByOne connects one after the other.
func oneByOne(open func(r *rig, i int) (fd int, err error)) connecting {
	return func(ctx context.Context, r *rig, n int, out *result) (fds []int, err error) {
		cpu, err := cpuOf(r.pid())
		if err != nil {
			return nil, err
		}
		start := time.Now()
		for i := range n {
			if err := ctx.Err(); err != nil {
				return fds, err
			}
			fd, err := open(r, i)
			if err != nil {
				return fds, fmt.Errorf("connection %d: %w", i, err)
			}
			fds = append(fds, fd)
		}
		took := time.Since(start)
		spent, err := cpuOf(r.pid())
		out.add("connects, one by one", "/s", float64(n)/took.Seconds())
		out.addLower("server CPU", "µs/connect", microseconds(spent-cpu)/float64(n))
		return fds, err
	}
}

// sseIdleScenario measures what a stream of events costs that has none.
func sseIdleScenario() scenario {
	return idleScenario("sse-idle", "10,000 server-sent event streams without an event", 10_000, 20, oneByOne(func(r *rig, i int) (int, error) {
		fd, err := r.dialer.dial(r.http)
		if err != nil {
			return 0, err
		}
		if err := new(sseReceiver).open(fd, r.http, fmt.Sprintf("bench/idle/%d", i)); err != nil {
			unix.Close(fd)
			return 0, err
		}
		return fd, nil
	}))
}

// wsIdleScenario measures what a WebSocket costs that is subscribed and is sent
// nothing.
func wsIdleScenario() scenario {
	return idleScenario("ws-idle", "10,000 WebSockets with a subscription each that is sent nothing", 10_000, 12, oneByOne(func(r *rig, i int) (int, error) {
		fd, err := r.dialer.dial(r.http)
		if err != nil {
			return 0, err
		}
		if err := new(wsReceiver).open(fd, r.http, fmt.Sprintf("bench/idle/%d", i)); err != nil {
			unix.Close(fd)
			return 0, err
		}
		return fd, nil
	}))
}

// A connecting opens n connections to the rig's server, and says how fast. It
// returns those that are open also where it fails.
type connecting func(ctx context.Context, r *rig, n int, out *result) (fds []int, err error)

// idleScenario measures what a connection costs that says nothing; most is the
// goal in KiB.
func idleScenario(name, about string, connections int, most float64, connect connecting) scenario {
	return scenario{name: name, about: about, goals: []goal{{reading: "resident", bound: most}}, run: func(ctx context.Context, r *rig) (result, error) {
		var out result
		n := r.scaled(connections)
		if err := raiseFiles(uint64(n) + 200); err != nil {
			return out, err
		}
		before, err := settledResident(r.pid(), r.settle)
		if err != nil {
			return out, err
		}
		fds, err := connect(ctx, r, n, &out)
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		if err != nil {
			return out, err
		}
		// An idle server gives back what the connects have left, after some
		// seconds.
		time.Sleep(12 * r.settle)
		after, err := settledResident(r.pid(), r.settle)
		if err != nil {
			return out, err
		}
		out.addLower("resident", "KiB/conn", float64(after-before)/1024/float64(n))
		return out, nil
	}}
}

// backlogScenario measures what a session costs that is away while messages
// come for it, and how fast it gets them when it is back.
func backlogScenario() scenario {
	return scenario{name: "mqtt-backlog", about: "1,000,000 messages for a session that is away", rivals: []string{mosquittoName}, goals: []goal{{reading: "memory growth", bound: 100}, {reading: "drained", bound: 100_000}}, run: func(ctx context.Context, r *rig) (result, error) {
		var out result
		const publishers = 10
		each := r.scaled(1_000_000) / publishers
		away := mqttHello{level: 5, id: "bench-away", keep: true, receive: receiveMaximum}
		fd, _, err := r.dialer.connectMQTT(r.mqtt, away)
		if err != nil {
			return out, err
		}
		err = subscribeMQTT(fd, 5, "bench/0/+", 1)
		if err == nil {
			err = say(fd, []byte{mqttDisconnect, 0})
		}
		unix.Close(fd)
		if err != nil {
			return out, err
		}
		before, err := settledResident(r.pid(), r.settle)
		if err != nil {
			return out, err
		}
		queued, err := r.fill(ctx, publishers, each, 256)
		if err != nil {
			return out, err
		}
		after, err := settledResident(r.pid(), r.settle)
		if err != nil {
			return out, err
		}
		out.addLower("memory growth", "MiB", float64(after-before)/(1<<20))
		out.add("queued", "/s", float64(queued.n)/queued.time.Seconds())

		l, err := newLoop()
		if err != nil {
			return out, err
		}
		defer l.close()
		cpu, err := cpuOf(r.pid())
		if err != nil {
			return out, err
		}
		start := time.Now()
		fd, present, err := r.dialer.connectMQTT(r.mqtt, away)
		if err != nil {
			return out, err
		}
		if !present {
			out.Faults = append(out.Faults, "the session was forgotten")
		}
		s, err := r.receive(ctx, l, fd, 5, publishers, queued.n)
		took := time.Since(start)
		if err != nil {
			return out, err
		}
		spent, err := cpuOf(r.pid())
		if err != nil {
			return out, err
		}
		out.add("drained", "/s", float64(s.got)/took.Seconds())
		out.addLower("server CPU, drained", "µs/msg", microseconds(spent-cpu)/float64(s.got))
		out.Faults = append(out.Faults, s.faults(queued.n)...)
		return out, nil
	}}
}

// restartScenario measures how long a server takes to serve again that was
// killed, and checks that it has all that it had confirmed.
func restartScenario() scenario {
	return scenario{name: "mqtt-restart", about: "killed with 5,000,000 records, started again", starts: true, goals: []goal{{reading: "killed to confirmed", bound: 2}}, run: func(ctx context.Context, r *rig) (result, error) {
		var out result
		const publishers = 50
		filled, err := r.fill(ctx, publishers, r.scaled(5_000_000)/publishers, 512)
		if err != nil {
			return out, err
		}
		r.kill()
		begin := time.Now()
		if err := r.server.run(ctx, r.dialer); err != nil {
			return out, err
		}
		fd, _, err := r.dialer.connectMQTT(r.mqtt, mqttHello{level: 4, id: "bench-after"})
		if err != nil {
			return out, err
		}
		defer unix.Close(fd)
		topic := newMQTTTopic(4, 1, "after", 2)
		if err := say(fd, append(topic.append(nil, 1), "ok"...)); err != nil {
			return out, err
		}
		if _, err := hear(fd, wholeMQTT); err != nil {
			return out, fmt.Errorf("publish after the restart: %w", err)
		}
		out.addLower("killed to confirmed", "s", time.Since(begin).Seconds())
		out.addLower("killed to connected", "s", r.began.Seconds())

		l, err := newLoop()
		if err != nil {
			return out, err
		}
		defer l.close()
		reader, _, err := r.dialer.connectMQTT(r.mqtt, mqttHello{level: 4, id: "bench-replay"})
		if err != nil {
			return out, err
		}
		// The answer to this SUBSCRIBE may come behind the first messages.
		start := time.Now()
		if err := say(reader, appendMQTTSubscribe(nil, 4, 1, "$replay/earliest/bench/0/+", 0)); err != nil {
			unix.Close(reader)
			return out, err
		}
		s, err := r.receive(ctx, l, reader, 4, publishers, filled.n)
		if err != nil {
			return out, fmt.Errorf("replay after the restart: %w", err)
		}
		out.add("replayed", "/s", float64(s.got)/time.Since(start).Seconds())
		out.Faults = s.faults(filled.n)
		return out, nil
	}}
}

// A filling is what fill did.
type filling struct {
	n    uint64
	time time.Duration
}

// fill publishes each messages from a number of publishers, all confirmed.
func (r *rig) fill(ctx context.Context, publishers, each, flight int) (filling, error) {
	l, err := newLoop()
	if err != nil {
		return filling{}, err
	}
	defer l.close()
	l.longest = r.pause
	shape := mqttShape{publishers: publishers, qos: 1, level: 4, size: r.size, window: 1 << 30, flight: flight}
	ps, err := shape.connect(l, r.dialer, r.mqtt)
	if err != nil {
		return filling{}, err
	}
	for _, p := range ps.groups[0].senders {
		p.quota = uint64(each)
	}
	start := now()
	var last uint64
	moved := start
	err = l.run(func() (bool, error) {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		_, n := ps.counts()
		if n != last {
			last, moved = n, l.now
		} else if time.Duration(l.now-moved) > hungAfter {
			return true, fmt.Errorf("the server has stopped confirming after %d messages", n)
		}
		return n == uint64(publishers*each), ps.produce(l.now)
	})
	return filling{n: uint64(publishers * each), time: time.Duration(now() - start)}, err
}

// receive receives from one connection until n messages have come, or none
// comes for a while.
func (r *rig) receive(ctx context.Context, l *loop, fd int, level byte, publishers int, n uint64) (*mqttReceiver, error) {
	s := &mqttReceiver{load: newTraffic(l, 0), level: level, ledger: newLedger(publishers)}
	if _, err := l.add(fd, s); err != nil {
		unix.Close(fd)
		return nil, err
	}
	var last uint64
	moved := now()
	err := l.run(func() (bool, error) {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		if s.got != last {
			last, moved = s.got, l.now
		}
		return s.got >= n || time.Duration(l.now-moved) > hungAfter, nil
	})
	return s, err
}

// faults of a receiver that was to get n messages.
func (s *mqttReceiver) faults(n uint64) (f []string) {
	if s.got < n || s.lost > 0 {
		f = append(f, fmt.Sprintf("lost %d of %d messages", max(s.lost, sub(n, s.got)), n))
	}
	if s.late > 0 {
		f = append(f, fmt.Sprintf("%d messages repeated or out of order", s.late))
	}
	return f
}
