package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A repeated message comes as often as it was to, on its grid, through restarts.
func TestScheduleRepeats(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		e := core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte("x"), DeliverAt: time.Now().Add(10 * time.Second), Schedule: &core.Schedule{Period: time.Minute, Repeat: 4}}
		p.send(e)
		start := time.Now()
		time.Sleep(5 * time.Second)
		w.kill()
		var at []string
		for range 400 {
			time.Sleep(time.Second)
			if got := w.drain("q"); got != "" {
				at = append(at, fmt.Sprint(got, int(time.Since(start).Seconds())))
			}
			switch time.Since(start) {
			case 100 * time.Second:
				w.kill()
			case 150 * time.Second: // it misses one, and then comes at 250
				w.close()
				time.Sleep(55 * time.Second)
				w.open()
			}
		}
		if got := strings.Join(at, " "); got != "x11 x71 x131 x206 x251" && got != "x10 x70 x130 x206 x250" {
			t.Fatal(got)
		}
	})
}

func TestScheduleCron(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		// The bubble begins on Saturday, 1 January 2000.
		p.send(core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte("x"), Schedule: &core.Schedule{Cron: "30 6 * * mon-fri", Delay: 10 * time.Minute, Period: time.Minute, Repeat: 1}})
		p.consumeWhere("q", "", plenty)
		time.Sleep(7 * 24 * time.Hour)
		var got []string
		for _, d := range p.deliveries() {
			if d.Attempt == 1 { // nobody settles them
				got = append(got, d.Time.Format("Mon 15:04"))
			}
		}
		if s := strings.Join(got, ", "); s != "Mon 06:40, Mon 06:41, Tue 06:40, Tue 06:41, Wed 06:40, Wed 06:41, Thu 06:40, Thu 06:41, Fri 06:40, Fri 06:41" {
			t.Fatal(s)
		}
		for _, s := range []core.Schedule{
			{Cron: "x"}, {Cron: "60 * * * *"}, {Cron: "* * 0 * *"}, {Cron: "*/0 * * * *"}, {Cron: "5-1 * * * *"}, {Cron: "0 0 31 feb *"},
			{Repeat: 1}, {Repeat: 1, Period: time.Millisecond}, {Period: -1}, {Repeat: -2}, {Cron: "* * * * *", Repeat: -1, Period: time.Hour},
		} {
			if err := p.Publish(ctx, &core.Envelope{Topic: "a", Schedule: &s}, 0); !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%+v: %v", s, err)
			}
		}
	})
}

// A clock that is set back, once or for ever, neither hastens nor delays what
// was to come after a time, across restarts too; nor do months.
func TestDelayedAndTheClock(t *testing.T) {
	runWith(t, core.Options{ReclaimEvery: 24 * time.Hour}, func(w *world) {
		var back time.Duration
		wall := func() time.Time { return time.Now().Add(-back).Round(0) }
		w.broker.SetWall(wall)
		p := w.peer("p")
		send := func(payload string, after time.Duration) {
			p.send(core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte(payload), DeliverAt: wall().Add(after)})
		}
		send("minute", time.Minute)
		send("months", 40*24*time.Hour)
		back = time.Hour
		send("two", 2*time.Minute)
		time.Sleep(59 * time.Second)
		if got := w.drain("q"); got != "" {
			t.Fatal(got)
		}
		time.Sleep(2 * time.Second)
		if got := w.drain("q"); got != "minute" {
			t.Fatalf("%q", got)
		}
		send("three", 2*time.Minute) // at 181 s
		time.Sleep(60 * time.Second)
		if got := w.drain("q"); got != "two" {
			t.Fatalf("%q", got)
		}
		time.Sleep(61 * time.Second)
		if got := w.drain("q"); got != "three" {
			t.Fatalf("%q", got)
		}
		time.Sleep(40*24*time.Hour - 200*time.Second)
		if got := w.drain("q"); got != "" {
			t.Fatalf("%q", got)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := w.drain("q"); got != "months" {
			t.Fatalf("%q", got)
		}
	})
}
