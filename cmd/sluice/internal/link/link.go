// Package link is the client side of Sluice's command line: one Link for each
// protocol, all of which do the same by the same words. Where a protocol has a
// client library of others, the link uses that.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A Link is a connection to a broker.
type Link interface {
	// Publish publishes a message and waits until it is confirmed, unless it
	// says AtMostOnce. The offset is 0 where the protocol does not tell.
	Publish(ctx context.Context, m *Message) (core.Offset, error)
	// Subscribe hands over what comes, one message at a time, until ctx ends
	// or handle fails, whose error it returns. A message of a queue or group
	// is acknowledged once handle has returned nil.
	Subscribe(ctx context.Context, s Subscription, handle func(*Message) error) error
	// Request publishes a message and waits for the first reply.
	Request(ctx context.Context, m *Message) (*Message, error)
	// Close says goodbye.
	Close() error
}

// A Message is one to be published, or one that came.
type Message struct {
	core.Envelope
	// TTL and Delay are what is asked of the broker.
	TTL, Delay time.Duration
	// Offset and Attempt are 0 where the protocol does not tell.
	Offset   core.Offset
	Attempt  int
	Retained bool
}

// A Subscription says what is wanted. Queue stands alone; Group goes with one
// filter.
type Subscription struct {
	Filters      []string
	Queue        string
	Group        string
	Ordered      bool // a group that is new keeps the order of keys
	From         string
	Guarantee    core.Guarantee
	SkipRetained bool
	// Credit is how many messages of a queue or group may be under way.
	Credit int
	// Ready is called once the broker has accepted all of it.
	Ready func()
}

// Options say how to connect.
type Options struct {
	Address        string // host:port
	TLS            *tls.Config
	User, Password string
	Client         string
	// Timeout of the connection's beginning.
	Timeout time.Duration
}

// Protocols are the names that Dial knows.
var Protocols = []string{"ws", "http", "mqtt", "stomp"}

// DefaultPort is a protocol's port.
func DefaultPort(via string, secure bool) string {
	switch via {
	case "mqtt":
		return map[bool]string{false: "1883", true: "8883"}[secure]
	case "stomp":
		return map[bool]string{false: "61613", true: "61614"}[secure]
	}
	return map[bool]string{false: "8080", true: "8443"}[secure]
}

// Dial connects by a protocol.
func Dial(ctx context.Context, via string, o Options) (Link, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	dial := map[string]func(context.Context, Options) (Link, error){"ws": dialWS, "http": dialHTTP, "mqtt": dialMQTT, "stomp": dialSTOMP}[via]
	if dial == nil {
		return nil, fmt.Errorf("%w: %q is no protocol: want ws, http, mqtt or stomp", core.ErrInvalid, via)
	}
	l, err := dial(ctx, o)
	if err == nil || via == "http" { // whose every request says so itself
		return l, err
	}
	return nil, unreached(err, via, o.Address)
}

// unreached says what to do about a connection that did not come about, unless
// the broker itself has refused or lost it.
func unreached(err error, via, address string) error {
	var refused *refusal
	var dialed *net.OpError
	var untrusted *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &refused), errors.Is(err, errLost), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &dialed) && dialed.Op == "dial":
		return fmt.Errorf("no broker answers at %s (%s): %w\nStart one with: sluice serve, or say where it is with: -b HOST:PORT", address, via, err)
	case errors.As(err, &untrusted):
		return fmt.Errorf("the certificate of %s is not trusted: %w\nName its authority with: --ca FILE, or look at nothing with: --insecure", address, err)
	case errors.As(err, &plain):
		return fmt.Errorf("%s does not speak TLS: %w", address, err)
	case via == "http" && !strings.Contains(err.Error(), "malformed HTTP"):
		return err // it broke off
	}
	return fmt.Errorf("what answers at %s does not speak %s: %w\nSay where the broker does with: -b HOST:PORT, or choose another protocol", address, via, err)
}

// dialTCP opens the connection below MQTT and STOMP.
func dialTCP(ctx context.Context, o Options) (net.Conn, error) {
	if o.TLS != nil {
		d := tls.Dialer{Config: o.TLS}
		return d.DialContext(ctx, "tcp", o.Address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", o.Address)
}

// errLost is what ends a subscription whose connection is gone.
var errLost = errors.New("the connection was lost")

// failure makes an error of the broker's words, so that errors.Is finds what
// kind it is.
func failure(kind error, text string) error {
	return &refusal{kind, text}
}

// A refusal is an error in the broker's own words; its kind may be nil.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }
