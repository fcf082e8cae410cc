// Package crashtest crashes a broker on an engine whose files are on a file
// system that forgets, and looks what is left: with [coretest.Workload] for a
// client and its ledger for a judge.
//
// The path of one trial: the workload runs; at a call that changes a file, what
// a power cut would leave of the file system then is copied ([vfs.Memory.Crash]);
// a new broker is opened on the copy; the ledger says what must be there, what
// may be, and what must not.
package crashtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A Harness says what is crashed.
type Harness struct {
	// Open opens the engine on a file system, the same every time.
	Open func(ctx context.Context, fs vfs.FS) (core.Engine, error)
	// Disorder are directories whose names the disk keeps in no order.
	Disorder []string
	// Failing is where calls fail now and then in random workloads: files whose
	// names begin with it; "" is nowhere.
	Failing string
	// Patience, if it is not 0, is the workload's.
	Patience time.Duration
	// Watch, where it is set, is told of each call that changes a file of a
	// broker that was opened after a crash, and returns what is wrong with it.
	// It is made anew for each of them, before it is opened.
	Watch func(crashed vfs.FS) func(vfs.Op) error
}

// A Report is what trials came to.
type Report struct {
	Crashes  int // brokers that were opened after a crash
	Confirms int
	// Faults are what was wrong, each with where the crash came.
	Faults []string
}

func (r *Report) add(where string, l *coretest.Ledger) {
	for _, f := range l.Faults() {
		r.fault(where, f)
	}
}

func (r *Report) fault(where, what string) {
	if len(r.Faults) < 20 {
		r.Faults = append(r.Faults, where+": "+what)
	}
}

// memory makes an empty file system.
func (h *Harness) memory() *vfs.Memory {
	m := vfs.NewMemory()
	for _, dir := range h.Disorder {
		m.Disorder(dir)
	}
	return m
}

// workload makes a workload.
func (h *Harness) workload(seed uint64, l *coretest.Ledger) *coretest.Workload {
	w := coretest.NewWorkload(seed, l)
	if h.Patience != 0 {
		w.Patience = h.Patience
	}
	return w
}

// seeds are how the file system forgets at one call: all, nothing, some.
func seeds(index int) []uint64 { return []uint64{vfs.CrashStrict, vfs.CrashKind, uint64(index) + 2} }

// Everywhere runs a workload once and crashes it at each call that changes a
// file, each time in several ways, or at a share of them: every so many.
func (h *Harness) Everywhere(ctx context.Context, seed uint64, steps, every int) (r Report) {
	memory := h.memory()
	ledger := coretest.NewLedger()
	n := 0
	crash := func(op vfs.Op) *vfs.Fault {
		for _, s := range seeds(op.Index) {
			if n++; n%every != 0 {
				continue
			}
			first := ledger.Now()
			image := memory.Crash(s)
			left := ledger.After(first, ledger.Now())
			where := fmt.Sprintf("crash before call %d, %s %s, with what seed %d leaves", op.Index, op.Kind, op.Name, s)
			r.Crashes++
			if err := h.reopen(ctx, seed+uint64(n), image, left, n%4 == 0); err != nil {
				r.fault(where, err.Error())
			}
			r.add(where, left)
		}
		return nil
	}
	_, err := h.live(ctx, h.workload(seed, ledger), &vfs.Faulty{FS: memory, Inject: crash}, steps)
	if err != nil {
		r.fault("without a crash", err.Error())
	}
	r.add("without a crash", ledger)
	r.Confirms = ledger.Confirms()
	return r
}

// reopen opens a broker on what a crash left, lets it do some work, and, where
// again is set, crashes and opens it once more.
func (h *Harness) reopen(ctx context.Context, seed uint64, image *vfs.Memory, l *coretest.Ledger, again bool) error {
	left := l
	var next *vfs.Memory
	var fs vfs.FS = image
	if h.Watch != nil {
		watch := h.Watch(image)
		fs = &vfs.Faulty{FS: image, Inject: func(op vfs.Op) *vfs.Fault {
			if err := watch(op); err != nil {
				l.Fault(err.Error())
			}
			return nil
		}}
	}
	w := h.workload(seed, l)
	e, err := h.Open(ctx, fs)
	if err != nil {
		return err
	}
	if err := w.Open(ctx, e); err != nil {
		return err
	}
	if len(l.Faults()) == 0 {
		if err := w.Begin(ctx); err != nil {
			return err
		}
		if err := w.Run(ctx, 5); err != nil {
			return err
		}
		if again {
			first := l.Now()
			next = image.Crash(vfs.CrashStrict)
			left = l.After(first, l.Now())
		}
	}
	if err := w.Close(ctx); err != nil || next == nil {
		return err
	}
	if err := h.reopen(ctx, ^seed, next, left, false); err != nil {
		return fmt.Errorf("after a second crash: %w", err)
	}
	for _, f := range left.Faults() {
		l.Fault("after a second crash: " + f)
	}
	return nil
}

// live opens a broker, runs a workload and closes it. It returns the engine's
// error, if it has one.
func (h *Harness) live(ctx context.Context, w *coretest.Workload, fs vfs.FS, steps int) (opened bool, err error) {
	e, err := h.Open(ctx, fs)
	if err != nil {
		return false, err
	}
	if err := w.Open(ctx, e); err != nil {
		return false, err
	}
	if err = w.Begin(ctx); err == nil {
		err = w.Run(ctx, steps)
	}
	if cerr := w.Close(ctx); err == nil {
		err = cerr
	}
	return true, err
}

// Random runs one workload through a number of lives, each of which ends in a
// crash at a call that the seed chooses, be it while the broker recovers from
// the one before. In some lives a call fails before.
func (h *Harness) Random(ctx context.Context, seed uint64, lives, steps int) (r Report) {
	rnd := rand.New(rand.NewPCG(seed, 0xc7a5))
	l := life{h: h, memory: h.memory(), ledger: coretest.NewLedger()}
	for n := range lives {
		where := fmt.Sprintf("seed %d, life %d", seed, n+1)
		l.steps, l.first = steps, n == 0
		if err := l.run(ctx, seed+uint64(n), rnd); err != nil {
			r.fault(where, err.Error())
		}
		r.add(where, l.ledger)
		if len(r.Faults) > 0 {
			return r
		}
		l.memory, l.ledger = l.image, l.left
		r.Crashes++
		r.Confirms = l.ledger.Confirms()
	}
	// What the last crash left has to be right, too.
	where := fmt.Sprintf("seed %d, at the end", seed)
	if err := h.reopen(ctx, seed+uint64(lives), l.memory, l.ledger, false); err != nil {
		r.fault(where, err.Error())
	}
	r.add(where, l.ledger)
	return r
}
