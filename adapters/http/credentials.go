package http

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// parseAuthorization reads an Authorization header: Basic (RFC 7617) or Bearer
// (RFC 6750).
func parseAuthorization(values []string) (core.Credentials, error) {
	if len(values) != 1 {
		return core.Credentials{}, badRequest.with("the Authorization header stands more than once")
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer") && rest != "":
		return core.Credentials{Token: rest}, nil
	case strings.EqualFold(scheme, "Basic"):
		both, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return core.Credentials{}, unauthenticated.with("the Basic credentials are not base64")
		}
		user, password, ok := strings.Cut(string(both), ":")
		if !ok {
			return core.Credentials{}, unauthenticated.with("the Basic credentials have no colon")
		}
		return core.Credentials{User: user, Password: []byte(password)}, nil
	}
	return core.Credentials{}, unauthenticated.with("the Authorization header is neither Basic nor Bearer")
}

// loginError is the problem of a login that failed.
func loginError(err error) *problem {
	if errors.Is(err, core.ErrUnauthenticated) {
		// Whether the user exists is not told.
		return unauthenticated.with("wrong or missing credentials")
	}
	if errors.Is(err, adapters.ErrLogins) {
		return &loginsFailed
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return tooMany.with("the login took too long")
	}
	return problemOf(err)
}
