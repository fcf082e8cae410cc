package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// Hooks push queues to their webhooks. Each is a consumer of the core like
// every other: it has credit, and a queue's lease, backoff, attempts and dead
// letters are its own.
type hooks struct {
	s       *Server
	metrics *adapters.ProtocolMetrics
	http    *nethttp.Client
	ctx     context.Context // ends when no attempt may go on
	cancel  context.CancelFunc

	mu      sync.Mutex // guards what follows
	running map[string]*hook
	closed  bool
	loops   sync.WaitGroup
}

// newHooks makes the webhooks of a server. allow are the networks that may be
// called though they are not public.
func newHooks(s *Server, metrics *adapters.Metrics, allow []netip.Prefix) *hooks {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		return checkAddress(address, allow)
	}}
	h := &hooks{s: s, metrics: metrics.Protocol("webhook"), running: make(map[string]*hook)}
	h.http = &nethttp.Client{
		// A proxy of the environment would be asked for any address.
		Transport: &nethttp.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 16 << 10,
			MaxIdleConnsPerHost: 8, MaxIdleConns: 100, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse },
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// errPrivate refuses an address that is not public.
var errPrivate = errors.New("the address is not public; http.webhooks.allow in the broker's configuration allows networks")

// notPublic are the networks that are not reached over the Internet, beside
// those that netip knows (RFC 6890 and its registries).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"), netip.MustParsePrefix("5f00::/16"), netip.MustParsePrefix("fec0::/10"),
}

// checkAddress says why an address may not be called. It is asked when the
// connection is made, by when a name has become an address: what the name leads
// to earlier or later does not matter.
func checkAddress(address string, allow []netip.Prefix) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := at.Addr().Unmap().WithZone("")
	for _, p := range allow {
		if p.Contains(ip) {
			return nil
		}
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return fmt.Errorf("%w: %s", errPrivate, ip)
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return fmt.Errorf("%w: %s", errPrivate, ip)
		}
	}
	return nil
}

// start begins with those of the configuration and those that are kept with
// queues. The configuration beats what is kept.
func (h *hooks) start(ctx context.Context) error {
	for queue, w := range h.s.options.Webhooks {
		if err := w.Check(); err != nil {
			return fmt.Errorf("http: the webhook of the queue %q: %w", queue, err)
		}
		h.set(queue, w, true)
	}
	client, err := h.connect(ctx)
	if err != nil {
		// Everything else works without them.
		h.s.log.Warn("webhooks that are kept with queues do not run", "err", err)
		return nil
	}
	defer client.Close()
	for queue, meta := range client.QueueMetas() {
		if w, ok := webhookOf(meta); ok && h.find(queue) == nil {
			h.set(queue, w, false)
		}
	}
	return nil
}

// connect makes the client of one webhook.
func (h *hooks) connect(ctx context.Context) (*core.Client, error) {
	c := h.s.options.Operator
	c.Protocol, c.Client = "webhook", "webhook"
	return h.s.broker.Connect(ctx, c, nil)
}

func (h *hooks) find(queue string) *hook {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running[queue]
}

// set begins a queue's webhook, in the place of the one that it had.
func (h *hooks) set(queue string, w adapters.Webhook, configured bool) *hook {
	k := &hook{hooks: h, queue: queue, webhook: w, configured: configured, ended: make(chan core.NoticeKind, 1)}
	k.ctx, k.cancel = context.WithCancel(h.ctx)
	h.mu.Lock()
	before := h.running[queue]
	h.running[queue] = k
	if !h.closed {
		h.loops.Go(k.run)
	}
	h.mu.Unlock()
	if before != nil {
		before.cancel()
	}
	return k
}

// remove ends a webhook.
func (h *hooks) remove(k *hook) {
	k.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running[k.queue] == k {
		delete(h.running, k.queue)
	}
}

// close lets attempts end until ctx does. What is not settled then comes again.
func (h *hooks) close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	for _, k := range h.running {
		k.stop()
	}
	h.mu.Unlock()
	stop := context.AfterFunc(ctx, h.cancel)
	h.loops.Wait()
	stop()
	h.cancel()
	h.http.CloseIdleConnections()
}

// A hook is one queue's webhook. It is a core.Receiver.
type hook struct {
	hooks      *hooks
	queue      string
	webhook    adapters.Webhook
	configured bool
	ctx        context.Context // ends with the hook
	cancel     context.CancelFunc
	ended      chan core.NoticeKind // what ended the consumer
	posts      sync.WaitGroup
	stopping   atomic.Bool

	delivered, failed atomic.Uint64
	consumer          atomic.Pointer[core.Consumer]

	mu      sync.Mutex // guards what follows
	latest  string     // why the latest attempt failed
	logging time.Time  // of a failure, the last time
}

// againAfter is how long a hook waits whose consumer has ended before its time.
const againAfter = 5 * time.Second

func (k *hook) stop() {
	k.stopping.Store(true)
	select {
	case k.ended <- 0:
	default:
	}
}

