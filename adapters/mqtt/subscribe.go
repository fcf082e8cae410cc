package mqtt

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluicemq/sluice/core"
)

// handleSubscribe takes a SUBSCRIBE (section 3.8), filter by filter.
func (c *conn) handleSubscribe(pk *packets.Packet) error {
	if !c.takesAnswer(pk) {
		return errSmallAnswers
	}
	id := 0
	if len(pk.Properties.SubscriptionIdentifier) > 0 {
		id = pk.Properties.SubscriptionIdentifier[0]
	}
	var asked wishes
	for _, u := range pk.Properties.User {
		switch u.Key {
		case userFrom:
			asked.from = u.Val
		case userMeta:
			asked.meta = u.Val
		case userOrdered:
			asked.ordered = u.Val == "true"
		}
	}
	// What was published before is no new message to the subscription. What
	// others are not yet confirmed may be: whose packet came first, nobody can
	// tell.
	if err := c.client.CatchUpOwn(c.ctx); err != nil {
		return err
	}
	codes := make([]byte, len(pk.Filters))
	var why error
	var grants []*attachment
	for i := range pk.Filters {
		f := &pk.Filters[i]
		a, err := c.subscribe(f, id, asked, len(pk.Filters))
		switch {
		case err == nil:
			codes[i] = f.Qos
			if a != nil {
				grants = append(grants, a)
			}
		case c.ctx.Err() != nil:
			return c.ctx.Err()
		default:
			code, reason := reasonOf(err, typeSuback)
			c.s.metrics.Refused(reason)
			codes[i], why = code, err
			if c.v != v5 {
				codes[i] = codeUnspecified
			}
		}
	}
	if why != nil && c.v == v31 {
		// MQTT 3.1 has no word for a refused subscription.
		return &fault{codeUnspecified, "subscription_refused", why.Error()}
	}
	if c.metaChanged || slices.ContainsFunc(grants, func(a *attachment) bool { return a.kind != targetReplay && a != c.main }) {
		if err := c.saveExtras(); err != nil {
			return err
		}
	}
	// The session knows all of them before the client is told of one.
	if c.main != nil {
		if err := c.main.k.Save(c.ctx); err != nil {
			return err
		}
	}
	c.answer(typeSuback, pk.PacketID, codes, why)
	for _, a := range grants {
		a.k.Grant(core.Credit{Messages: c.credit, Bytes: c.creditBytes(a)})
	}
	return nil
}

// creditBytes is how many bytes a consumer may have in the outbox.
func (c *conn) creditBytes(a *attachment) int {
	if a == c.main {
		return c.s.limits.OutputBytes
	}
	return max(c.s.limits.OutputBytes/8, 4<<10)
}

// takesAnswer reports whether the client takes the SUBACK or UNSUBACK that is due,
// at its smallest: it would wait for one that is not sent, as too large
// ([MQTT-3.1.2-24], [MQTT-3.8.4-1], [MQTT-3.10.4-4] of 5.0).
func (c *conn) takesAnswer(pk *packets.Packet) bool {
	if c.maxOut == 0 {
		return true
	}
	a := packets.Packet{FixedHeader: packets.FixedHeader{Type: typeSuback}, ProtocolVersion: byte(v5), ReasonCodes: make([]byte, len(pk.Filters))}
	return len(encodeControl(&a)) <= c.maxOut
}

// answer sends SUBACK or UNSUBACK; MQTT 3.1.1's UNSUBACK has no codes.
func (c *conn) answer(kind byte, id uint16, codes []byte, why error) {
	a := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: kind}, ProtocolVersion: byte(c.v), PacketID: id, ReasonCodes: codes,
		Mods: packets.Mods{MaxSize: uint32(c.maxOut), DisallowProblemInfo: !c.problems},
	}
	if why != nil {
		a.Properties.ReasonString = why.Error()
	}
	c.send(encodeControl(&a))
}

// wishes are what the user properties of a SUBSCRIBE ask for.
type wishes struct {
	from string
	meta string // "true", "false", or empty where nothing is said
	// ordered wants a group to keep the order of each key.
	ordered bool
}

// wantsMeta reports whether deliveries of a subscription of its own are to say
// their offset, time and attempt: those of a replay or a queue do unless told
// otherwise, as who reads these needs them; those of a group do not.
func (w *wishes) wantsMeta(t *target) bool {
	return w.meta == "true" || w.meta == "" && (t.kind == targetReplay || t.kind == targetQueue)
}

