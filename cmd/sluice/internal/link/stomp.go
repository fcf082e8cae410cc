package link

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-stomp/stomp/v3"
	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// stompLink speaks STOMP 1.2 by go-stomp's client.
type stompLink struct {
	conn *stomp.Conn
	// refused says that an ERROR came, after which the broker hangs up and
	// there is nobody to say goodbye to.
	refused atomic.Bool
}

func dialSTOMP(ctx context.Context, o Options) (Link, error) {
	conn, err := dialTCP(ctx, o)
	if err != nil {
		return nil, err
	}
	options := []func(*stomp.Conn) error{
		stomp.ConnOpt.HeartBeat(20*time.Second, 20*time.Second),
		stomp.ConnOpt.Logger(silence{}),
		stomp.ConnOpt.RcvReceiptTimeout(0), stomp.ConnOpt.UnsubscribeReceiptTimeout(0),
	}
	if o.User != "" {
		options = append(options, stomp.ConnOpt.Login(o.User, o.Password))
	}
	if o.Client != "" {
		options = append(options, stomp.ConnOpt.Header("client-id", o.Client))
	}
	c, err := stomp.ConnectWithContext(ctx, conn, options...)
	if err != nil {
		conn.Close()
		return nil, stompFailure(err)
	}
	return &stompLink{conn: c}, nil
}

// silence is a logger that says nothing: what fails is returned.
type silence struct{}

func (silence) Debugf(string, ...any)   {}
func (silence) Infof(string, ...any)    {}
func (silence) Warningf(string, ...any) {}
func (silence) Errorf(string, ...any)   {}
func (silence) Debug(string)            {}
func (silence) Info(string)             {}
func (silence) Warning(string)          {}
func (silence) Error(string)            {}

// stompKinds are the words of ERROR frames that have a kind.
var stompKinds = map[string]error{
	"access refused": core.ErrNotAuthorized, "not found": core.ErrNotFound, "invalid destination": core.ErrInvalidTopic,
	"message too large": core.ErrTooLarge, "queue full": core.ErrQueueFull, "limit reached": core.ErrLimit, "exists with other settings": core.ErrConflict,
	"storage full": core.ErrStorageFull, "storage failed": core.ErrStorage,
}

// stompFailure makes an ERROR frame's words the error.
func stompFailure(err error) error {
	var e stomp.Error
	var p *stomp.Error
	switch {
	case errors.As(err, &p):
		e = *p
	case errors.As(err, &e):
	default:
		return err
	}
	text := e.Message
	if e.Frame != nil && len(e.Frame.Body) > 0 {
		text += ": " + strings.TrimSpace(string(e.Frame.Body))
	}
	return failure(stompKinds[e.Message], text)
}

// failure is stompFailure of what came over the link.
func (l *stompLink) failure(err error) error {
	var p *stomp.Error
	if errors.As(err, &p) || errors.As(err, new(stomp.Error)) {
		l.refused.Store(true)
	}
	return stompFailure(err)
}

// stompDestination is a topic, filter, queue or exchange in STOMP's words. Only
// a topic's levels are quoted: the names of the others stand as they are.
func stompDestination(topic string) string {
	switch kind, name, key := topicOf(topic); kind {
	case "queue":
		return "/queue/" + name
	case "exchange":
		return "/exchange/" + name + "/" + key
	}
	escape := strings.NewReplacer("%", "%25", ".", "%2E", "*", "%2A", ">", "%3E", ",", "%2C")
	return "/topic/" + escape.Replace(topic)
}

