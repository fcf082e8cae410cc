package core

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

// A leftWill is one that its client has left and that is not published yet. It
// waits for its time among the delayed messages, unless what follows says
// otherwise. There are no more of them than the state has wills.
type leftWill struct {
	// kept says that the state may still have it as that of a client that is
	// connected, as the log had no room for anything else. Where the broker is
	// lost, its next start leaves it.
	kept bool
	due  time.Time // when one that is kept is
	// over says that it is due whatever its time: its session has ended.
	over bool
	// withdrawn says that it is never published.
	withdrawn bool
}

// leftBy is the will that a session has left; false where there is none. Most
// have none, and the state need not be asked.
func (d *delayed) leftBy(session string) (leftWill, bool) {
	d.leftMu.Lock()
	defer d.leftMu.Unlock()
	w, ok := d.left[session]
	return w, ok
}

// setLeft says what is known of the will that a session has left. That the session
// has ended meanwhile stays so.
func (d *delayed) setLeft(session string, w leftWill) {
	d.leftMu.Lock()
	defer d.leftMu.Unlock()
	if d.left == nil {
		d.left = make(map[string]leftWill)
	}
	w.over = d.left[session].over
	d.left[strings.Clone(session)] = w
}

// decide has a left will withdrawn soon, or published; nothing where there is none.
func (d *delayed) decide(session string, withdraw bool) {
	d.leftMu.Lock()
	w, left := d.left[session]
	if left {
		w.withdrawn = w.withdrawn || withdraw
		w.over = w.over || !withdraw
		d.left[session] = w
	}
	d.leftMu.Unlock()
	if left {
		d.owe(session)
	}
}

// forgetLeft says that the state has nothing any more of the will that a session
// had left.
func (d *delayed) forgetLeft(session string) {
	d.leftMu.Lock()
	defer d.leftMu.Unlock()
	delete(d.left, session)
}

// owe has what is known to become of a left will done soon, and again until it is.
func (d *delayed) owe(session string) {
	d.leftMu.Lock()
	if d.owed == nil {
		d.owed = make(map[string]bool)
	}
	d.owed[strings.Clone(session)] = true
	d.leftMu.Unlock()
	d.rouse()
}

// refuse says that there was no room for a will to be left.
func (d *delayed) refuse(session string, w leftWill) {
	if seeded.On(seeded.WillRefused) {
		return
	}
	w.kept = true
	d.setLeft(session, w)
	if !d.b.lives(session) {
		d.decide(session, false)
	}
	d.owe(session)
}

// leaveOwed does what is owed. It reports whether it could.
func (d *delayed) leaveOwed(ctx context.Context) bool {
	d.leftMu.Lock()
	owed := d.owed
	d.owed = nil
	d.leftMu.Unlock()
	var kept []string
	var err error
	for _, session := range slices.Sorted(maps.Keys(owed)) {
		w, left := d.leftBy(session)
		switch {
		case w.kept && !w.withdrawn:
			kept = append(kept, session)
			continue
		case left && (w.over || w.withdrawn):
			err = d.b.takeWill(ctx, session, false)
		}
		if err != nil {
			break
		}
		delete(owed, session)
	}
	for round := range slices.Chunk(kept, delayedRound) {
		if err != nil {
			break
		}
		if err = d.b.leaveKept(ctx, round); err == nil {
			for _, session := range round {
				delete(owed, session)
			}
		}
	}
	if err == nil {
		return true
	}
	if !noRoom(err) {
		d.b.log.Error("wills not published", "wills", len(owed), "err", err)
	}
	d.leftMu.Lock()
	defer d.leftMu.Unlock()
	maps.Copy(owed, d.owed)
	d.owed = owed
	return false
}

// leaveKept leaves the wills again that there was no room for: they wait among
// the delayed messages, and come at once where they are due.
func (b *Broker) leaveKept(ctx context.Context, sessions []string) error {
	d := b.delayed
	d.firing.Lock()
	defer d.firing.Unlock()
	now := time.Now()
	var heirs []heir
	for _, session := range sessions {
		w, _ := d.leftBy(session)
		if !w.kept || w.withdrawn {
			continue // somebody else has seen to it
		}
		value, err := b.engine.Get(keyWill + session)
		if err != nil {
			return err
		}
		kept, connected := parseKept(value)
		if !connected {
			d.forgetLeft(session)
			continue
		}
		if kept.delay = w.due.Sub(now); w.over || kept.delay < 0 {
			kept.delay = 0
		}
		heirs = append(heirs, heir{keptWill: kept, name: session, session: session})
	}
	if len(heirs) == 0 {
		return nil
	}
	return b.inherit(ctx, heirs)
}
