package stomp

import (
	"sync"

	"github.com/sluicemq/sluice/core"
)

// receipts are the RECEIPT frames that a client waits for, in the order of the
// frames that asked. One leaves when what its frame did is durable and all
// before it have left, so that a receipt speaks for everything before it
// (STOMP 1.2 "RECEIPT").
type receipts struct {
	mu    sync.Mutex // guards what follows
	moved sync.Cond  // signalled when some have left, or ended is set
	limit int
	// ring holds the n receipts from first on; the receipt with the number k
	// stands at k modulo its length, which is a power of two.
	ring  []receipt
	first core.Receipt
	n     int
	ended bool
}

type receipt struct {
	id   []byte
	done bool
}

// keepReceipts is how many places a ring keeps while it is empty.
const keepReceipts = 64

func newReceipts(limit int) *receipts {
	r := &receipts{limit: max(limit, 1), first: 1}
	r.moved.L = &r.mu
	return r
}

// add makes the next receipt, and waits while as many as the limit allows are
// outstanding. It reports false once the connection has ended.
func (r *receipts) add(id string) (number core.Receipt, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.n >= r.limit && !r.ended {
		r.moved.Wait()
	}
	if r.ended {
		return 0, false
	}
	if r.n == len(r.ring) {
		larger := make([]receipt, max(2*len(r.ring), 8))
		for i := range r.n {
			k := r.first + core.Receipt(i)
			larger[int(k)&(len(larger)-1)] = *r.at(k)
		}
		r.ring = larger
	}
	number = r.first + core.Receipt(r.n)
	r.n++
	p := r.at(number)
	p.id, p.done = append(p.id[:0], id...), false
	return number, true
}

func (r *receipts) at(k core.Receipt) *receipt { return &r.ring[int(k)&(len(r.ring)-1)] }

// finish marks a receipt as done and appends the frames of those that may
// leave now.
func (r *receipts) finish(dst []byte, k core.Receipt, v version) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k-r.first >= core.Receipt(r.n) {
		return dst
	}
	r.at(k).done = true
	for r.n > 0 && r.at(r.first).done {
		dst = appendReceipt(dst, r.at(r.first).id, v)
		r.first++
		r.n--
		r.moved.Broadcast()
	}
	if r.n == 0 && len(r.ring) > keepReceipts {
		r.ring = nil
	}
	return dst
}

// drop takes back the receipt that was made last: its frame is refused.
func (r *receipts) drop(k core.Receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k != 0 && r.n > 0 && k == r.first+core.Receipt(r.n-1) {
		r.n--
		r.moved.Broadcast()
	}
}

// idOf copies the id of a receipt that is outstanding.
func (r *receipts) idOf(k core.Receipt) (id []byte, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k-r.first >= core.Receipt(r.n) {
		return nil, false
	}
	return append([]byte(nil), r.at(k).id...), true
}

// wait returns when none is outstanding, or the connection has ended.
func (r *receipts) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.n > 0 && !r.ended {
		r.moved.Wait()
	}
}

// end makes add refuse and wait return.
func (r *receipts) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.moved.Broadcast()
}
