package core

import (
	"context"
	"fmt"
	"strings"
)

// An Exchange is one run of a method by which a peer proves who it is in
// several messages. It is used by one goroutine at a time.
type Exchange interface {
	// Next takes the peer's next message and returns the answer to it. With a
	// principal the exchange is over, and the answer is the last one. It does
	// not block. A proof that fails is ErrUnauthenticated.
	Next(message []byte) (answer []byte, p *Principal, err error)
}

// A Login is an authentication in several messages. It is used by one goroutine
// at a time.
type Login struct {
	broker      *Broker
	credentials Credentials
	exchange    Exchange
	principal   *Principal // once it is over
}

// Login begins an authentication by a method's name, such as "SCRAM-SHA-256".
// What the credentials prove is not looked at, only where they come from. A
// method that the authorizer does not have is ErrNotFound.
func (b *Broker) Login(method string, cr Credentials) (*Login, error) {
	cr.Password, cr.Token = nil, ""
	cr.Client, cr.User = strings.Clone(cr.Client), strings.Clone(cr.User)
	x, err := b.authorizer.Exchange(method, cr)
	if err != nil {
		return nil, err
	}
	return &Login{broker: b, credentials: cr, exchange: x}, nil
}

// Next takes the peer's next message and returns the answer to it; done says
// that it is the last one and that the peer has proved who it is. A failure
// ends the login.
func (l *Login) Next(message []byte) (answer []byte, done bool, err error) {
	if l.exchange == nil {
		return nil, false, fmt.Errorf("%w: the login is over", ErrUnauthenticated)
	}
	answer, p, err := l.exchange.Next(message)
	if err != nil || p != nil {
		l.exchange = nil
	}
	if err != nil {
		return nil, false, err
	}
	l.principal = p
	return answer, p != nil, nil
}

// Connect is [Broker.Connect] for a peer whose login is done.
func (l *Login) Connect(confirm Confirmer) (*Client, error) {
	if l.principal == nil {
		return nil, fmt.Errorf("%w: the login is not done", ErrUnauthenticated)
	}
	return l.broker.connect(l.principal, l.credentials, confirm), nil
}

// Renew is [Client.Renew] by a login that is done.
func (l *Login) Renew(c *Client) error {
	if l.principal == nil {
		return fmt.Errorf("%w: the login is not done", ErrUnauthenticated)
	}
	return c.renew(l.principal)
}

// Exchange knows no method.
func (AllowAll) Exchange(method string, _ Credentials) (Exchange, error) {
	return nil, fmt.Errorf("%w: authentication by %q", ErrNotFound, method)
}

// connect makes a client of somebody who was authenticated.
func (b *Broker) connect(p *Principal, cr Credentials, confirm Confirmer) *Client {
	c := &Client{
		broker: b, confirmer: confirm,
		publisher: Publisher{Principal: p.Name, Client: strings.Clone(cr.Client), Protocol: cr.Protocol},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prove(p)
	b.connected.remember(c, cr.Remote)
	return c
}

// Connect authenticates a peer. It blocks as long as the authorizer does. The
// confirmer may be nil where nothing is published with a receipt. Wrong
// credentials are ErrUnauthenticated.
func (b *Broker) Connect(ctx context.Context, cr Credentials, confirm Confirmer) (*Client, error) {
	p, err := b.authorizer.Authenticate(ctx, cr)
	if err != nil {
		return nil, err
	}
	return b.connect(p, cr, confirm), nil
}