func (l *stompLink) Publish(ctx context.Context, m *Message) (core.Offset, error) {
	destination := stompDestination(m.Topic)
	options := []func(*frame.Frame) error{}
	header := func(name, value string) {
		if value != "" {
			options = append(options, stomp.SendOpt.Header(name, value))
		}
	}
	header("key", m.Key)
	header("message-id", m.ID)
	if m.ReplyTo != "" {
		reply := m.ReplyTo
		if !strings.HasPrefix(reply, "/temp-queue/") {
			reply = stompDestination(reply)
		}
		header("reply-to", reply)
	}
	if m.CorrelationID != nil {
		if utf8.Valid(m.CorrelationID) {
			header("correlation-id", string(m.CorrelationID))
		} else {
			header("correlation-id-base64", base64.StdEncoding.EncodeToString(m.CorrelationID))
		}
	}
	if level, ok := m.Priority.Level(); ok {
		header("priority", strconv.Itoa(level))
	}
	if m.TTL > 0 {
		header("expiration", strconv.FormatInt(m.TTL.Milliseconds(), 10))
	}
	if m.Delay > 0 {
		header("delay", strconv.FormatInt(m.Delay.Milliseconds(), 10))
	}
	if m.Retain {
		header("retain", "true")
	}
	if m.Guarantee == core.AtMostOnce {
		header("persistent", "false")
	} else {
		options = append(options, stomp.SendOpt.Receipt)
	}
	for _, h := range m.Headers {
		options = append(options, func(f *frame.Frame) error { f.Header.Add(h.Name, h.Value); return nil })
	}
	sent := make(chan error, 1)
	go func() { sent <- l.conn.Send(destination, m.ContentType, m.Payload, options...) }()
	select {
	case err := <-sent:
		return 0, l.failure(err)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (l *stompLink) Subscribe(ctx context.Context, s Subscription, handle func(*Message) error) error {
	filters := s.Filters
	if s.Queue != "" {
		filters = []string{core.QueueTopic(s.Queue)}
	}
	mode := stomp.AckAuto
	var options []func(*frame.Frame) error
	header := func(name, value string) {
		if value != "" {
			options = append(options, stomp.SubscribeOpt.Header(name, value))
		}
	}
	if s.Queue != "" || s.Group != "" {
		mode = stomp.AckClientIndividual
		header("prefetch-count", strconv.Itoa(s.Credit))
	}
	header("group", s.Group)
	if s.Ordered {
		header("x-ordered", "true")
	}
	header("from", s.From)
	come := make(chan *stomp.Message)
	done := make(chan struct{})
	defer close(done)
	for _, f := range filters {
		sub, err := l.conn.Subscribe(stompDestination(f), mode, options...)
		if err != nil {
			return l.failure(err)
		}
		go func() {
			for m := range sub.C {
				select {
				case come <- m:
				case <-done:
					return
				}
			}
		}()
	}
	if s.Ready != nil {
		if err := l.settled(); err != nil {
			return err
		}
		s.Ready()
	}
	for {
		var got *stomp.Message
		select {
		case got = <-come:
		case <-ctx.Done():
			return ctx.Err()
		}
		if got.Err != nil {
			return l.failure(got.Err)
		}
		m := stompMessage(got)
		if s.SkipRetained && m.Retained {
			continue
		}
		err := handle(m)
		if mode != stomp.AckAuto && (err == nil || errors.Is(err, ErrStop)) {
			if failed := l.conn.Ack(got); failed != nil {
				return failed
			}
		}
		if err != nil {
			return err
		}
	}
}

// settled waits until the broker has read the subscriptions: it obeys frames in
// order, and the end of a subscription has a receipt.
func (l *stompLink) settled() error {
	sub, err := l.conn.Subscribe("/temp-queue/"+rand.Text(), stomp.AckAuto)
	if err != nil {
		return l.failure(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sub.Unsubscribe() }()
	select {
	case err = <-ended:
	case m := <-sub.C:
		if m != nil {
			err = m.Err
		}
	}
	return l.failure(err)
}

// stompOwn are the headers of a MESSAGE frame that are not its publisher's.
var stompOwn = []string{
	"destination", "message-id", "subscription", "ack", "content-length", "content-type", "key", "original-message-id", "reply-to",
	"correlation-id", "correlation-id-base64", "priority", "expires", "persistent", "retain", "offset", "time", "attempt", "redelivered",
	"publisher", "gap",
}

func stompMessage(got *stomp.Message) *Message {
	m := &Message{Attempt: 1}
	h := got.Header
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(h.Get(name), 10, 64)
		return n
	}
	m.Topic = stompTopic(got.Destination)
	m.Payload, m.ContentType = got.Body, got.ContentType
	m.Key, m.ID = h.Get("key"), h.Get("original-message-id")
	if r := h.Get("reply-to"); r != "" {
		m.ReplyTo = stompTopic(r)
	}
	if c, ok := h.Contains("correlation-id"); ok {
		m.CorrelationID = []byte(c)
	} else if c, ok := h.Contains("correlation-id-base64"); ok {
		m.CorrelationID, _ = base64.StdEncoding.DecodeString(c)
	}
	if _, ok := h.Contains("priority"); ok {
		m.Priority = core.PriorityOf(int(number("priority")))
	}
	if e := number("expires"); e > 0 {
		m.TTL = max(time.Until(time.UnixMilli(e)), 0)
	}
	if t := number("time"); t > 0 {
		m.Time = time.UnixMilli(t)
	}
	m.Offset, m.Attempt, m.Retained = core.Offset(number("offset")), max(int(number("attempt")), 1), h.Get("retain") == "true"
	for i := range h.Len() {
		name, value := h.GetAt(i)
		if !slices.Contains(stompOwn, name) {
			m.Headers = append(m.Headers, core.Header{Name: strings.TrimPrefix(name, "header-"), Value: value})
		}
	}
	return m
}

// stompTopic is a destination in the core's words. What it does not know it
// leaves as it is.
func stompTopic(destination string) string {
	for prefix, address := range map[string]string{"/queue/": core.QueuePrefix, "/exchange/": core.ExchangePrefix} {
		if rest, ok := strings.CutPrefix(destination, prefix); ok {
			return address + rest // names and keys are not quoted
		}
	}
	if rest, ok := strings.CutPrefix(destination, "/topic/"); ok {
		return strings.NewReplacer("%25", "%", "%2E", ".", "%2A", "*", "%3E", ">", "%2C", ",").Replace(rest)
	}
	return destination
}

func (l *stompLink) Request(ctx context.Context, m *Message) (*Message, error) {
	m.ReplyTo = "/temp-queue/" + rand.Text()
	if m.CorrelationID == nil {
		m.CorrelationID = []byte(rand.Text()[:8])
	}
	sub, err := l.conn.Subscribe(m.ReplyTo, stomp.AckAuto)
	if err != nil {
		return nil, l.failure(err)
	}
	if _, err := l.Publish(ctx, m); err != nil {
		return nil, err
	}
	select {
	case got := <-sub.C:
		if got == nil {
			return nil, errLost
		}
		if got.Err != nil {
			return nil, l.failure(got.Err)
		}
		return stompMessage(got), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *stompLink) Close() error {
	if l.refused.Load() {
		_ = l.conn.MustDisconnect() // or the broker has hung up first
		return nil
	}
	ended := make(chan error, 1)
	go func() { ended <- l.conn.Disconnect() }()
	select {
	case err := <-ended:
		if errors.Is(err, stomp.ErrAlreadyClosed) || errors.Is(err, stomp.ErrClosedUnexpectedly) {
			return nil
		}
		return err
	case <-time.After(2 * time.Second):
		l.conn.MustDisconnect()
		return fmt.Errorf("%w before it was closed", errLost)
	}
}
