package bench

import (
	"encoding/binary"
	"errors"
)

// nextWS splits the first frame of a server off; 0 if it is not all there. The
// servers that are measured send each message in one frame.
func nextWS(b []byte) (opcode byte, payload []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	at, n := 2, uint64(b[1])
	switch {
	case n >= 0x80:
		return 0, nil, 0, errors.New("the server sent a masked frame")
	case n == 126:
		if len(b) < 4 {
			return 0, nil, 0, nil
		}
		at, n = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case n == 127:
		if len(b) < 10 {
			return 0, nil, 0, nil
		}
		at, n = 10, binary.BigEndian.Uint64(b[2:])
	}
	if n > readBytes {
		return 0, nil, 0, errors.New("the server sent a frame larger than the generator reads")
	}
	if len(b)-at < int(n) {
		return 0, nil, 0, nil
	}
	return b[0] & 0xf, b[at : at+int(n)], at + int(n), nil
}

// appendWS appends a client's frame of less than 64 KiB. The mask is zero: it
// protects proxies, and there is none here.
func appendWS(b []byte, opcode byte, payload []byte) []byte {
	b = append(b, 0x80|opcode)
	if len(payload) < 126 {
		b = append(b, 0x80|byte(len(payload)))
	} else {
		b = append(b, 0x80|126, byte(len(payload)>>8), byte(len(payload)))
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, payload...)
}

const (
	wsText = 1
	wsPing = 9
	wsPong = 10
)
