package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// A composing holds the flags that describe a message.
type composing struct {
	headers                           []string
	key, id, contentType, reply, corr string
	ttl, delay                        string
	priority, qos                     int
	retain                            bool
}

func (o *composing) flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.headers, "header", "H", nil, "a header, `name:value`; may be repeated")
	f.StringVar(&o.key, "key", "", "`key` that orders messages")
	f.StringVar(&o.id, "id", "", "message `id`: a second publish of it changes nothing")
	f.StringVarP(&o.contentType, "type", "t", "", "content `type`")
	f.StringVar(&o.corr, "corr", "", "correlation `id`")
	f.StringVar(&o.ttl, "ttl", "", "`time` after which it is not delivered any more, such as 90s")
	f.StringVar(&o.delay, "delay", "", "`time` before which it is not delivered")
	f.IntVar(&o.priority, "priority", -1, "0 to 9")
	f.IntVar(&o.qos, "qos", 1, "0: do not wait for the confirmation, 1: at least once, 2: exactly once")
}

// message makes the message that the flags describe.
func (o *composing) message(topic string, body []byte) (*link.Message, error) {
	m := &link.Message{}
	m.Topic, m.Payload, m.Key, m.ID, m.ContentType, m.ReplyTo, m.Retain = topic, body, o.key, o.id, o.contentType, o.reply, o.retain
	if o.corr != "" {
		m.CorrelationID = []byte(o.corr)
	}
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("-H %q: want name:value", h)}
		}
		m.Headers = append(m.Headers, core.Header{Name: name, Value: strings.TrimPrefix(value, " ")})
	}
	for flag, at := range map[string]struct {
		text string
		to   *time.Duration
	}{"--ttl": {o.ttl, &m.TTL}, "--delay": {o.delay, &m.Delay}} {
		if at.text == "" {
			continue
		}
		d, err := configs.ParseDuration(at.text)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", flag, err)}
		}
		*at.to = time.Duration(d)
	}
	if o.priority > 9 || o.priority < -1 {
		return nil, usageError{fmt.Errorf("--priority %d: want 0 to 9", o.priority)}
	}
	if o.priority >= 0 {
		m.Priority = core.PriorityOf(o.priority)
	}
	guarantee, err := guaranteeOf(o.qos)
	m.Guarantee = guarantee
	return m, err
}

func guaranteeOf(qos int) (core.Guarantee, error) {
	if qos < 0 || qos > 2 {
		return 0, usageError{fmt.Errorf("--qos %s: want 0, 1 or 2", strconv.Itoa(qos))}
	}
	return core.Guarantee(qos), nil
}
