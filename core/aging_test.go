package core_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

const year = 365 * 24 * time.Hour

// aside keeps what a test does apart from what the broker does every 15
// seconds.
const aside = 7 * time.Second

// runAging runs f against a broker that keeps x for an hour and everything else
// for ever, whose machine's clock f can set.
func runAging(t *testing.T, trust bool, f func(w *world, set func(by time.Duration))) {
	t.Helper()
	var jump atomic.Int64
	o := core.Options{
		Policies:   []core.Policy{{Filters: []core.Filter{"x"}, Age: time.Hour}},
		Wall:       func() time.Time { return time.Now().Add(time.Duration(jump.Load())) },
		TrustClock: trust,
	}
	runWith(t, o, func(w *world) {
		time.Sleep(aside)
		f(w, func(by time.Duration) { jump.Add(int64(by)) })
	})
}

// left are the payloads that a topic still has, oldest first.
func (w *world) left(topic core.Filter) (all string) {
	w.t.Helper()
	synctest.Wait()
	p := w.peer("left")
	defer p.Client.Close()
	page, err := p.Read(context.Background(), core.ReadRequest{Filters: []core.Filter{topic}, From: core.Earliest})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range page.Messages {
		all += string(m.Payload)
	}
	return all
}

func (w *world) wantLeft(want string) {
	w.t.Helper()
	if got := w.left("x"); got != want {
		w.t.Errorf("%q is left, want %q", got, want)
	}
}

// Whatever happens to the clock while the broker runs, messages are kept for
// their time, and not much longer, and their times never go back.
func TestClockIsSetWhileRunning(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 5 * year, "back": -5 * year, "not at all": 0} {
		t.Run(name, func(t *testing.T) {
			runAging(t, false, func(w *world, set func(time.Duration)) {
				a := w.peer("a")
				a.publish("x", "1")
				time.Sleep(20 * time.Minute)
				a.publish("x", "2")
				set(by)
				time.Sleep(20 * time.Minute)
				a.publish("x", "3")
				w.wantLeft("123")
				time.Sleep(19 * time.Minute)
				w.wantLeft("123")
				time.Sleep(3 * time.Minute)
				w.wantLeft("23")
				a.publish("x", "4")
				time.Sleep(18 * time.Minute)
				set(-by)
				time.Sleep(3 * time.Minute)
				w.wantLeft("34")
				time.Sleep(58 * time.Minute)
				w.wantLeft("")
				last := time.Time{}
				for range 5 {
					a.publish("x", "5")
					page, err := a.Read(context.Background(), core.ReadRequest{Filters: []core.Filter{"x"}, From: core.FromLast(1)})
					if err != nil || len(page.Messages) != 1 || page.Messages[0].Time.Before(last) {
						t.Fatalf("a message behind one of %s: %+v %v", last, page.Messages, err)
					}
					last = page.Messages[0].Time
					set(by)
					time.Sleep(time.Second)
					set(-by)
				}
			})
		})
	}
}

// A broker that is started with a clock that is years off deletes nothing early:
// no message, no session, no id that it remembers. Time goes on from there.
func TestStartedWithAnotherClock(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 5 * year, "back": -5 * year} {
		t.Run(name, func(t *testing.T) {
			runAging(t, false, func(w *world, set func(time.Duration)) {
				ctx := context.Background()
				a := w.peer("a")
				a.publish("x", "1")
				settings := core.QueueSettings{Kind: core.KindSession, Expires: time.Hour}
				session := core.SessionQueue("s")
				k, err := a.Consume(ctx, core.Consumption{Queue: session, Create: true, Settings: &settings, Bindings: []core.Binding{{Filter: "y"}}}, a)
				if err != nil {
					t.Fatal(err)
				}
				k.Close()
				a.send(core.Envelope{Topic: "z", ID: "once", Payload: []byte("z")})
				time.Sleep(5 * time.Minute)
				set(by)
				w.restart()
				time.Sleep(aside)
				a = w.peer("a")
				a.send(core.Envelope{Topic: "z", ID: "once", Payload: []byte("z")})
				if got := w.left("z"); got != "z" {
					t.Errorf("a publish was repeated: %q", got)
				}
				time.Sleep(50 * time.Minute)
				w.wantLeft("1")
				if !a.HasQueue(session) {
					t.Error("the session is gone")
				}
				a.publish("x", "2")
				time.Sleep(10 * time.Minute)
				w.wantLeft("2")
				if a.HasQueue(session) {
					t.Error("the session is still there")
				}
				// And again, right behind the last message.
				a.publish("x", "3")
				set(by)
				w.restart()
				time.Sleep(aside)
				a = w.peer("a")
				a.publish("x", "4")
				time.Sleep(45 * time.Minute)
				w.wantLeft("234")
				time.Sleep(20 * time.Minute)
				w.wantLeft("")
			})
		})
	}
}

// Time that passed while the broker was stopped is counted once the clock has
// run evenly for an hour, if it is not too much to believe.
func TestTimeWhileStopped(t *testing.T) {
	for name, c := range map[string]struct {
		stopped time.Duration
		counted bool
	}{"a weekend": {60 * time.Hour, true}, "a month": {30 * 24 * time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			o := core.Options{Policies: []core.Policy{{Filters: []core.Filter{"x"}, Age: 48 * time.Hour}}}
			runWith(t, o, func(w *world) {
				ctx := context.Background()
				a := w.peer("a")
				a.publish("x", "1")
				settings := core.QueueSettings{Kind: core.KindSession, Expires: 48 * time.Hour}
				k, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &settings, Bindings: []core.Binding{{Filter: "y"}}}, a)
				if err != nil {
					t.Fatal(err)
				}
				k.Close()
				time.Sleep(time.Minute)
				w.close()
				time.Sleep(c.stopped)
				w.open()
				time.Sleep(aside)
				time.Sleep(59 * time.Minute)
				w.wantLeft("1")
				a = w.peer("a")
				if !a.HasQueue(core.SessionQueue("s")) {
					t.Error("the session is gone")
				}
				time.Sleep(2 * time.Minute)
				gone := w.left("x") == ""
				if gone != c.counted || a.HasQueue(core.SessionQueue("s")) == c.counted {
					t.Errorf("after an hour: message gone %v, session there %v", gone, a.HasQueue(core.SessionQueue("s")))
				}
				time.Sleep(47 * time.Hour)
				w.wantLeft("")
			})
		})
	}
}

// An operator who says that the clock is right gets what is too old deleted.
func TestTrustedClock(t *testing.T) {
	runAging(t, true, func(w *world, set func(time.Duration)) {
		a := w.peer("a")
		a.publish("x", "1")
		time.Sleep(time.Minute)
		set(30 * 24 * time.Hour)
		w.restart()
		time.Sleep(aside)
		w.wantLeft("1")
		time.Sleep(time.Minute)
		w.wantLeft("")
		a = w.peer("a")
		a.publish("x", "2")
		time.Sleep(time.Minute)
		set(2 * time.Hour)
		time.Sleep(time.Minute)
		w.wantLeft("")
		a.publish("x", "3")
		time.Sleep(time.Minute)
		set(-5 * year)
		time.Sleep(50 * time.Minute)
		w.wantLeft("3")
	})
}

// An unread engine cannot be read.
type unread struct{ *coretest.Engine }

func (unread) Read(context.Context, core.Offset, core.Offset, *core.FilterSet, *core.ReadBuffer) (core.Offset, error) {
	return 0, errors.New("read")
}

// After a kill the time of records goes on behind that of the last one, and the
// start has read none to know it, however much the log holds.
func TestTimeAfterAKill(t *testing.T) {
	for name, marked := range map[string]time.Duration{"before the first mark": 0, "behind a mark": 12 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			runAging(t, false, func(w *world, set func(time.Duration)) {
				time.Sleep(marked)
				set(year)
				w.peer("a").publish("y", "1")
				killed := w.engine.Kill()
				w.close()
				w.engine, w.o.Engine = killed, unread{killed}
				set(-year)
				w.open()
				w.peer("a").publish("y", "2")
				w.o.Engine = killed
				w.restart()
				page, err := w.peer("b").Read(t.Context(), core.ReadRequest{Filters: []core.Filter{"y"}, From: core.Earliest})
				if err != nil || len(page.Messages) != 2 {
					t.Fatalf("read %v, %v", page, err)
				}
				if d := page.Messages[1].Time.Sub(page.Messages[0].Time); d < 0 || d > time.Minute {
					t.Errorf("the second message is %v later than the first", d)
				}
			})
		})
	}
}
