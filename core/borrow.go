package core

import (
	"context"
	"fmt"
)

// Loans are who waits to run a queue's cursor; most queues never have any.
type loans struct {
	waiting []chan struct{}
	ended   chan struct{} // closed when the queue is deleted
}

// asked reports whether somebody waits to run the cursor. cursor.mu is held.
func (q *queue) asked() bool { return q.loans != nil && len(q.loans.waiting) > 0 }

// borrow lends a queue's cursor to the caller: f is called while nobody else
// delivers from the queue, with a pump of its own. It blocks until whoever runs
// the cursor has come to an end, and f may block for the disk.
func (q *queue) borrow(ctx context.Context, f func(p *pump) error) error {
	turn := make(chan struct{})
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		return q.wasDeleted()
	}
	if q.loans == nil {
		q.loans = &loans{ended: make(chan struct{})}
	}
	ended := q.loans.ended
	q.loans.waiting = append(q.loans.waiting, turn)
	q.mu.Unlock()
	q.kick()
	select {
	case <-turn:
	case <-ctx.Done():
		return q.giveUp(turn, ctx.Err())
	case <-ended:
		return q.giveUp(turn, q.wasDeleted())
	case <-q.b.pumps.ctx.Done():
		return q.giveUp(turn, ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(q.b.pumps.ctx, cancel)
	err := f(&pump{b: q.b, ctx: ctx})
	stop()
	cancel()
	q.handBack()
	return err
}

func (q *queue) wasDeleted() error {
	return fmt.Errorf("%w: the queue %q was deleted", ErrNotFound, q.name)
}

// giveUp ends the wait for the cursor.
func (q *queue) giveUp(turn chan struct{}, err error) error {
	q.mu.Lock()
	for i, c := range q.loans.waiting {
		if c == turn {
			q.loans.waiting = append(q.loans.waiting[:i:i], q.loans.waiting[i+1:]...)
			q.mu.Unlock()
			return err
		}
	}
	q.mu.Unlock()
	<-turn // it is ours after all
	q.handBack()
	return err
}

func (q *queue) handBack() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.state = cursorIdle
	q.wake()
}

// lend hands the cursor, which stays running, to who waits for it. A pump calls
// it and then keeps its hands off.
func (q *queue) lend() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.asked() {
		return false
	}
	close(q.loans.waiting[0])
	q.loans.waiting = q.loans.waiting[1:]
	return true
}
