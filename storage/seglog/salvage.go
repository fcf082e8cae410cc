package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
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

// A state that was put together takes the place of the one that is damaged file
// by file, and the process may end in between. So it is written down first, and
// whoever opens the directory next finishes it: SwapName says which of the two
// steps it has come to, and where the old files go. Until it is there, the new
// state is nothing; from then on, it is the state.
const (
	// SwapName is the name of that file in a data directory.
	SwapName = "SWAP"

	swapFormat  = "Sluice swap %d: step %d, old state to %s"
	swapVersion = 1

	swapOut = 1 // the old files move aside: none of those in state are new
	swapIn  = 2 // the new ones take their place: all of those in state are new
)

func writeSwap(f vfs.FS, dir string, step int, aside string) error {
	return writeFile(f, path.Join(dir, SwapName), fmt.Appendf(nil, swapFormat+"\n", swapVersion, step, aside))
}

// readSwap reads how far a swap has come; step is 0 where there is none.
func readSwap(f vfs.FS, dir string) (step int, aside string, err error) {
	file, err := f.OpenRead(path.Join(dir, SwapName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	b := make([]byte, 256)
	n, err := readFull(file, b, 0)
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, "", err
	}
	version := 0
	if _, err := fmt.Sscanf(string(b[:n]), swapFormat, &version, &step, &aside); err != nil || step != swapOut && step != swapIn || aside != path.Base(aside) {
		return 0, "", fmt.Errorf("%w: %s does not say how far the state's mending has come", core.ErrCorrupt, SwapName)
	}
	if version != swapVersion {
		return 0, "", errVersion{SwapName, uint32(version), swapVersion}
	}
	return step, aside, nil
}

// finishSwap finishes a swap, if one has begun.
func finishSwap(f vfs.FS, dir string) (done bool, err error) {
	step, aside, err := readSwap(f, dir)
	if err != nil || step == 0 {
		return false, err
	}
	state, salvaged := path.Join(dir, stateDirName), path.Join(dir, salvageName)
	if step == swapOut {
		if err := moveAll(f, state, path.Join(dir, aside)); err != nil {
			return false, err
		}
		if err := writeSwap(f, dir, swapIn, aside); err != nil {
			return false, err
		}
	}
	if err := moveAll(f, salvaged, state); err != nil {
		return false, err
	}
	for _, name := range []string{salvaged, path.Join(dir, SwapName)} {
		if err := f.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, f.SyncDir(dir)
}

// moveAll moves the files of one directory, which may not be there, to another
// one, and makes that durable.
func moveAll(f vfs.FS, from, to string) error {
	if err := f.MkdirAll(to); err != nil {
		return err
	}
	names, err := f.List(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.Join(f.SyncDir(to), f.SyncDir(path.Dir(to)))
	case err != nil:
		return err
	}
	for _, name := range names {
		if err := f.Rename(path.Join(from, name), path.Join(to, name)); err != nil {
			return err
		}
	}
	return errors.Join(f.SyncDir(to), f.SyncDir(from), f.SyncDir(path.Dir(to)))
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
