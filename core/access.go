package core

import (
	"context"
	"crypto/x509"
	"net"
	"strings"
	"time"
)

// Credentials are what a peer showed when it connected. A password belongs to
// the adapter and is not kept.
type Credentials struct {
	// Protocol is the adapter's name, such as "mqtt".
	Protocol string
	// Client is the client id, or the adapter's name for the connection.
	Client   string
	User     string
	Password []byte
	// Token is a bearer token.
	Token string
	// Certificate is the peer's verified TLS certificate.
	Certificate *x509.Certificate
	Remote      net.Addr
}

// A Principal is who a connection is, once authenticated.
type Principal struct {
	// Name is empty for an anonymous peer.
	Name  string
	Roles []string
	// Until is when the proof of who it is ends; zero is never. The client is
	// ended then, unless it was renewed ([Client.Renew]).
	Until time.Time
}

// An Action is what a principal wants to do with a resource.
type Action uint8

// The resource of Publish and Deliver is a topic, of Subscribe and Bind a
// filter, of Consume a queue's topic ([QueueTopic]), of Manage the topic, queue
// or exchange that is declared, changed or deleted.
//
// Who may receive some of what a filter matches may Subscribe: each topic is
// asked for again, as Deliver. Where nobody asks again, since what comes is a
// queue's or has been through an exchange, all that the filter matches has to be
// allowed: that is Bind.
const (
	Publish Action = iota + 1
	Subscribe
	Bind
	Deliver
	Consume
	Manage
)

func (a Action) String() string {
	switch a {
	case Publish:
		return "publish"
	case Subscribe:
		return "subscribe"
	case Bind:
		return "bind"
	case Deliver:
		return "deliver"
	case Consume:
		return "consume"
	case Manage:
		return "manage"
	}
	return "unknown"
}

// An Authorizer says who may do what. Only the core asks it, from several
// goroutines at once.
type Authorizer interface {
	// Authenticate may block, for as long as ctx lets it. Wrong credentials
	// are ErrUnauthenticated.
	Authenticate(ctx context.Context, c Credentials) (*Principal, error)
	// Exchange begins an authentication in several messages. A method that is
	// not known is ErrNotFound. It does not block.
	Exchange(method string, c Credentials) (Exchange, error)
	// Authorize must not block. A refusal wraps ErrNotAuthorized. The core
	// keeps its answers for as long as Version stays the same.
	Authorize(p *Principal, a Action, resource string) error
	// Version changes whenever an answer of Authorize may have changed;
	// [Broker.RightsChanged] is called then.
	Version() uint64
	// Renewed is who a principal is by now: the same, or with other roles. One
	// who is nobody any more is ErrUnauthenticated. It does not block.
	Renewed(p *Principal) (*Principal, error)
}

// AllowAll is the Authorizer of a broker that asks nobody who they are.
type AllowAll struct{}

// Authenticate takes the user's name as it was given.
func (AllowAll) Authenticate(_ context.Context, c Credentials) (*Principal, error) {
	return &Principal{Name: strings.Clone(c.User)}, nil
}

// Authorize allows everything.
func (AllowAll) Authorize(*Principal, Action, string) error { return nil }

// Version is always 0.
func (AllowAll) Version() uint64 { return 0 }

// Renewed is the same principal.
func (AllowAll) Renewed(p *Principal) (*Principal, error) { return p, nil }