// setMeta says whether deliveries of the session's own consumer say their
// offset, time and attempt. It holds for all of its subscriptions.
func (c *conn) setMeta(wanted bool) {
	c.out.Append(func(b []byte) []byte {
		c.main.meta = wanted
		return b
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metaChanged = c.metaChanged || c.meta.Meta != wanted
	c.meta.Meta = wanted
}

// subscribe makes one subscription, or replaces the one with the same filter
// ([MQTT-3.8.4-3]). A consumer that it began is returned: it waits for credit.
func (c *conn) subscribe(f *packets.Subscription, id int, asked wishes, inPacket int) (*attachment, error) {
	if inPacket > c.s.limits.SubscriptionsPacket {
		return nil, fmt.Errorf("%w: %d subscriptions in one packet", core.ErrLimit, inPacket)
	}
	t, err := parseTarget(f.Filter, asked.from, time.Now())
	if err != nil {
		return nil, err
	}
	o := subscriptionOptions(f.Qos) | subscriptionOptions(id)<<optionID
	if f.NoLocal {
		o |= optionNoLocal
	}
	if f.RetainAsPublished {
		o |= optionRAP
	}
	if t.own() {
		meta := asked.wantsMeta(&t)
		if a := c.sender(f.Filter); t.kind != targetReplay && a != nil && a.kind == t.kind {
			if asked.ordered && t.kind == targetGroup {
				if err := a.k.KeepsOrder(); err != nil {
					return nil, err
				}
			}
			c.change(a, o, meta)
			return nil, nil
		}
		t.ordered = asked.ordered
		a, err := c.attach(c.ctx, strings.Clone(f.Filter), &t, o, meta)
		if err != nil {
			return nil, err
		}
		// The filter may have been subscribed plainly before.
		if t.kind == targetReplay && asked.from != "" && c.main != nil {
			c.unbind(&target{kind: targetTopics, filter: t.filter})
		}
		return a, nil
	}
	if c.bridge {
		o |= optionNoLocal | optionRAP
	}
	if err := c.bind(&t, o, f.RetainHandling); err != nil {
		return nil, err
	}
	if c.detach(f.Filter) { // it was a replay before
		c.saveAtEnd = true
	}
	if asked.meta != "" {
		c.setMeta(asked.meta == "true")
	}
	if c.fresh {
		c.fresh = false
		return c.main, nil
	}
	return nil, nil
}

// bind adds a binding to the session's consumer, which begins with the first
// one where the session is not a queue.
func (c *conn) bind(t *target, o subscriptionOptions, retainHandling byte) error {
	if c.main == nil {
		a := &attachment{c: c}
		k, err := c.client.Subscribe(c.ctx, core.Subscription{}, a)
		if err != nil {
			return err
		}
		a.k = k
		c.main, c.fresh = a, true
	}
	b := t.binding()
	had, known := c.boundTag(b)
	if len(c.extras) > 0 && !known && len(c.main.k.Bindings())+len(c.extras) >= c.s.limits.Subscriptions {
		return fmt.Errorf("%w: too many subscriptions", core.ErrLimit)
	}
	plain, meta := optionsOf(had)
	existed := plain.exists()
	if t.kind == targetMeta {
		existed = meta.exists()
		meta = o
	} else {
		plain = o
	}
	b.Tag = tagOf(plain, meta)
	b.Settlement = core.SettleNever
	if plain.exists() && plain.qos() > 0 || meta.exists() && meta.qos() > 0 {
		b.Settlement = core.SettleGuaranteed
	}
	// [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
	retained := retainHandling == 0 || retainHandling == 1 && !existed
	return c.main.k.Bind(c.ctx, b, core.BindOptions{Retained: retained, Unsaved: true})
}

// boundTag is the tag of the session's binding, if it has it.
func (c *conn) boundTag(b core.Binding) (tag uint64, known bool) {
	if had, known := c.main.k.Bound(b); known {
		return had.Tag, true
	}
	return tagOf(optionNone, optionNone), false
}

// attach begins a consumer of its own for a subscription.
func (c *conn) attach(ctx context.Context, filter string, t *target, o subscriptionOptions, meta bool) (*attachment, error) {
	n := len(c.extras)
	if c.main != nil {
		n += len(c.main.k.Bindings())
	}
	c.detach(filter)
	if n >= c.s.limits.Subscriptions {
		return nil, fmt.Errorf("%w: too many subscriptions", core.ErrLimit)
	}
	a := &attachment{c: c, filter: filter, options: o, kind: t.kind, meta: meta, ordered: t.ordered}
	settlement := o.settlement()
	f := core.Filter(strings.Clone(string(t.filter)))
	var err error
	switch t.kind {
	case targetReplay:
		a.k, err = c.client.Subscribe(ctx, core.Subscription{
			Bindings: []core.Binding{{Filter: f, Settlement: settlement}}, From: t.from,
		}, a)
	case targetGroup:
		settings := core.DefaultGroupSettings()
		settings.Ordered = t.ordered
		a.k, err = c.client.Consume(ctx, core.Consumption{
			Queue: core.GroupQueue(t.group, f), Create: true, Settings: &settings,
			Bindings: []core.Binding{{Filter: f}}, From: t.from, Settlement: settlement,
			Session: c.sessionName(), Once: o.qos() == 2, // [MQTT-4.8.2-4], [MQTT-4.8.2-5]
		}, a)
	case targetQueue:
		a.k, err = c.client.Consume(ctx, core.Consumption{
			Queue: strings.Clone(t.queue), Create: true, Settlement: settlement,
		}, a)
	}
	if err != nil {
		return nil, err
	}
	c.extras = append(c.extras, a)
	return a, nil
}

// change gives the consumer of a group's or queue's subscription other options.
// What is on its way to the client goes on as it was sent ([MQTT-3.8.4-3]).
func (c *conn) change(a *attachment, o subscriptionOptions, meta bool) {
	c.out.Append(func(b []byte) []byte {
		a.options, a.meta = o, meta
		return b
	})
	a.k.Change(o.settlement(), a.kind == targetGroup && o.qos() == 2)
	c.metaChanged = true
}

// detach ends the consumer of a subscription, if it has one of its own. Messages
// that are on their way are completed first ([MQTT-3.10.4-3]).
func (c *conn) detach(filter string) bool {
	i := slices.IndexFunc(c.extras, func(a *attachment) bool { return a.filter == filter })
	if i < 0 {
		return false
	}
	a := c.extras[i]
	c.extras = slices.Delete(c.extras, i, i+1)
	a.k.Retire()
	c.retired = append(c.retired, a)
	c.letGo(a)
	return true
}

// letGo ends the consumer of a subscription that there is no more, once no message
// of it is on its way.
func (c *conn) letGo(a *attachment) {
	i := slices.Index(c.retired, a)
	if i < 0 || c.flights.with(a) {
		return
	}
	c.retired = slices.Delete(c.retired, i, i+1)
	a.k.Close()
}

// saveExtras keeps the subscriptions that are no bindings with the session. A
// replay ends with its connection.
func (c *conn) saveExtras() error {
	if c.session != sessionQueue {
		return nil
	}
	var extras []metaExtra
	for _, a := range c.extras {
		if a.kind != targetReplay {
			extras = append(extras, metaExtra{a.filter, a.options, a.meta, a.ordered})
		}
	}
	c.metaChanged = false
	c.mu.Lock()
	c.meta.Extras = extras
	c.mu.Unlock()
	if err := c.save(c.ctx); err != nil {
		code, reason := reasonOf(err, typeDisconnect)
		return &fault{code, reason, err.Error()}
	}
	return nil
}

// reattach begins the consumers of a resumed session that are not its own; they
// wait for credit. One that is refused now, because a right was withdrawn, is left
// out.
func (c *conn) reattach() (begun []*attachment) {
	for _, x := range c.meta.Extras {
		t, err := parseTarget(x.Filter, "", time.Now())
		if err == nil {
			t.ordered = x.Ordered
			var a *attachment
			if a, err = c.attach(c.ctx, x.Filter, &t, x.Options, x.Meta); err == nil {
				begun = append(begun, a)
				continue
			}
		}
		_, reason := reasonOf(err, typeSuback)
		c.s.metrics.Refused(reason)
		c.s.log.Info("subscription not resumed", "client", c.id, "err", err)
	}
	return begun
}

// handleUnsubscribe takes an UNSUBSCRIBE (section 3.10).
func (c *conn) handleUnsubscribe(pk *packets.Packet) error {
	if !c.takesAnswer(pk) {
		return errSmallAnswers
	}
	if err := c.client.CatchUp(c.ctx); err != nil {
		return err
	}
	codes := make([]byte, len(pk.Filters))
	var why error
	extras := false
	for i := range pk.Filters {
		filter := pk.Filters[i].Filter
		if c.detach(filter) {
			extras = true
			continue
		}
		t, err := parseTarget(filter, "", time.Now())
		if err == nil && t.own() {
			err = core.ErrNotFound
		}
		if err == nil {
			err = c.unbind(&t)
		}
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if codes[i], _ = reasonOf(err, typeUnsuback); err != nil && codes[i] >= 0x80 {
			why = err
		}
	}
	if extras {
		if err := c.saveExtras(); err != nil {
			return err
		}
	}
	c.answer(typeUnsuback, pk.PacketID, codes, why)
	return nil
}

// unbind removes a subscription; the binding stays where the filter is also
// subscribed in the other form.
func (c *conn) unbind(t *target) error {
	if c.main == nil {
		return core.ErrNotFound
	}
	b := t.binding()
	tag, known := c.boundTag(b)
	plain, meta := optionsOf(tag)
	gone, rest := &plain, &meta
	if t.kind == targetMeta {
		gone, rest = rest, gone
	}
	if !known || !gone.exists() {
		return core.ErrNotFound
	}
	if !rest.exists() {
		return c.main.k.Unbind(c.ctx, b)
	}
	*gone = optionNone
	b.Tag = tagOf(plain, meta)
	if rest.qos() > 0 {
		b.Settlement = core.SettleGuaranteed
	}
	return c.main.k.Bind(c.ctx, b, core.BindOptions{})
}
