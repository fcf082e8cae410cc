package mqtt

import (
	"fmt"

	"github.com/sluicemq/sluice/core"
)

// challenger is an Authorizer with the method TEST: "hi" is answered by "who?",
// to which ann and bob are right; "now" is ann's without a challenge.
type challenger struct{ core.AllowAll }

func (challenger) Exchange(method string, _ core.Credentials) (core.Exchange, error) {
	if method != "TEST" {
		return nil, fmt.Errorf("%w: %q", core.ErrNotFound, method)
	}
	return new(challenge), nil
}

type challenge struct{ asked bool }

func (x *challenge) Next(message []byte) ([]byte, *core.Principal, error) {
	switch m := string(message); {
	case m == "now" && !x.asked:
		return []byte("welcome"), &core.Principal{Name: "ann"}, nil
	case m == "hi" && !x.asked:
		x.asked = true
		return []byte("who?"), nil, nil
	case (m == "ann" || m == "bob") && x.asked:
		return []byte("welcome"), &core.Principal{Name: m}, nil
	}
	return nil, nil, core.ErrUnauthenticated
}
