package stomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// A subscribing is a SUBSCRIBE frame, understood.
type subscribing struct {
	id      string
	hasID   bool
	written string
	sources []destination
	ack     ackMode
	from    string
	group   string
	// messages is the prefetch; 0 is the limit's.
	messages int
	// name of a durable subscription, and whether only one client may have it.
	name      string
	exclusive bool
	// queue is the x-queue-name.
	queue     string
	arguments queueArguments
	// where is the selector, in its canonical form.
	where string
	// noLocal leaves out what the client itself sends.
	noLocal bool
	// alone wants no other consumer of the queue to be given messages.
	alone bool
	// browse looks at a queue without consuming it.
	browse bool
}

// subscribeUnsupported are headers that would change what a client is sent, and
// what to do instead. A value of false or 0 is as if they were not there.
var subscribeUnsupported = map[string]string{
	"activemq.retroactive":      "Use from:earliest.",
	"activemq.priority":         "Consumers are served in turn.",
	"x-priority":                "Consumers are served in turn.",
	"x-stream-filter":           "Use selector.",
	"x-stream-match-unfiltered": "Use selector.",
}

// subscribe obeys SUBSCRIBE. The receipt is given before the first message is
// asked for.
func (c *conn) subscribe(f *clientFrame) error {
	w, err := c.readSubscribe(f)
	if err != nil {
		return err
	}
	s, err := c.add(w)
	if err != nil {
		return err
	}
	if w.browse {
		return c.browse(f, s, w)
	}
	if err := c.done(f); err != nil {
		return err
	}
	s.consumer.Grant(c.credit(w))
	return nil
}

// readSubscribe understands a SUBSCRIBE frame. What it returns is not the
// reader's.
func (c *conn) readSubscribe(f *clientFrame) (*subscribing, error) {
	w := &subscribing{}
	id, hasID := f.header(frame.Id)
	if !hasID && c.version > v10 {
		return nil, missing(f.Command, frame.Id)
	}
	w.written = strings.Clone(f.value(frame.Destination))
	if w.written == "" {
		return nil, missing(f.Command, frame.Destination)
	}
	w.id, w.hasID = strings.Clone(id), hasID
	if !hasID {
		w.id = w.written
	}
	list := parts(w.written)
	if list == nil {
		list = []string{w.written}
	}
	for _, written := range list {
		d, err := c.naming().source(written)
		if err != nil {
			return nil, err
		}
		w.sources = append(w.sources, d)
	}
	ack := f.value(frame.Ack)
	var ok bool
	if w.ack, ok = parseAck(ack); !ok || w.ack == ackIndividual && c.version == v10 {
		return nil, invalid(frame.Ack, ack, "auto, client or client-individual (from STOMP 1.1 on)")
	}
	if err := w.readOptions(f); err != nil {
		return nil, err
	}
	return w, c.nameDurable(f, w)
}

