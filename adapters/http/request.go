package http

import (
	"crypto/rand"
	nethttp "net/http"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// defaultReply is how long ?reply without a time waits.
const defaultReply = 5 * time.Second

// request publishes a message whose reply-to is an inbox of its own and answers
// with the first message that comes there.
func (s *Server) request(w nethttp.ResponseWriter, r *nethttp.Request, h *hold, e *core.Envelope, patience time.Duration) {
	if e.ReplyTo != "" {
		s.fail(w, r, badRequest.with("?reply waits at an inbox of the broker's: leave out X-Reply-To"))
		return
	}
	if patience == 0 {
		patience = defaultReply
	}
	e.ReplyTo = core.InboxPrefix + rand.Text()
	inbox := &inbox{came: make(chan struct{}, 1)}
	k, err := h.client.Subscribe(r.Context(), core.Subscription{Bindings: []core.Binding{{Filter: core.Filter(e.ReplyTo)}}}, inbox)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer k.Close()
	k.Grant(core.Credit{Messages: 1, Bytes: 1})

	wait := h.wait()
	defer wait.end()
	if err := h.publish(r.Context(), e, wait.first); err != nil {
		s.fail(w, r, err)
		return
	}
	c, err := wait.one(r.Context())
	if err == nil {
		err = c.Err
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-inbox.came:
	case <-timer.C:
		s.fail(w, r, noReply.with("the request is in the log, but nobody replied within "+patience.String()))
		return
	case <-s.stopping.Done():
		s.fail(w, r, &shuttingDown)
		return
	case <-r.Context().Done():
		gone()
	}
	d, err := inbox.first()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.metrics.Sent.Inc()
	s.answerRaw(w, &d, time.Now())
}

// An inbox is a receiver that keeps the first message.
type inbox struct {
	came chan struct{}

	mu    sync.Mutex // guards what follows
	reply *core.Delivery
	err   error
}

func (i *inbox) Deliver(batch []core.Delivery) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.reply == nil && len(batch) > 0 {
		d := batch[0].Clone()
		i.reply = &d
		i.tell()
	}
}

func (i *inbox) Notice(n core.Notice) {
	switch n.Kind {
	case core.NoticeRevoked, core.NoticeDeleted, core.NoticeFailed:
	default:
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err = n.Err; i.err == nil {
		i.err = core.ErrClosed
	}
	i.tell()
}

func (i *inbox) tell() {
	select {
	case i.came <- struct{}{}:
	default:
	}
}

func (i *inbox) first() (core.Delivery, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.reply == nil {
		return core.Delivery{}, i.err
	}
	return *i.reply, nil
}
