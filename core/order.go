package core

import "slices"

// Order by key: of the messages of one key, one at a time is with a consumer.
// Those behind it wait in the queue's outstanding messages until it has been
// settled, so what was released, or waits for its backoff, is not overtaken by
// what has the same key. keys lists the outstanding messages of each key, in
// order; the first of them is the one that may go.

// blocked reports whether an earlier message of the same key is outstanding, or a
// later one, from before a rewinding, is with a consumer. cursor.mu is held.
func (q *queue) blocked(e *Envelope, at Offset) bool {
	if !q.settings.Ordered || e.Key == "" || len(q.keys[e.Key]) == 0 {
		return false
	}
	first := q.keys[e.Key][0]
	if first < at {
		return true
	}
	o := q.out.find(first)
	return o == nil || o.state != entryWaiting && o.state != entryParked
}

// keep has a message of an ordered queue that nobody takes now wait among the
// outstanding ones, so that those behind it know of it; false if the queue is
// not ordered, or has no room for it. cursor.mu is held.
func (q *queue) keep(d *Delivery, v verdict) bool {
	if !q.settings.Ordered || d.Key == "" || q.out.len() >= q.b.limits.Outstanding {
		return false
	}
	e := outEntry{offset: d.Offset, attempts: d.Attempt - 1, state: entryWaiting, size: q.sizeOf(d), ends: q.endOf(d.Envelope)}
	if v == unwanted {
		e.seen = q.wave
	}
	q.waiting++
	q.add(e)
	q.follow(d.Envelope, d.Offset)
	return true
}

// follow notes that a message is outstanding. cursor.mu is held.
func (q *queue) follow(e *Envelope, at Offset) {
	if !q.settings.Ordered || e.Key == "" {
		return
	}
	if q.keys == nil {
		q.keys, q.keyOf = make(map[string][]Offset), make(map[Offset]string)
	}
	l, ok := q.keys[e.Key]
	key := e.Key
	if ok {
		key = q.keyOf[l[0]]
	} else {
		key = string([]byte(key)) // the envelope's is only lent
	}
	i, _ := slices.BinarySearch(l, at)
	l = slices.Insert(l, i, at)
	q.keys[key] = l
	q.keyOf[at] = key
	if l[0] == at {
		q.park(key)
	}
}

// unfollow lets the next message of a key go. cursor.mu is held.
func (q *queue) unfollow(at Offset) {
	key, ok := q.keyOf[at]
	if !ok {
		return
	}
	delete(q.keyOf, at)
	l := q.keys[key]
	if i := slices.Index(l, at); i == 0 {
		l = l[1:]
	} else {
		l = slices.Delete(l, i, i+1)
	}
	if len(l) == 0 {
		delete(q.keys, key)
		return
	}
	q.keys[key] = l
	q.unpark(l[0])
}

// unpark lets the message at an offset go if it was behind another one of its
// key. cursor.mu is held.
func (q *queue) unpark(at Offset) {
	e := q.out.find(at)
	if e == nil || e.state != entryParked {
		return
	}
	e.state = entryWaiting
	q.waiting++
	q.enroll(e)
}

// behindKey reports whether an earlier message of an outstanding one's key is
// outstanding, too. cursor.mu is held.
func (q *queue) behindKey(at Offset) bool {
	key, ok := q.keyOf[at]
	return ok && q.keys[key][0] != at
}

// park has the messages of a key wait behind its first one.
// cursor.mu is held.
func (q *queue) park(key string) {
	for _, at := range q.keys[key][1:] {
		if e := q.out.find(at); e != nil && e.state == entryWaiting {
			e.state = entryParked
			q.waiting--
			q.touch(at)
		}
	}
}

// readKeys notes the keys of what was outstanding when the broker was opened.
// Whoever runs the cursor calls it before the first delivery.
func (p *pump) readKeys(q *queue) bool {
	out := q.stands().out
	for i := range out {
		r, err := p.readOne(out[i].offset)
		if err != nil {
			// What is read on before its keys are known could overtake.
			p.failed(&q.cursor, out[i].offset, err)
			return false
		}
		var e Envelope
		if r == nil || r.Envelope(&e) != nil {
			continue // redeliver tells of it
		}
		q.mu.Lock()
		if o := q.out.find(out[i].offset); o != nil && q.keyOf[o.offset] == "" {
			if o.state == entryWaiting && q.blocked(&e, o.offset) {
				o.state = entryParked
				q.waiting--
				q.touch(o.offset)
			}
			q.follow(&e, out[i].offset)
		}
		q.mu.Unlock()
	}
	q.mu.Lock()
	q.unread = false
	q.mu.Unlock()
	return true
}
