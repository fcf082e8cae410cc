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

// The resource of Publish and Deliver is a topic, of Subscribe a filter, of
// Consume a queue's topic ([QueueTopic]), of Manage the topic, queue or
// exchange that is declared, changed or deleted.
const (
	Publish Action = iota + 1
	Subscribe
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
	// Version changes whenever an answer of Authorize may have changed.
	Version() uint64
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
