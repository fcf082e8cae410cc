package stomp

import (
	"fmt"
	"strings"

	"github.com/sluicemq/sluice/core"
)

// A style is how a destination writes a topic, and so how it is given back.
type style uint8

const (
	// slashes is /topic/a/b.
	slashes style = iota
	// dots is /topic/a.b.
	dots
	// bare is /a/b, a topic that begins with a slash and has no prefix.
	bare
	// styles is how many there are.
	styles = iota
)

// A kind is what a destination addresses.
type kind uint8

const (
	toTopic kind = iota
	toQueue
	toExchange
	toInbox
)

// A destination is a destination header, understood.
type destination struct {
	kind  kind
	style style
	// topic is the core's address of it. In a subscription to topics it is a
	// filter.
	topic string
	// declared says that a queue must exist (/amq/queue/).
	declared bool
	// temporary names the inbox that the client calls so (/temp-queue/x).
	temporary string
}

const (
	topicPrefix     = "/topic/"
	queuePrefix     = "/queue/"
	amqQueuePrefix  = "/amq/queue/"
	exchangePrefix  = "/exchange/"
	tempQueuePrefix = "/temp-queue/"
	tempTopicPrefix = "/temp-topic/"
	replyPrefix     = "/reply-queue/"
)

// prefixed are the destinations that a composite may be made of.
var prefixed = [...]string{topicPrefix, queuePrefix, amqQueuePrefix, exchangePrefix, tempQueuePrefix, tempTopicPrefix, replyPrefix}

// A naming understands the destinations of a connection.
type naming struct {
	// session owns what is temporary.
	session string
	// strict refuses what has none of the known prefixes.
	strict bool
}

// target understands the destination of a SEND, or a reply-to.
func (n naming) target(s string) (destination, error) {
	d, err := n.address(s, false)
	if err != nil {
		return d, err
	}
	if d.kind == toQueue {
		queue, _ := core.QueueOf(d.topic)
		return d, checkQueue(queue)
	}
	return d, core.CheckTopic(d.topic)
}

// source understands the destination of a SUBSCRIBE: wildcards stand for
// levels, "*" and "+" for one, a final "#" or ">" for the rest.
func (n naming) source(s string) (destination, error) {
	d, err := n.address(s, true)
	if err != nil {
		return d, err
	}
	switch d.kind {
	case toQueue:
		queue, _ := core.QueueOf(d.topic)
		if err = checkQueue(queue); err == nil && hasWildcard(queue) {
			err = refuse("invalid_destination", "invalid destination",
				fmt.Sprintf("The queue %q is named with a wildcard. A subscription has one queue; wildcards stand in topics: bind the queue to a filter, or subscribe to /topic/… with a group.", clip(queue)))
		}
	case toExchange:
		exchange, _, _ := core.ExchangeOf(d.topic)
		err = core.CheckExchangeName(exchange)
	case toInbox:
		if d.temporary == "" {
			err = refuse("invalid_destination", "invalid destination",
				fmt.Sprintf("Replies to %q come to the one who asked. Subscribe to /temp-queue/x and put that into reply-to.", clip(s)))
		}
	default:
		_, err = core.ParseFilter(d.topic)
	}
	return d, err
}

// checkQueue says what is wrong with the name of a queue.
func checkQueue(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the name of the queue is empty", core.ErrInvalidTopic)
	}
	return core.CheckQueueName(name)
}

// hasWildcard reports whether a level of a queue's name is a wildcard to
// ActiveMQ or RabbitMQ.
func hasWildcard(queue string) bool {
	for level := range strings.FieldsFuncSeq(queue, func(r rune) bool { return r == '/' || r == '.' }) {
		if level == "*" || level == ">" {
			return true
		}
	}
	return false
}

// validForms ends what is said to a client whose destination is not one.
const validForms = "Valid ones are /topic/a/b, /queue/q, /amq/queue/q, /exchange/e/k, /temp-queue/x, /temp-topic/x and /reply-queue/x."

func (n naming) address(s string, filter bool) (destination, error) {
	session := n.session
	switch {
	case s == "":
		return destination{}, refuse("invalid_destination", "invalid destination", "The destination is empty. "+validForms)
	case n.strict && !beginsPrefixed(s):
		return destination{}, refuse("invalid_destination", "invalid destination",
			fmt.Sprintf("The destination %q begins with none of the known prefixes. %s", clip(s), validForms))
	case s[0] != '/':
		return destination{kind: toQueue, topic: core.QueueTopic(s)}, nil
	}
	if rest, ok := strings.CutPrefix(s, topicPrefix); ok {
		d := destination{style: slashes}
		if strings.IndexByte(rest, '/') < 0 && (strings.IndexByte(rest, '.') >= 0 || filter && rest == ">") {
			d.style = dots
		}
		d.topic = parseLevels(rest, d.style, filter)
		d.kind = kindOf(d.topic)
		return d, nil
	}
	if rest, ok := strings.CutPrefix(s, queuePrefix); ok {
		return destination{kind: toQueue, topic: core.QueueTopic(rest)}, nil
	}
	if rest, ok := strings.CutPrefix(s, amqQueuePrefix); ok {
		return destination{kind: toQueue, topic: core.QueueTopic(rest), declared: true}, nil
	}
	if rest, ok := strings.CutPrefix(s, exchangePrefix); ok {
		exchange, key, _ := strings.Cut(rest, "/")
		return destination{kind: toExchange, topic: core.ExchangeTopic(exchange, key)}, nil
	}
	if rest, ok := strings.CutPrefix(s, tempQueuePrefix); ok {
		return destination{kind: toInbox, topic: core.InboxPrefix + session + "/" + rest, temporary: s}, nil
	}
	if rest, ok := strings.CutPrefix(s, tempTopicPrefix); ok {
		return destination{kind: toInbox, topic: core.InboxPrefix + session + ".topic/" + rest, temporary: s}, nil
	}
	if rest, ok := strings.CutPrefix(s, replyPrefix); ok {
		return destination{kind: toInbox, topic: core.InboxPrefix + rest}, nil
	}
	return destination{style: bare, topic: parseLevels(s, bare, filter)}, nil
}

