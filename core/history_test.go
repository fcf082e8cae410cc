package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

// The checker finds each fault that is put into a good history.
func TestHistoryFindsFaults(t *testing.T) {
	good := func(h *coretest.History) {
		h.Ordered = true
		h.Published("a1", "a")
		h.Published("a2", "a")
		h.Published("b", "")
		h.Delivered("x", "a1", 1)
		h.Delivered("y", "b", 1)
		h.Left("y")
		h.Delivered("x", "b", 2)
		h.Settling("b", false)
		h.Delivered("x", "b", 3)
		h.Settling("a1", true)
		h.Settled("a1")
		h.Settling("b", true)
		h.Dead("b")
		h.Delivered("z", "a2", 1)
		h.Settling("a2", true)
	}
	for name, bad := range map[string]func(*coretest.History){
		"":             func(*coretest.History) {},
		"which nobody": func(h *coretest.History) { h.Delivered("x", "c", 1) },
		"after it was": func(h *coretest.History) { h.Delivered("x", "a1", 2) },
		"is lost":      func(h *coretest.History) { h.Published("c", "") },
		"2 times":      func(h *coretest.History) { h.Dead("b") },
		"held it":      func(h *coretest.History) { h.Published("c", ""); h.Delivered("x", "c", 1); h.Delivered("y", "c", 2) },
		"after attempt": func(h *coretest.History) {
			h.Published("c", "")
			h.Delivered("x", "c", 1)
			h.Left("x")
			h.Delivered("y", "c", 1)
		},
		"had at most":    func(h *coretest.History) { h.Published("c", ""); h.Delivered("x", "c", 2) },
		"the same key":   func(h *coretest.History) { h.Published("c", "c"); h.Published("d", "c"); h.Delivered("x", "d", 1) },
		"was accepted":   func(h *coretest.History) { h.Dead("a1") },
		"is still there": func(h *coretest.History) { h.End("a1") },
	} {
		h := coretest.NewHistory()
		good(h)
		bad(h)
		faults := strings.Join(h.End(), "; ")
		if (name == "") != (faults == "") || !strings.Contains(faults, name) {
			t.Errorf("%q: %s", name, faults)
		}
	}
}

// A queue with selectors, priorities or order by key does what the naive one
// does: a list that is searched from the front, through settlements, consumers
// that come and go, bindings that come, are replaced and end, kills and restarts,
// and purges; by priority, the highest of what may go comes first.
func TestQueueAsTheNaiveOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(rapid.IntRange(0, 1<<20), 5, 60).Draw(rt, "script")
		kind := rapid.IntRange(0, 2).Draw(rt, "kind")
		var fault error
		synctest.Test(t, func(t *testing.T) { fault = runNaive(t, kind, script) })
		if fault != nil {
			rt.Fatal(fault)
		}
	})
}

// A naive queue is a list of messages.
type naiveQueue struct {
	kind     int // 0 plain, 1 by priority, 2 ordered by key
	messages []*naiveMessage
}

type naiveMessage struct {
	name, key, color string
	level            int
	holder           *naiveConsumer
	attempts         int
	gone             bool
}

type naiveConsumer struct {
	*peer
	k      *core.Consumer
	name   string
	color  string // "" is every color
	credit int
	held   map[core.Offset]*naiveMessage
}

// next reports whether the queue would deliver a message now.
func (q *naiveQueue) next(m *naiveMessage) bool {
	if m.gone || m.holder != nil {
		return false
	}
	for _, o := range q.messages {
		if o == m {
			return true
		}
		if q.kind == 2 && o.key == m.key && !o.gone {
			return false
		}
	}
	return false
}