// run consumes until the hook ends.
func (k *hook) run() {
	defer k.cancel()
	for !k.stopping.Load() && k.ctx.Err() == nil {
		switch kind, err := k.consume(); {
		case kind == core.NoticeDeleted || errors.Is(err, core.ErrNotFound):
			k.hooks.remove(k)
			return
		case k.stopping.Load() || k.ctx.Err() != nil:
			return
		case err != nil:
			k.note(err)
		}
		select {
		case <-time.After(againAfter):
		case <-k.ended:
		case <-k.ctx.Done():
		}
	}
}

// consume consumes until something ends that.
func (k *hook) consume() (core.NoticeKind, error) {
	client, err := k.hooks.connect(k.ctx)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	c, err := client.Consume(k.ctx, core.Consumption{Queue: k.queue, Create: k.configured, Settlement: core.SettleAlways}, k)
	if err != nil {
		return 0, err
	}
	k.consumer.Store(c)
	c.Grant(core.Credit{Messages: k.webhook.InFlight, Bytes: k.webhook.InFlight * k.hooks.s.limits.MessageBytes})
	var kind core.NoticeKind
	select {
	case kind = <-k.ended:
	case <-k.ctx.Done():
	}
	k.posts.Wait() // attempts that have begun are settled
	c.Close()
	return kind, nil
}

// Deliver posts messages, each on a goroutine; the credit bounds them.
func (k *hook) Deliver(batch []core.Delivery) {
	c := k.consumer.Load()
	for i := range batch {
		if k.stopping.Load() || k.ctx.Err() != nil {
			return // the consumer's end releases them
		}
		d := batch[i].Clone()
		k.posts.Go(func() { k.attempt(c, &d) })
	}
}

// Notice ends the consumer where the core has.
func (k *hook) Notice(n core.Notice) {
	if n.Kind >= core.NoticeRevoked {
		select {
		case k.ended <- n.Kind:
		default:
		}
	}
}

// attempt posts a message once and settles it. A failure releases it: the queue
// says when it comes again, and how often, before it is a dead letter.
func (k *hook) attempt(c *core.Consumer, d *core.Delivery) {
	opts := core.SettleOptions{Credit: core.Credit{Messages: 1, Bytes: d.Size()}}
	outcome := core.Accepted
	// However short the queue's lease is, an attempt has its time.
	_ = c.Extend(d.Offset, k.webhook.Timeout+time.Second)
	wait, err := k.post(d)
	if err != nil {
		if k.ctx.Err() != nil {
			return // it was cut off; the consumer's end releases the message
		}
		outcome, opts.Delay = core.Released, wait
		k.failed.Add(1)
		k.hooks.metrics.Refused("webhook_failed")
		k.note(err)
	} else {
		k.delivered.Add(1)
		k.hooks.metrics.Sent.Inc()
		k.note(nil)
	}
	if err := c.Settle(d.Offset, outcome, opts); err != nil {
		k.hooks.s.log.Debug("webhook's message not settled", "queue", k.queue, "offset", uint64(d.Offset), "err", err)
	}
}

// longestRetry bounds what a receiver's Retry-After may ask for.
const longestRetry = time.Hour

// post posts a message. Only an answer of 2xx is success; wait is what the
// receiver asks for otherwise, 0 if nothing.
func (k *hook) post(d *core.Delivery) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(k.ctx, k.webhook.Timeout)
	defer cancel()
	r, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, k.webhook.URL, bytes.NewReader(d.Payload))
	if err != nil {
		return 0, err
	}
	now := time.Now()
	k.hooks.s.writeFields(r.Header, d, now)
	if d.ContentType == "" {
		delete(r.Header, "Content-Type")
	}
	writeText(r.Header, "X-Queue", k.queue)
	r.Header.Set("User-Agent", "Sluice-Webhook")
	signWebhook(&k.webhook, r.Header, "msg_"+strconv.FormatUint(uint64(d.Offset), 10), now, d.Payload)
	resp, err := k.hooks.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// The connection is used again if the answer is short.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 16<<10)); err != nil {
		return 0, err
	}
	if resp.StatusCode/100 == 2 {
		return 0, nil
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		wait = min(time.Duration(min(seconds, 1<<20))*time.Second, longestRetry)
	}
	return wait, fmt.Errorf("the receiver answered %d", resp.StatusCode)
}

// note remembers how the latest attempt went, and logs failures, but not each.
func (k *hook) note(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.latest = ""
		return
	}
	k.latest = err.Error()
	if time.Since(k.logging) > time.Minute {
		k.logging = time.Now()
		k.hooks.s.log.Warn("webhook failed", "queue", k.queue, slog.Any("err", err))
	}
}

func (k *hook) info() webhookInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	return webhookInfo{
		Queue: k.queue, URL: k.webhook.URL, Secrets: len(k.webhook.Secrets), Timeout: span(k.webhook.Timeout), InFlight: k.webhook.InFlight,
		Configured: k.configured, Delivered: k.delivered.Load(), Failed: k.failed.Load(), Error: k.latest,
	}
}

// tag is the entity tag of the definition.
func (k *hook) tag() string { return tagOf(k.webhook) }