// kindOf is what a topic addresses that was written as a topic.
func kindOf(topic string) kind {
	switch {
	case strings.HasPrefix(topic, core.QueuePrefix):
		return toQueue
	case strings.HasPrefix(topic, core.ExchangePrefix):
		return toExchange
	case strings.HasPrefix(topic, core.InboxPrefix):
		return toInbox
	}
	return toTopic
}

// parseLevels makes a topic, or a filter, of what stands behind the prefix.
// "%2E" is a dot, and "%2A", "%3E", "%2C" and "%25" are "*", ">", "," and "%"
// where those mean something themselves. Any other "%" is only that.
func parseLevels(s string, st style, filter bool) string {
	if st == slashes || st == bare {
		if strings.IndexByte(s, '%') < 0 && (!filter || !strings.ContainsAny(s, "*>")) {
			return s
		}
	}
	separator := byte('/')
	if st == dots {
		separator = '.'
	}
	b := make([]byte, 0, len(s))
	for more := true; more; {
		i := strings.IndexByte(s, separator)
		level := s
		if more = i >= 0; more {
			level, s = s[:i], s[i+1:]
		}
		switch {
		case filter && level == "*":
			b = append(b, '+')
		case filter && level == ">" && !more:
			b = append(b, '#')
		default:
			b = appendUnquoted(b, level)
		}
		if more {
			b = append(b, '/')
		}
	}
	return string(b)
}

// quoted returns the byte that a quotation stands for, if s begins with one.
func quoted(s string) (c byte, ok bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	switch s[1:3] {
	case "2E", "2e":
		return '.', true
	case "2A", "2a":
		return '*', true
	case "3E", "3e":
		return '>', true
	case "2C", "2c":
		return ',', true
	case "25":
		return '%', true
	}
	return 0, false
}

func appendUnquoted(dst []byte, level string) []byte {
	for i := 0; i < len(level); i++ {
		if c, ok := quoted(level[i:]); ok {
			dst = append(dst, c)
			i += 2
		} else {
			dst = append(dst, level[i])
		}
	}
	return dst
}

// appendDestination appends the destination of a core's address in a style.
// parseDestination leads back to the address.
func appendDestination(dst []byte, address string, st style) []byte {
	switch kindOf(address) {
	case toQueue:
		dst = append(dst, queuePrefix...)
		return append(dst, address[len(core.QueuePrefix):]...)
	case toExchange:
		dst = append(dst, exchangePrefix...)
		return append(dst, address[len(core.ExchangePrefix):]...)
	case toInbox:
		dst = append(dst, replyPrefix...)
		return append(dst, address[len(core.InboxPrefix):]...)
	}
	if st == bare && (address == "" || address[0] != '/' || beginsPrefixed(address)) {
		st = slashes
	}
	if st != bare {
		dst = append(dst, topicPrefix...)
	}
	if st == dots && strings.IndexByte(address, '/') < 0 && strings.IndexByte(address, '.') < 0 {
		// One level reads the same in both styles.
		st = slashes
	}
	single := strings.IndexByte(address, '/') < 0
	start := 0
	for i := 0; i < len(address); i++ {
		switch c := address[i]; c {
		case '/':
			start = i + 1
			if st == dots {
				c = '.'
			}
			dst = append(dst, c)
		case '.':
			if st == dots || single {
				dst = append(dst, "%2E"...)
			} else {
				dst = append(dst, c)
			}
		case '*', '>':
			if i == start && (i+1 == len(address) || address[i+1] == '/') {
				if c == '*' {
					dst = append(dst, "%2A"...)
				} else {
					dst = append(dst, "%3E"...)
				}
			} else {
				dst = append(dst, c)
			}
		case ',':
			if i+1 < len(address) && address[i+1] == '/' {
				dst = append(dst, "%2C"...)
			} else {
				dst = append(dst, c)
			}
		case '%':
			if _, ok := quoted(address[i:]); ok {
				dst = append(dst, "%25"...)
			} else {
				dst = append(dst, c)
			}
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func beginsPrefixed(s string) bool {
	for _, p := range prefixed {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// parts splits a composite destination, "/queue/a,/topic/b". A comma is only a
// comma unless all that it separates begin with one of the known prefixes.
func parts(s string) []string {
	if !strings.Contains(s, ",/") {
		return nil
	}
	list := strings.Split(s, ",")
	for _, p := range list {
		if !beginsPrefixed(p) {
			return nil
		}
	}
	return list
}
