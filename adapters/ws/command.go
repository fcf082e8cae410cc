package ws

import (
	"cmp"
	"fmt"
	"math/bits"

	"github.com/sluicemq/sluice/core"
)

// An op is what a command wants.
type op uint8

const (
	opNone op = iota
	opHello
	opPub
	opSub
	opAck
	opNack
	opExtend
	opCredit
	opRequest
	opUnsub
	opPing
	opBye
	opAuth
)

// A field is one member of a command, as a bit.
type field uint64

const (
	fieldOp field = 1 << iota
	fieldReq
	fieldToken
	fieldUser
	fieldPass
	fieldClient
	fieldTopic
	fieldQueue
	fieldExchange
	fieldKey
	fieldGroup
	fieldData
	fieldBinary
	fieldType
	fieldHeaders
	fieldReply
	fieldCorr
	fieldCorr64
	fieldTTL
	fieldPriority
	fieldID
	fieldDelay
	fieldDurable
	fieldRetain
	fieldSub
	fieldFrom
	fieldCredit
	fieldRetained
	fieldAck
	fieldCreate
	fieldExclusive
	fieldGap
	fieldOffset
	fieldCount
	fieldRequeue
	fieldReason
	fieldBy
	fieldTimeout
	fieldResume
	fieldWhere
	fieldMandatory
	fieldOrdered
)

// fieldNames are in the order of the bits.
var fieldNames = [...]string{
	"op", "req", "token", "user", "pass", "client", "topic", "queue", "exchange", "key", "group", "d", "b", "type", "h",
	"reply", "corr", "corr64", "ttl", "prio", "id", "delay", "durable", "retain", "sub", "from", "credit", "retained",
	"ack", "create", "exclusive", "gap", "o", "n", "requeue", "reason", "by", "timeout", "resume", "where", "mandatory",
	"ordered",
}

func (f field) String() string { return fieldNames[bits.TrailingZeros64(uint64(f))] }

