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
func (s *Server) request(w nethttp.ResponseWriter, r *nethttp.Request, h *hold, e *core.Envelope, patience time.Duration) error {
	if e.ReplyTo != "" {
		return badRequest.with("?reply waits at an inbox of the broker's: leave out X-Reply-To")
	}
	if patience == 0 {
		patience = defaultReply
	}
	e.ReplyTo = core.InboxPrefix + rand.Text()
	inbox := &inbox{came: make(chan struct{}, 1)}
	k, err := h.client.Subscribe(r.Context(), core.Subscription{Bindings: []core.Binding{{Filter: core.Filter(e.ReplyTo)}}}, inbox)
	if err != nil {
		return err
	}
	defer k.Close()
	k.Grant(core.Credit{Messages: 1, Bytes: 1})
	if _, err := h.publishAndWait(r.Context(), e); err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-inbox.came:
	case <-timer.C:
		return noReply.with("the request is in the log, but nobody replied within " + patience.String())
	case <-s.stopping.Done():
		return &shuttingDown
	case <-r.Context().Done():
		gone()
	}
	d, err := inbox.first()
	if err != nil {
		return err
	}
	s.metrics.Sent.Inc()
	s.answerRaw(w, &d, time.Now())
	return nil
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