// readOptions takes the headers that say how to deliver.
func (w *subscribing) readOptions(f *clientFrame) error {
	for i := range f.Headers {
		h := &f.Headers[i]
		if slices.ContainsFunc(f.Headers[:i], func(o core.Header) bool { return o.Name == h.Name }) {
			continue // the first counts
		}
		var err error
		switch h.Name {
		case headerFrom:
			w.from = strings.Clone(h.Value)
		case "x-stream-offset":
			if w.from == "" {
				w.from, err = streamOffset(h.Value)
			}
		case headerGroup:
			if w.group = strings.Clone(h.Value); h.Value == "" || strings.ContainsAny(h.Value, "/+#") {
				err = invalid(h.Name, h.Value, "a name without /, + and #")
			}
		case "prefetch-count", "activemq.prefetchSize":
			n, bad := strconv.Atoi(h.Value)
			if bad != nil || n < 0 {
				err = invalid(h.Name, h.Value, "a number of messages")
			} else if w.messages == 0 {
				w.messages = max(n, 1)
			}
		case "x-queue-name":
			w.queue = strings.Clone(h.Value)
			err = checkQueue(w.queue)
		case headerBrowser:
			if w.browse, err = parseBool(h); w.browse && w.sources[0].kind != toQueue {
				err = unsupported(h.Name, "It goes with a queue; topics are read again with from.")
			}
		case "selector":
			w.where, err = parseSelector(h.Value)
		case "activemq.noLocal", "no-local", "noLocal":
			w.noLocal, err = parseBool(h)
		case "activemq.exclusive":
			w.alone, err = parseBool(h)
		default:
			if instead, known := subscribeUnsupported[h.Name]; known && h.Value != "false" && h.Value != "0" && h.Value != "" {
				err = unsupported(h.Name, instead)
			} else if _, known := arguments[h.Name]; known {
				err = w.arguments.read(h)
			}
		}
		if err != nil {
			return err
		}
	}
	// They are of a queue that is named, and of none otherwise: RabbitMQ's
	// clients say so of the queue that it makes for a topic's subscription.
	if w.sources[0].kind == toQueue || w.queue != "" {
		for i := range f.Headers {
			if _, ok := declarations[f.Headers[i].Name]; ok {
				if err := w.arguments.read(&f.Headers[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// parseSelector reads a selector into its canonical form.
func parseSelector(text string) (string, error) {
	where, err := core.CanonicalWhere(text)
	if err != nil {
		return "", &refusal{"selector", "invalid selector", fmt.Sprintf("%v. A selector is a condition of SQL, such as color = 'red' AND weight > 2.", err), err}
	}
	return where, nil
}

// streamOffset turns RabbitMQ's x-stream-offset into a from.
func streamOffset(s string) (from string, err error) {
	name, value, _ := strings.Cut(s, "=")
	switch name {
	case "first":
		return "earliest", nil
	case "last":
		return "-1", nil
	case "next":
		return "latest", nil
	case "offset":
		return strings.Clone(value), nil
	case "timestamp":
		if seconds, err := strconv.ParseInt(value, 10, 40); err == nil {
			return "@" + time.Unix(seconds, 0).UTC().Format(time.RFC3339), nil
		}
	}
	return "", invalid("x-stream-offset", s, "first, last, next, offset=1042 or timestamp=<seconds since 1970>")
}

// add begins a subscription, which has no credit yet.
func (c *conn) add(w *subscribing) (*subscription, error) {
	if c.subscriptions[w.id] != nil {
		return nil, refuse("malformed", "subscription exists",
			fmt.Sprintf("The id %q has a subscription on this connection. UNSUBSCRIBE it first, or use another id.", clip(w.id)))
	}
	if most := c.server.limits.Subscriptions; c.sources+len(w.sources) > most {
		return nil, refuse("subscriptions_too_many", "too many subscriptions",
			fmt.Sprintf("A connection may have %d, each destination of a composite counted. UNSUBSCRIBE others first.", most))
	}
	first := w.sources[0]
	exact := ""
	if len(w.sources) == 1 && (first.kind == toQueue || core.Filter(first.topic).Exact()) && first.kind != toExchange {
		exact = first.topic
	}
	s := &subscription{conn: c, id: w.id, written: w.written, number: c.lastNumber + 1, sources: len(w.sources), ack: w.ack, noLocal: w.noLocal}
	s.encoder = newMessageEncoder(c.version, c.server.rests, s.number, w.id, w.hasID, first, exact, w.written, w.ack != ackAuto)
	if first.kind == toInbox {
		s.inbox = first.topic
	}
	if !w.browse {
		var err error
		if s.consumer, err = c.attach(w, s); err != nil {
			return nil, err
		}
	}
	c.lastNumber++
	c.sources += s.sources
	c.subscriptions[w.id], c.numbered[s.number] = s, s
	return s, nil
}

// credit is what a new subscription may be sent. The connection's output is
// shared by its subscriptions, harmonically: what all together may have waiting
// grows only with the logarithm of their number.
func (c *conn) credit(w *subscribing) core.Credit {
	const least = 16 << 10
	l := &c.server.limits
	messages := w.messages
	if messages == 0 {
		messages = l.InFlight
	}
	return core.Credit{
		Messages: min(messages, l.MaxInFlight),
		Bytes:    max(l.OutputBytes/len(c.subscriptions), min(least, l.OutputBytes)),
	}
}

// attach makes the consumer: of a queue, of a queue in front of topics, or a
// reader of topics.
func (c *conn) attach(w *subscribing, s *subscription) (*core.Consumer, error) {
	settlement := core.SettleNever
	if w.ack != ackAuto {
		settlement = core.SettleAlways
	}
	first := w.sources[0]
	if first.kind == toQueue {
		return c.attachQueue(w, s, settlement)
	}
	bindings := make([]core.Binding, len(w.sources))
	for i, d := range w.sources {
		bindings[i] = core.Binding{Settlement: settlement, Where: w.where}
		switch d.kind {
		case toQueue:
			return nil, refuse("unsupported", "invalid destination", "A subscription has one queue, or topics. Use a subscription for each.")
		case toExchange:
			bindings[i].Exchange, bindings[i].Key, _ = core.ExchangeOf(d.topic)
		default:
			bindings[i].Filter = core.Filter(d.topic)
		}
	}
	from := core.Latest
	if w.from != "" {
		var err error
		if from, err = core.ParseFrom(w.from, time.Now()); err != nil {
			return nil, err
		}
	}
	if w.queue != "" || w.group != "" {
		// What one member does not select, another may.
		for i := range bindings {
			bindings[i].Where = ""
		}
	}
	if name := w.arguments.first; name != "" && w.queue == "" && (w.group == "" || w.arguments.seen != 1<<argumentOrdered) {
		return nil, c.only(false, name, "topics alone; say x-queue-name for a queue in front of them")
	}
	switch {
	case w.queue != "":
		if err := c.only(w.name == "" && w.group == "", "x-queue-name", "the other names of a queue"); err != nil {
			return nil, err
		}
		err := c.client.DeclareQueue(c.ctx, core.QueueDefinition{Name: w.queue, Settings: w.arguments.of(w.queue), Bindings: bindings, From: from})
		if err != nil {
			return nil, err
		}
		return c.client.Consume(c.ctx, core.Consumption{Queue: w.queue, Where: w.where, Alone: w.alone, Settlement: settlement}, s)
	case w.name != "":
		if err := c.only(w.group == "", headerGroup, "a durable subscription"); err != nil {
			return nil, err
		}
		return c.attachDurable(w, s, settlement, bindings, from)
	case w.group != "":
		if err := c.only(len(bindings) == 1 && bindings[0].Exchange == "", headerGroup, "several destinations or an exchange; use x-queue-name"); err != nil {
			return nil, err
		}
		settings := core.DefaultGroupSettings()
		settings.Ordered = w.arguments.settings.Ordered
		return c.client.Consume(c.ctx, core.Consumption{
			Queue: core.GroupQueue(w.group, bindings[0].Filter), Create: true, Settings: &settings,
			Bindings: bindings, From: from, Where: w.where, Alone: w.alone, Settlement: settlement,
		}, s)
	}
	retained := from == core.Latest && first.kind == toTopic
	return c.client.Subscribe(c.ctx, core.Subscription{Bindings: bindings, From: from, Retained: retained}, s)
}

// attachQueue consumes the queue that the destination names.
func (c *conn) attachQueue(w *subscribing, s *subscription, settlement core.Settlement) (*core.Consumer, error) {
	if err := c.queueAlone(w); err != nil {
		return nil, err
	}
	queue, _ := core.QueueOf(w.sources[0].topic)
	if w.arguments.first != "" {
		if err := c.client.DeclareQueue(c.ctx, core.QueueDefinition{Name: queue, Settings: w.arguments.of(queue)}); err != nil {
			return nil, err
		}
	}
	return c.client.Consume(c.ctx, core.Consumption{Queue: queue, Create: !w.sources[0].declared, Where: w.where, Alone: w.alone, Settlement: settlement}, s)
}

// queueAlone refuses what does not go with a subscription to a queue.
func (c *conn) queueAlone(w *subscribing) error {
	for _, bad := range []struct {
		name string
		set  bool
	}{{headerFrom, w.from != ""}, {headerGroup, w.group != ""}, {"x-queue-name", w.queue != ""}, {"durable-subscription-name", w.name != ""}, {"activemq.noLocal", w.noLocal}} {
		if err := c.only(!bad.set, bad.name, "a queue, whose consumers share what it has"); err != nil {
			return err
		}
	}
	if len(w.sources) > 1 {
		return refuse("unsupported", "invalid destination", "A subscription has one queue, or topics. Use a subscription for each.")
	}
	return nil
}

// only refuses a header that does not go with something.
func (c *conn) only(ok bool, name, with string) error {
	if ok {
		return nil
	}
	return refuse("unsupported", "unsupported header", fmt.Sprintf("The header %s does not go with %s.", name, with))
}

// listens reports whether a subscription of the connection's has an inbox.
func (c *conn) listens(inbox string) bool {
	for _, s := range c.numbered {
		if s.inbox == inbox {
			return true
		}
	}
	return false
}

// unsubscribe obeys UNSUBSCRIBE. What was sent and not acknowledged is
// released. A durable subscription is deleted if the frame names it as such.
func (c *conn) unsubscribe(f *clientFrame) error {
	id, ok := f.header(frame.Id)
	if !ok && c.version == v10 {
		id, ok = f.header(frame.Destination)
	}
	s := c.subscriptions[id]
	w := &subscribing{}
	if err := c.nameDurable(f, w); err != nil {
		return err
	}
	switch {
	case s == nil && w.name != "":
		// The client ends what an earlier connection of its had begun.
		if _, is := c.client.Session(w.name); !is {
			return refuse("unknown_subscription", "unknown subscription", "There is no such durable subscription of this user and client-id.")
		}
	case !ok:
		return missing(f.Command, frame.Id)
	case s == nil:
		return refuse("unknown_subscription", "unknown subscription", fmt.Sprintf("There is no subscription %q on this connection.", clip(id)))
	default:
		s.close()
		delete(c.subscriptions, id)
		delete(c.numbered, s.number)
		c.sources -= s.sources
		if f.value("durable") == "true" && f.value("auto-delete") == "false" {
			w.name = s.durable
		}
	}
	if w.name == "" {
		return nil
	}
	return c.client.EndSession(c.ctx, w.name)
}