func fieldOf(name string) field {
	switch name {
	case "op":
		return fieldOp
	case "req":
		return fieldReq
	case "topic":
		return fieldTopic
	case "d":
		return fieldData
	case "o":
		return fieldOffset
	case "sub":
		return fieldSub
	}
	for i, n := range fieldNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

const message = fieldTopic | fieldQueue | fieldExchange | fieldKey | fieldData | fieldBinary | fieldType | fieldHeaders |
	fieldCorr | fieldCorr64 | fieldTTL | fieldPriority | fieldID | fieldDelay | fieldDurable | fieldMandatory

// grammar says which members a command may and must have, beside "op" and
// "req".
var grammar = [...]struct {
	name      string
	may, must field
}{
	opHello:   {"hello", fieldToken | fieldUser | fieldPass | fieldClient | fieldResume, 0},
	opPub:     {"pub", message | fieldReply | fieldRetain, 0},
	opSub:     {"sub", fieldSub | fieldTopic | fieldQueue | fieldExchange | fieldKey | fieldGroup | fieldFrom | fieldCredit | fieldRetained | fieldAck | fieldCreate | fieldExclusive | fieldGap | fieldWhere | fieldOrdered, 0},
	opAck:     {"ack", 0, fieldSub | fieldOffset},
	opNack:    {"nack", fieldRequeue | fieldDelay | fieldReason, fieldSub | fieldOffset},
	opExtend:  {"extend", 0, fieldSub | fieldOffset | fieldBy},
	opCredit:  {"credit", 0, fieldSub | fieldCount},
	opRequest: {"request", message | fieldTimeout, fieldReq},
	opUnsub:   {"unsub", 0, fieldSub},
	opPing:    {"ping", 0, 0},
	opBye:     {"bye", 0, 0},
	opAuth:    {"auth", fieldToken | fieldUser | fieldPass, 0},
}

func opOf(name string) op {
	for i := opHello; int(i) < len(grammar); i++ {
		if grammar[i].name == name {
			return i
		}
	}
	return opNone
}

// A command is one message of the client's. Its strings and slices alias the
// message. One command is used again and again.
type command struct {
	// maxHeaders is the most headers that decode takes, maxValue how long the
	// JSON text of a value may become that came in another coding.
	maxHeaders, maxValue int
	json                 lexer
	cbor                 cborLexer

	op  op
	has field
	// req is the request's number or name as it came, in the coding of the
	// connection; nil if it has none.
	req []byte

	token, user, pass, client, resume         string
	topic, queue, exchange, key, group        string
	contentType, reply, id, sub, from, reason string
	where                                     string
	corr                                      []byte
	headers                                   []core.Header
	payload                                   []byte
	// structured says that the payload is the text of a JSON value that is
	// not a string.
	structured                          bool
	ttl, delay, by, timeout             uint64 // milliseconds
	priority                            uint64
	offset                              uint64
	credit, count                       uint64
	retain, retained, create, exclusive bool
	gap, durable, ack, requeue          bool
	mandatory, ordered                  bool
}

func (c *command) hasAny(f field) bool { return c.has&f != 0 }

// The most that a request's name, a subscription's name and a reason may have
// in bytes, and a time in milliseconds: a hundred years.
const (
	maxReqBytes    = 64
	maxSubBytes    = 64
	maxReasonBytes = 1024
	maxMillis      = 100 * 365 * 24 * 3600 * 1000
	// maxSafe is the largest integer that every reader of JSON keeps exactly
	// (RFC 8259, section 6).
	maxSafe = 1<<53 - 1
)

// decode decodes a message, which is changed. What is JSON has been found to be
// UTF-8. On an error, what was decoded until then (req above all) is there.
func (c *command) decode(in coding, text []byte) error {
	c.op, c.has, c.req = opNone, 0, nil
	c.token, c.user, c.pass, c.client, c.resume = "", "", "", "", ""
	c.topic, c.queue, c.exchange, c.key, c.group = "", "", "", "", ""
	c.contentType, c.reply, c.id, c.sub, c.from, c.reason, c.where = "", "", "", "", "", "", ""
	c.corr, c.headers, c.payload, c.structured = nil, c.headers[:0], nil, false
	c.ttl, c.delay, c.by, c.timeout, c.priority, c.offset, c.credit, c.count = 0, 0, 0, 0, 0, 0, 0, 0
	c.retain, c.retained, c.exclusive, c.gap, c.ack, c.mandatory, c.ordered = false, false, false, false, false, false, false
	c.durable, c.create, c.requeue = true, true, true
	var l decoder = &c.json
	if in == codingCBOR {
		c.cbor.most = c.maxValue
		l = &c.cbor
	}
	l.reset(text)
	return c.take(l)
}

func (c *command) take(l decoder) error {
	opAt := 0
	var wrong error // what is well formed but means nothing; req may follow it
	err := l.object()
	for err == nil {
		var name string
		var at int
		var more bool
		if name, at, more, err = l.name(); err != nil || !more {
			break
		}
		f := fieldOf(name)
		switch {
		case f == 0:
			wrong = cmp.Or(wrong, l.failAt(at, fmt.Sprintf("unknown member %.32q", name)))
			err = l.skip()
			continue
		case c.has&f != 0:
			return l.failAt(at, fmt.Sprintf("member %q comes twice", f))
		}
		c.has |= f
		if f != fieldOp {
			err = c.member(l, f)
			continue
		}
		l.front()
		opAt = l.at()
		var op string
		op, err = l.str()
		if c.op = opOf(op); c.op == opNone && err == nil {
			wrong = cmp.Or(wrong, l.failAt(opAt, fmt.Sprintf("unknown op %.32q", op)))
		}
	}
	if err == nil {
		err = l.end()
	}
	if err = cmp.Or(err, wrong); err != nil {
		return err
	}
	if c.op == opNone {
		return l.failAt(opAt, `the member "op" is missing`)
	}
	g := &grammar[c.op]
	if extra := c.has &^ (g.may | g.must | fieldOp | fieldReq); extra != 0 {
		return l.failAt(opAt, fmt.Sprintf("%q has no member %q", g.name, extra))
	}
	if missing := g.must &^ c.has; missing != 0 {
		return l.failAt(opAt, fmt.Sprintf("%q needs the member %q", g.name, missing))
	}
	if c.has&(fieldData|fieldBinary) == fieldData|fieldBinary {
		return l.failAt(opAt, `"d" and "b" exclude each other`)
	}
	if c.has&(fieldCorr|fieldCorr64) == fieldCorr|fieldCorr64 {
		return l.failAt(opAt, `"corr" and "corr64" exclude each other`)
	}
	return nil
}

// member takes the value of one member other than op.
func (c *command) member(l decoder, f field) (err error) {
	switch f {
	case fieldReq:
		c.req, err = l.req()
	case fieldToken:
		c.token, err = l.str()
	case fieldUser:
		c.user, err = l.str()
	case fieldPass:
		c.pass, err = l.str()
	case fieldClient:
		c.client, err = l.str()
	case fieldTopic:
		c.topic, err = l.str()
	case fieldQueue:
		c.queue, err = l.str()
	case fieldExchange:
		c.exchange, err = l.str()
	case fieldKey:
		c.key, err = l.str()
	case fieldGroup:
		c.group, err = l.str()
	case fieldData:
		if l.front() == kindText {
			c.payload, err = l.text()
		} else {
			c.payload, err = l.value()
			c.structured = true
		}
	case fieldBinary:
		c.payload, err = l.binary()
	case fieldType:
		c.contentType, err = l.str()
	case fieldHeaders:
		return c.takeHeaders(l)
	case fieldReply:
		c.reply, err = l.str()
	case fieldCorr:
		c.corr, err = l.text()
	case fieldCorr64:
		c.corr, err = l.binary()
	case fieldTTL:
		c.ttl, err = l.integer(maxMillis)
	case fieldPriority:
		c.priority, err = l.integer(9)
	case fieldID:
		c.id, err = l.str()
	case fieldDelay:
		c.delay, err = l.integer(maxMillis)
	case fieldDurable:
		c.durable, err = l.boolean()
	case fieldRetain:
		c.retain, err = l.boolean()
	case fieldSub:
		c.sub, err = c.bounded(l, 1, maxSubBytes)
	case fieldFrom:
		if l.front() == kindText {
			c.from, err = l.str()
		} else {
			c.from, err = l.number()
		}
	case fieldCredit:
		c.credit, err = l.integer(maxSafe)
	case fieldRetained:
		c.retained, err = l.boolean()
	case fieldAck:
		c.ack, err = l.boolean()
	case fieldCreate:
		c.create, err = l.boolean()
	case fieldExclusive:
		c.exclusive, err = l.boolean()
	case fieldGap:
		c.gap, err = l.boolean()
	case fieldOrdered:
		c.ordered, err = l.boolean()
	case fieldOffset:
		c.offset, err = l.integer(maxSafe)
	case fieldCount:
		c.count, err = l.integer(maxSafe)
	case fieldRequeue:
		c.requeue, err = l.boolean()
	case fieldReason:
		c.reason, err = c.bounded(l, 0, maxReasonBytes)
	case fieldBy:
		c.by, err = l.integer(maxMillis)
	case fieldTimeout:
		c.timeout, err = l.integer(maxMillis)
	case fieldResume:
		c.resume, err = l.str()
	case fieldWhere:
		c.where, err = l.str()
	case fieldMandatory:
		c.mandatory, err = l.boolean()
	}
	return err
}

func (c *command) bounded(l decoder, least, most int) (string, error) {
	l.front()
	at := l.at()
	s, err := l.str()
	if err == nil && (len(s) < least || len(s) > most) {
		err = l.failAt(at, fmt.Sprintf("want a string of %d to %d bytes", least, most))
	}
	return s, err
}

// takeHeaders takes a list of pairs, or an object in which no name repeats.
func (c *command) takeHeaders(l decoder) error {
	if l.front() == kindObject {
		err := l.object()
		for err == nil {
			name, at, more, failed := l.name()
			if failed != nil || !more {
				return failed
			}
			for i := range c.headers {
				if c.headers[i].Name == name {
					return l.failAt(at, fmt.Sprintf("header %.32q comes twice: give a list of pairs", name))
				}
			}
			var value string
			if value, err = l.str(); err == nil {
				err = c.addHeader(l, at, name, value)
			}
		}
		return err
	}
	err := l.array()
	for err == nil {
		more, failed := l.element()
		if failed != nil || !more {
			return failed
		}
		err = c.takePair(l)
	}
	return err
}

// takePair takes a header's name and value.
func (c *command) takePair(l decoder) error {
	var pair [2]string
	l.front()
	at, n := l.at(), 0
	if err := l.array(); err != nil {
		return err
	}
	for {
		more, err := l.element()
		if err != nil {
			return err
		}
		if more && n == len(pair) || !more && n < len(pair) {
			return l.failAt(at, "want a header's name and value")
		}
		if !more {
			return c.addHeader(l, at, pair[0], pair[1])
		}
		if pair[n], err = l.str(); err != nil {
			return err
		}
		n++
	}
}

func (c *command) addHeader(l decoder, at int, name, value string) error {
	if len(c.headers) == c.maxHeaders {
		return l.failAt(at, fmt.Sprintf("more than %d headers", c.maxHeaders))
	}
	c.headers = append(c.headers, core.Header{Name: name, Value: value})
	return nil
}
