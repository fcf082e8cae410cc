package mqtt

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/sluicemq/sluice/adapters"
)

// A deadline is a context that ends at a deadline, or with its parent. Most
// handshakes wait for nothing: so it begins to watch the time when somebody asks
// for what tells of its end, which says that he waits, and costs nothing before.
type deadline struct {
	context.Context // the parent
	until           time.Time
	conn            net.Conn // whose handshake it is

	mu     sync.Mutex // guards what follows
	timed  context.Context
	cancel context.CancelFunc
}

// handshake is the context of what CONNECT asks of others. Its stop is to be
// called when that is done.
func (c *conn) handshake() *deadline {
	return &deadline{Context: c.ctx, until: time.Now().Add(c.s.limits.Handshake), conn: c.nc}
}

func (d *deadline) watch() context.Context {
	adapters.Waits(d.conn)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timed == nil {
		d.timed, d.cancel = context.WithDeadline(d.Context, d.until)
	}
	return d.timed
}

func (d *deadline) Deadline() (time.Time, bool) { return d.until, true }
func (d *deadline) Done() <-chan struct{}       { return d.watch().Done() }
func (d *deadline) Err() error                  { return d.watch().Err() }

// stop frees what it holds.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
}
