package seglog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// salvageName is the directory of a state that is being put together.
const salvageName = "state.salvage"

// salvage keeps what can be read of the state and applies to it what the log
// has, which is newer.
func (m *mender) salvage(ctx context.Context) error {
	dir := path.Join(m.log.o.Dir, salvageName)
	if err := pebbleFS(m.fs).RemoveAll(dir); err != nil {
		return err
	}
	to, err := openState(dir, m.fs, m.log.log)
	if err != nil {
		return err
	}
	keys := 0
	if from := m.log.state; from != nil {
		var lost []string
		if keys, lost, err = from.copyReadable(to); err != nil {
			return errors.Join(err, to.close())
		}
		for _, l := range lost {
			m.did("%s: %s", stateDirName, l)
		}
	}
	applied := 0
	err = m.log.eachChanged(ctx, 0, func(h *frameHeader, section []byte) error {
		applied++
		return to.apply(section, h.commit, h.base, h.end())
	}, func(uint64, uint64) {})
	j := &m.recovery.judge
	commit, next := max(j.last, 1), max(j.next, 1)
	switch from := m.log.state; {
	case err != nil:
	case from != nil && from.noted:
		err = to.note(from.freed, commit, next)
	default:
		err = to.mark(commit, next)
	}
	if err == nil {
		err = to.sync()
	}
	if err = errors.Join(err, to.close()); err != nil {
		return err
	}
	m.did("%s: %d keys kept, %d commits of the log applied; the old files are put aside", stateDirName, keys, applied)
	if s := m.log.state; s != nil {
		m.log.state = nil
		if err := s.close(); err != nil {
			return err
		}
	}
	aside, err := m.log.asideName(m.log.stateDir())
	if err != nil {
		return err
	}
	if err := writeSwap(m.fs, m.log.o.Dir, swapOut, path.Base(aside)); err != nil {
		return err
	}
	_, err = finishSwap(m.fs, m.log.o.Dir)
	return err
}

// copyReadable copies the keys that can be read to another state. Where a block
// cannot be, it goes on at the next key that can be guessed.
func (s *state) copyReadable(to *state) (keys int, lost []string, err error) {
	last := []byte{statePrefix}
	for {
		at, failed := s.copyFrom(to, last, &keys)
		if failed == nil {
			return keys, lost, nil
		}
		if to.shield.err != nil {
			return keys, lost, to.shield.err
		}
		next := s.behind(at)
		if next == nil {
			lost = append(lost, fmt.Sprintf("the keys behind %q could not be read", at[1:]))
			return keys, lost, nil
		}
		lost = append(lost, fmt.Sprintf("the keys from %q to %q could not be read", at[1:], next[1:]))
		last = next
	}
}

// copyFrom copies keys until one cannot be read, and returns the last one that
// could.
func (s *state) copyFrom(to *state, from []byte, keys *int) (last []byte, err error) {
	defer recoverPebble(&err)
	last = from
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{statePrefix + 1}})
	if err != nil {
		return last, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return last, errors.Join(err, it.Close())
		}
		last = append(append([]byte{}, it.Key()...), 0)
		b := to.db.NewBatch()
		if err := b.Set(it.Key(), v, nil); err != nil {
			return last, errors.Join(err, it.Close())
		}
		if err := to.do(func() error { return b.Commit(pebble.NoSync) }); err != nil {
			return last, errors.Join(err, it.Close())
		}
		*keys++
	}
	return last, it.Close()
}

// behind is a key behind one that cannot be read, from which on keys can: as
// near to it as can be found by letting go of more and more of its end.
func (s *state) behind(key []byte) []byte {
	for n := len(key); n > 1; n-- {
		next := prefixEnd(slices.Clone(key[:n]))
		if next == nil || next[0] != statePrefix {
			continue
		}
		for range 256 {
			if s.readable(next) {
				return next
			}
			if next[len(next)-1] == 0xff {
				break
			}
			next[len(next)-1]++
		}
	}
	return nil
}

// readable says whether the first key at or behind one can be read.
func (s *state) readable(key []byte) (is bool) {
	var err error
	defer func() { is = is && err == nil }()
	defer recoverPebble(&err)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: []byte{statePrefix + 1}})
	if err != nil {
		return false
	}
	ok := it.First()
	if ok {
		_, err = it.ValueAndErr()
	}
	return errors.Join(err, it.Close()) == nil
}
