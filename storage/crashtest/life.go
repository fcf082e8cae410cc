package crashtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A life is one broker's, from its opening to the crash.
type life struct {
	h      *Harness
	memory *vfs.Memory
	ledger *coretest.Ledger
	steps  int
	first  bool

	crashed sync.Once
	image   *vfs.Memory      // what the crash left
	left    *coretest.Ledger // likewise
}

// run has the broker live until it crashes where rnd says. An error is one that
// no fault explains.
func (l *life) run(ctx context.Context, seed uint64, rnd *rand.Rand) error {
	w := l.h.workload(seed, l.ledger)
	l.crashed = sync.Once{}
	at, how := 1+rnd.IntN(6*l.steps), rnd.Uint64()
	switch rnd.IntN(5) {
	case 0:
		how = vfs.CrashStrict
	case 1:
		how = vfs.CrashKind
	case 2:
		at = 1 + rnd.IntN(40) // while it recovers
	}
	crash := func() {
		first := l.ledger.Now()
		l.image = l.memory.Crash(how)
		l.left = l.ledger.After(first, l.ledger.Now())
		w.Stop()
	}
	fails, reads, full, fault := l.fault(rnd)
	var watch func(vfs.Op) error
	if l.h.Watch != nil && !l.first {
		watch = l.h.Watch(l.memory)
	}
	failed, lacked := false, false
	fs := &vfs.Faulty{FS: l.memory}
	fs.Inject = func(op vfs.Op) *vfs.Fault {
		if watch != nil {
			if err := watch(op); err != nil {
				l.ledger.Fault(err.Error())
			}
		}
		if op.Index == at {
			l.crashed.Do(crash)
		}
		if fails >= 0 && strings.HasPrefix(op.Name, l.h.Failing) {
			if fails--; fails < 0 {
				failed = true
				w.Fail()
				return fault
			}
		}
		if full.calls > 0 && (op.Kind == vfs.KindWrite || op.Kind == vfs.KindCreate) && strings.HasPrefix(op.Name, l.h.Failing) {
			if full.from--; full.from < 0 {
				full.calls--
				lacked = true
				w.Fail()
				return &vfs.Fault{Err: syscall.ENOSPC}
			}
		}
		return nil
	}
	fs.Read = func(name string, _ int64) *vfs.Fault {
		if reads >= 0 && strings.HasPrefix(name, l.h.Failing) {
			if reads--; reads < 0 {
				failed = true
				w.Fail()
				return &vfs.Fault{Err: syscall.EIO}
			}
		}
		return nil
	}
	_, err := l.h.live(ctx, w, fs, l.steps)
	l.crashed.Do(crash)
	if failed || lacked && errors.Is(err, core.ErrStorageFull) {
		return nil
	}
	return err
}

// A fullness is a time without room: from one call on that writes, for so many.
type fullness struct{ from, calls int }

// fault says which of the calls that change a file fails, and how, which of those
// that read one, less than 0 being none, and when there is no room.
func (l *life) fault(rnd *rand.Rand) (fails, reads int, full fullness, fault *vfs.Fault) {
	fails, reads = -1, -1
	if l.h.Failing == "" {
		return fails, reads, full, nil
	}
	switch rnd.IntN(6) {
	case 0:
		fails, fault = rnd.IntN(2*l.steps), &vfs.Fault{Err: syscall.EIO, Short: rnd.IntN(300), Drop: true}
	case 1:
		fails, fault = rnd.IntN(2*l.steps), &vfs.Fault{Err: syscall.ENOSPC, Short: rnd.IntN(300), Drop: true}
	case 2:
		reads = rnd.IntN(20)
	case 3:
		full = fullness{rnd.IntN(l.steps), 1 + rnd.IntN(l.steps/4)}
	}
	return fails, reads, full, fault
}

// Fault runs a workload in which one call that changes a file fails, cuts the
// power when it has ended, and checks what is left. reached says which call that
// was, if it came to it.
func (h *Harness) Fault(ctx context.Context, seed uint64, steps, index int, fault vfs.Fault) (r Report, reached string) {
	memory, ledger := h.memory(), coretest.NewLedger()
	w := h.workload(seed, ledger)
	_, err := h.live(ctx, w, &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
		if op.Index != index {
			return nil
		}
		reached = fmt.Sprintf("%s %s", op.Kind, op.Name)
		w.Fail()
		return &fault
	}}, steps)
	where := fmt.Sprintf("%v at call %d, %s, short %d", fault.Err, index, reached, fault.Short)
	if err != nil && (reached == "" || !errors.Is(err, fault.Err) && !errors.Is(err, core.ErrStorage) && !errors.Is(err, core.ErrStorageFull)) {
		r.fault(where, "the workload ended with "+err.Error())
	}
	r.add(where, ledger)
	r.Crashes, r.Confirms = 1, ledger.Confirms()
	now := ledger.Now()
	left := ledger.After(now, now)
	if err := h.reopen(ctx, ^seed, memory.Crash(vfs.CrashStrict), left, false); err != nil {
		r.fault(where, err.Error())
	}
	r.add(where, left)
	return r, reached
}
