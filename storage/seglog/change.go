package seglog

import (
	"encoding/binary"
	"fmt"

	"github.com/sluicemq/sluice/core"
)

// How a change stands in a frame.
const (
	changeDelete    = 0
	changeSet       = 1
	changeSetOffset = 2 // the offset of a record goes behind the value
)

// appendChanges appends the section of a frame that holds state changes.
func appendChanges(dst []byte, changes []core.Change) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(changes)))
	for i := range changes {
		c := &changes[i]
		kind := byte(changeSet)
		switch {
		case c.Value == nil:
			kind = changeDelete
		case c.OffsetOf != 0:
			kind = changeSetOffset
		}
		dst = append(dst, kind)
		dst = binary.AppendUvarint(dst, uint64(len(c.Key)))
		dst = append(dst, c.Key...)
		if kind == changeDelete {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(c.Value)))
		dst = append(dst, c.Value...)
		if kind == changeSetOffset {
			dst = binary.AppendUvarint(dst, uint64(c.OffsetOf))
		}
	}
	return dst
}

// eachChange calls set or remove for each change of a section, in order. base is
// the offset of the commit's first record. The slices alias the section.
func eachChange(section []byte, base core.Offset, set func(key, value []byte) error, remove func(key []byte) error) error {
	bad := func() error {
		return fmt.Errorf("%w: the state changes of the commit at offset %d", core.ErrCorrupt, base)
	}
	ok := true
	number := func() uint64 {
		v, n := binary.Uvarint(section)
		if n <= 0 {
			ok = false
			return 0
		}
		section = section[n:]
		return v
	}
	take := func() []byte {
		n := number()
		if !ok || n > uint64(len(section)) {
			ok = false
			return nil
		}
		b := section[:n:n]
		section = section[n:]
		return b
	}
	for n := number(); ok && n > 0; n-- {
		if len(section) == 0 {
			return bad()
		}
		kind := section[0]
		section = section[1:]
		key := take()
		if kind > changeSetOffset || !ok {
			return bad()
		}
		if kind == changeDelete {
			if err := remove(key); err != nil {
				return err
			}
			continue
		}
		value := take()
		if kind == changeSetOffset {
			i := number()
			if i == 0 {
				return bad()
			}
			// The value's capacity ends with it, so this does not touch the
			// section.
			value = binary.BigEndian.AppendUint64(value, uint64(base)+i-1)
		}
		if !ok {
			return bad()
		}
		if err := set(key, value); err != nil {
			return err
		}
	}
	if !ok || len(section) > 0 {
		return bad()
	}
	return nil
}