func runNaive(t *testing.T, kind int, script []int) (fault error) {
	w := &world{t: t, engine: coretest.NewEngine()}
	w.o.Engine = w.engine
	w.open()
	defer w.close()
	q := &naiveQueue{kind: kind}
	h := coretest.NewHistory()
	h.Ordered = kind == 2
	pub := w.peer("pub")
	pub.declare("q", core.QueueSettings{Priority: kind == 1, Ordered: kind == 2, MaxAttempts: core.Unlimited, Lease: core.Unlimited})
	pub.declare("q.dead", core.QueueSettings{})
	var consumers []*naiveConsumer
	number, bound := 0, false
	fail := func(format string, args ...any) {
		if fault == nil {
			fault = fmt.Errorf(format, args...)
		}
	}
	// collect takes in what was delivered and looks whether more should have been.
	collect := func() {
		lowest := make(map[*naiveConsumer]int) // of what each was given for its first time
		for moved := true; moved; {
			moved = false
			for _, c := range consumers {
				for _, d := range c.deliveries() {
					moved = true
					h.Delivered(c.name, string(d.Payload), int(d.Attempt))
					i := slices.IndexFunc(q.messages, func(m *naiveMessage) bool { return m.name == string(d.Payload) })
					if i < 0 {
						fail("%s is unknown", d.Payload)
						return
					}
					m := q.messages[i]
					if l, some := lowest[c]; kind == 1 && m.attempts == 0 {
						if some && l < m.level {
							fail("%s of priority %d came behind one of %d", m.name, m.level, l)
						}
						lowest[c] = m.level
					}
					m.attempts++
					if int(d.Attempt) != m.attempts {
						fail("%s has attempt %d, not %d", m.name, d.Attempt, m.attempts)
					}
					if c.color != "" && c.color != m.color {
						fail("%s of color %s came to who wants %s", m.name, m.color, c.color)
					}
					if !q.next(m) {
						fail("%s came and may not yet", m.name)
					}
					m.holder = c
					c.held[d.Offset] = m
					c.credit--
				}
			}
		}
		for _, m := range q.messages {
			if !q.next(m) {
				continue
			}
			for _, c := range consumers {
				if l, some := lowest[c]; some && m.attempts == 0 && m.level > l && (c.color == "" || c.color == m.color) {
					fail("%s of priority %d waits, and one of %d came to %s", m.name, m.level, l, c.name)
				}
				if c.credit > 0 && (c.color == "" || c.color == m.color) {
					fail("%s waits, and %s wants it", m.name, c.name)
				}
			}
		}
	}
	lostAll := func() {
		for _, c := range consumers {
			h.Quit(c.name)
		}
		for _, m := range q.messages {
			m.holder = nil
		}
		consumers = nil
	}
	for _, op := range script {
		arg := op / 16
		switch op % 16 {
		default: // publish
			number++
			m := &naiveMessage{name: fmt.Sprint(number), key: []string{"x", "y", "z"}[arg%3], color: []string{"red", "blue"}[arg/3%2], level: arg / 6 % 10}
			e := colored("q", m.color, m.name)
			e.Key, e.Priority = m.key, core.PriorityOf(m.level)
			if arg/60%2 == 1 { // over a binding, which may not be there
				e.Topic = "t"
			}
			if pub.send(e); e.Topic == "t" && !bound {
				continue
			}
			h.Published(m.name, m.key)
			q.messages = append(q.messages, m)
		case 0, 1: // a consumer comes
			if len(consumers) == 4 {
				continue
			}
			number++
			c := &naiveConsumer{peer: w.peer("c"), name: fmt.Sprint("c", number), color: []string{"", "red", "blue"}[arg%3], credit: arg / 3 % 4, held: make(map[core.Offset]*naiveMessage)}
			where := ""
			if c.color != "" {
				where = fmt.Sprintf("color = '%s'", c.color)
			}
			consumers = append(consumers, c)
			c.k = c.consumeWhere("q", where, core.Credit{Messages: c.credit, Bytes: 1 << 30})
		case 2: // one goes
			if len(consumers) == 0 {
				continue
			}
			i := arg % len(consumers)
			c := consumers[i]
			consumers = slices.Delete(consumers, i, i+1)
			h.Quit(c.name)
			for _, m := range c.held {
				m.holder = nil
			}
			c.k.Close()
		case 3, 4, 5, 6, 7: // settle, with new credit perhaps
			if len(consumers) == 0 {
				continue
			}
			c := consumers[arg%len(consumers)]
			arg /= len(consumers)
			for at, m := range c.held {
				if arg%2 == 0 && at != slices.Min(offsetsOf(c.held)) {
					continue
				}
				outcome := []core.Outcome{core.Accepted, core.Accepted, core.Released, core.Rejected}[arg/2%4]
				h.Settling(m.name, outcome != core.Released)
				delete(c.held, at)
				m.holder, m.gone = nil, outcome != core.Released
				more := arg / 8 % 3
				c.credit += more
				err := c.k.Settle(at, outcome, core.SettleOptions{Delay: core.NoDelay, Credit: core.Credit{Messages: more, Bytes: 0}})
				if err != nil {
					fail("%s not settled: %v", m.name, err)
				}
				break
			}
		case 8: // credit
			if len(consumers) == 0 {
				continue
			}
			c := consumers[arg%len(consumers)]
			c.credit++
			c.k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
		case 9: // time passes: positions are journaled
			time.Sleep(50 * time.Millisecond)
		case 10:
			synctest.Wait()
			lostAll()
			if arg%2 == 0 {
				time.Sleep(50 * time.Millisecond) // settlements are journaled then
				w.kill()
			} else {
				w.restart()
			}
			pub = w.peer("pub")
		case 12: // a binding comes, is replaced, or ends
			bd := core.Binding{Filter: "t", Settlement: []core.Settlement{core.SettleNever, core.SettleAlways}[arg%2]}
			var err error
			if bound && arg/2%2 == 0 {
				bound, err = false, pub.UnbindQueue(context.Background(), "q", bd)
			} else {
				bound, err = true, pub.BindQueue(context.Background(), "q", bd, core.Latest)
			}
			if err != nil {
				fail("%v", err)
			}
		case 11: // some are purged
			color := []string{"red", "blue"}[arg%2]
			if _, err := pub.Purge(context.Background(), "q", core.Selection{Where: fmt.Sprintf("color = '%s'", color)}, false); err != nil && !errors.Is(err, core.ErrNotFound) {
				fail("%v", err)
			}
			for _, m := range q.messages {
				if m.color == color && m.holder == nil && !m.gone {
					h.Settling(m.name, true)
					m.gone = true
				}
			}
		}
		if collect(); fault != nil {
			return fault
		}
	}
	for _, c := range consumers {
		h.Quit(c.name)
		c.k.Close()
	}
	page, err := w.peer("look").Browse(context.Background(), "q", core.ReadRequest{Limit: 1000})
	if err != nil {
		return err
	}
	var rest []string
	for _, d := range page.Messages {
		rest = append(rest, string(d.Payload))
	}
	var want []string
	for _, m := range q.messages {
		if !m.gone {
			want = append(want, m.name)
		}
	}
	if !slices.Equal(rest, want) {
		return fmt.Errorf("the queue holds %v, want %v", rest, want)
	}
	dead, err := w.peer("look").Browse(context.Background(), "q.dead", core.ReadRequest{Limit: 1000})
	if err != nil {
		return err
	}
	for _, d := range dead.Messages {
		h.Dead(string(d.Payload))
	}
	if faults := h.End(rest...); len(faults) > 0 {
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

func offsetsOf(m map[core.Offset]*naiveMessage) []core.Offset {
	var all []core.Offset
	for at := range m {
		all = append(all, at)
	}
	return all
}
