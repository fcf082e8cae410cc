package ws

import (
	"net"
	"runtime"
	"runtime/debug"
	"testing"
)

// TestIdleMemory holds what one more idle connection with one subscription costs
// the broker: heap and stack, without the kernel's sockets.
func TestIdleMemory(t *testing.T) {
	const n, most = 500, detector * 12 << 10
	r := newRig(t)
	raw := func() net.Conn {
		conn := r.raw("/ws", "")
		readFrame(t, conn) // the welcome
		conn.Write(masked(frameText, `{"op":"sub","req":1,"topic":"idle","credit":32}`))
		readFrame(t, conn)
		return conn
	}
	conns := []net.Conn{raw()}
	before := inUse()
	for range n {
		conns = append(conns, raw())
	}
	each := (inUse() - before) / n
	// The client's side, in the same process, is a socket and what it holds.
	t.Logf("%d bytes a connection", each)
	if each > most {
		t.Errorf("an idle connection takes %d bytes, at most %d are allowed", each, most)
	}
	runtime.KeepAlive(conns)
}

func inUse() int {
	debug.FreeOSMemory()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
