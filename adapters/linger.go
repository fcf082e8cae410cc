package adapters

import (
	"net"
	"time"
)

// CloseWrite ends what is sent to the peer, which so reads the connection's
// end behind all that was written, and reports whether the connection can do
// that. Who calls it goes on with [Discard] and closes the connection then.
func CloseWrite(c net.Conn) bool {
	w, ok := c.(interface{ CloseWrite() error })
	return ok && w.CloseWrite() == nil
}

// Discard reads and throws away what the peer still sends, until it closes, or
// for as long as it is told: a socket that is closed with input unread resets,
// and the peer would lose what was written last, such as why the connection
// ends. It blocks, and leaves it to the caller to close the connection.
func Discard(c net.Conn, within time.Duration) {
	if c.SetReadDeadline(time.Now().Add(within)) != nil {
		return
	}
	var buf [4 << 10]byte
	for left := discardBytes; left > 0; {
		n, err := c.Read(buf[:])
		if err != nil {
			return
		}
		left -= n
	}
}

// discardBytes bounds what Discard reads.
const discardBytes = 16 << 20
