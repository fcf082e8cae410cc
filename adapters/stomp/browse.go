package stomp

import (
	"errors"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// headerBrowser on SUBSCRIBE asks to look at a queue without consuming it; with
// the value "end" on a MESSAGE it says that this is all, as ActiveMQ has it.
const headerBrowser = "browser"

// browsePage is how many messages are looked at in one go.
const browsePage = 100

// browse obeys a SUBSCRIBE that asks for it: it sends what the queue has at the
// time, and then a MESSAGE with browser:end. Nothing is consumed: an ACK of what
// is sent means nothing. No other frame is obeyed meanwhile.
func (c *conn) browse(f *clientFrame, s *subscription, w *subscribing) error {
	if err := c.queueAlone(w); err != nil {
		return err
	}
	if err := c.only(w.arguments.first == "", w.arguments.first, "browser:true, which declares no queue"); err != nil {
		return err
	}
	// What the client sent before is there, and its receipts are on their way.
	if err := c.client.CatchUp(c.ctx); err != nil {
		return err
	}
	c.receipts.wait()
	queue, _ := core.QueueOf(w.sources[0].topic)
	began := time.Now()
	request := core.ReadRequest{From: core.Earliest, Where: w.where, Limit: browsePage}
	for first, more := true, true; more; first = false {
		page, err := c.client.Browse(c.ctx, queue, request)
		if err != nil && (w.sources[0].declared || !errors.Is(err, core.ErrNotFound)) {
			return err // one that is not declared would be made at first use
		}
		if first {
			if err := c.done(f); err != nil {
				return err
			}
		}
		n := 0
		for n < len(page.Messages) && !page.Messages[n].Time.After(began) {
			n++
		}
		more = page.More && n == len(page.Messages)
		request.From = core.FromOffset(page.Next)
		c.out.Append(func(buf []byte) []byte {
			if c.ended {
				return buf
			}
			for i := range page.Messages[:n] {
				buf = s.encoder.append(buf, &page.Messages[i], core.Gap{})
			}
			return buf
		})
		c.server.metrics.Sent.Add(float64(n))
		if err := c.out.Wait(); err != nil {
			return err
		}
	}
	c.out.Append(func(buf []byte) []byte {
		if c.ended {
			return buf
		}
		buf = append(buf, s.encoder.head...)
		buf = append(buf, s.encoder.destination...)
		buf = append(buf, frame.MessageId+":"...)
		buf = appendToken(buf, s.number, 0)
		return append(buf, headerBrowser+":end\n"+frame.ContentLength+":0\n\n\x00"...)
	})
	return nil
}
