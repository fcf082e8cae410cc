package stomp

import (
	"fmt"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// nameDurable finds out whether a SUBSCRIBE or UNSUBSCRIBE is about a durable
// subscription, in ActiveMQ's words or in RabbitMQ's.
func (c *conn) nameDurable(f *clientFrame, w *subscribing) error {
	for _, name := range [...]string{"activemq.subscriptionName", "activemq.subcriptionName", "durable-subscription-name", "durable-subscriber-name"} {
		value, ok := f.header(name)
		if !ok {
			continue
		}
		if c.clientID == "" {
			return refuse("malformed", "missing header", fmt.Sprintf("%s needs the header client-id in CONNECT.", name))
		}
		w.name, w.exclusive = c.durableName(c.clientID, value), true
		return nil
	}
	if f.value("durable") == "true" && f.value("auto-delete") == "false" && len(w.sources) > 0 && w.sources[0].kind != toQueue && w.queue == "" {
		if !w.hasID {
			return missing("A durable subscription", frame.Id)
		}
		w.name = c.durableName("", w.id+" "+w.sources[0].topic)
	}
	return nil
}

// durableName is the session of a durable subscription: of a user, a client id
// and a name, none of which can be mistaken for another.
func (c *conn) durableName(client, name string) string {
	return "stomp/" + core.SessionName(c.client.Principal().Name) + "/" + core.SessionName(client) + "/" + core.SessionName(name)
}

// attachDurable consumes the queue of a durable subscription.
func (c *conn) attachDurable(w *subscribing, s *subscription, settlement core.Settlement, bindings []core.Binding, from core.From) (*core.Consumer, error) {
	settings := core.QueueSettings{
		Kind: core.KindSession, Expires: c.server.limits.SessionExpiry,
		MaxLength: int64(c.server.limits.SessionMessages), MaxBytes: int64(c.server.limits.SessionBytes), Overflow: core.OverflowDropOldest,
	}
	queue := core.SessionQueue(w.name)
	k, err := c.client.Consume(c.ctx, core.Consumption{
		Queue: queue, Create: true, Settings: &settings, Bindings: bindings, From: from,
		Exclusive: w.exclusive, Settlement: settlement,
	}, s)
	if err != nil {
		return nil, err
	}
	has := k.Bindings()
	same := len(has) == len(bindings)
	for i := 0; same && i < len(has); i++ {
		same = has[i].Filter == bindings[i].Filter && has[i].Exchange == bindings[i].Exchange && has[i].Key == bindings[i].Key && has[i].Where == bindings[i].Where
	}
	if !same {
		k.Close()
		return nil, refuse("conflict", "exists with other settings",
			fmt.Sprintf("The durable subscription is to %s. UNSUBSCRIBE it with its name first to give it another destination or selector.", describe(has)))
	}
	s.durable = w.name
	return k, nil
}

// describe names what bindings lead from, as destinations.
func describe(bindings []core.Binding) string {
	var b []byte
	for i := range bindings {
		if i > 0 {
			b = append(b, ',')
		}
		if bd := &bindings[i]; bd.Exchange != "" {
			b = appendDestination(b, core.ExchangeTopic(bd.Exchange, bd.Key), slashes)
		} else {
			b = append(b, topicPrefix...)
			b = append(b, bd.Filter...)
		}
		if where := bindings[i].Where; where != "" {
			b = append(append(b, " where "...), where...)
		}
	}
	return string(b)
}
