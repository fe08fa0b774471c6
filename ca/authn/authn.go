// Package authn establishes who calls the CSR API: by the certificate of the
// TLS handshake, a Kubernetes token, an OIDC token or a join token. Each
// authenticator turns proof into a ca.Caller with evidence for the audit
// record, or says why it does not.
//
// It refuses to decide what a caller may have, to take a name from a request,
// and to log. What it must ask of others (reviews, keys, stores) it declares
// as functions, which adapters implement.
package authn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"citadel/ca"
)

// Request is what a call brings along to prove who makes it.
type Request struct {
	// Client is what the TLS handshake has proven; nil without a client
	// certificate, or where ClientErr says why that proves nothing.
	Client    *Client
	ClientErr error
	// Bearer is the token of the authorization metadata, without "Bearer "; empty
	// if there is none.
	Bearer string
	// CSR is the certificate request of the call, PEM or DER, not looked at yet. It
	// proves nothing: a join token is bound to the key in it.
	CSR []byte
	// Origin is the other end of the connection: an IPv4 address, or the /64 of an
	// IPv6 one. It proves nothing, and bounds what one end can have looked up.
	Origin netip.Prefix
	// Check is why a caller cannot have what is asked for, as far as that can be
	// told beforehand. A proof that is spent by use is not spent on him. Nil: he can.
	Check func(ca.Caller) error
}

// check is Check's error as authenticators return it.
func (r Request) check(caller ca.Caller) error {
	if r.Check == nil {
		return nil
	}
	if err := r.Check(caller); err != nil {
		return &Refused{err}
	}
	return nil
}

// Identity is who calls.
type Identity struct {
	Caller ca.Caller
	// Pod is what a Kubernetes token is bound to; the zero Pod for all else.
	Pod Pod
}

// Pod is a pod as a bound token names it.
type Pod struct {
	Namespace, Name, UID, ServiceAccount string
}

// Authenticator establishes who calls from one kind of proof.
type Authenticator interface {
	// Kind is a short name for metrics and messages, as "client certificate".
	Kind() string
	// Authenticate returns ErrNoProof when the request has no proof of this kind,
	// a *Unavailable when it could not be checked now, a *Refused with the identity
	// that is refused, and any other error when it proves nothing. Errors hold no
	// part of a token.
	Authenticate(ctx context.Context, now time.Time, r Request) (Identity, error)
}

// ErrNoProof says that a request has no proof of an authenticator's kind.
var ErrNoProof = errors.New("none given")

// Unavailable is a failure of whom an authenticator asks, and says nothing of
// the caller, who may try again.
type Unavailable struct{ Err error }

// Error returns the cause.
func (u *Unavailable) Error() string { return u.Err.Error() }

// Unwrap returns the cause.
func (u *Unavailable) Unwrap() error { return u.Err }

// Refused says that a proof holds, and that it was not spent: Err, which is of
// Request.Check, is why its caller cannot have what is asked for.
type Refused struct{ Err error }

// Error returns the cause.
func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refused) Unwrap() error { return r.Err }

// ErrMayNotReview says that the API server lets this citadel review no tokens, as
// where it manages one namespace by Roles alone. It comes inside an Unavailable:
// the right may be given at any time.
var ErrMayNotReview = errors.New("citadel has no right to create tokenreviews.authentication.k8s.io")

// Chain asks authenticators in turn; the first that succeeds decides.
type Chain []Authenticator

// Outcome is how one authenticator ended, for those that had proof to look at.
type Outcome struct {
	Kind string
	Err  error // nil: it established the caller
}

// Authenticate returns the first identity that an authenticator establishes,
// and how those that had proof ended. Its error is that of Request.Check with the
// identity that it is about, a *Unavailable when one of them could not check now,
// for the caller may then be who it says, and a *ca.Error of class
// Unauthenticated otherwise.
func (c Chain) Authenticate(ctx context.Context, now time.Time, r Request) (Identity, []Outcome, error) {
	var tried []Outcome
	var unavailable *Unavailable
	for _, a := range c {
		id, err := a.Authenticate(ctx, now, r)
		if errors.Is(err, ErrNoProof) {
			continue
		}
		if refused, ok := errors.AsType[*Refused](err); ok {
			return id, append(tried, Outcome{Kind: a.Kind()}), refused.Err
		}
		tried = append(tried, Outcome{Kind: a.Kind(), Err: err})
		if err == nil {
			return id, tried, nil
		}
		if u, ok := errors.AsType[*Unavailable](err); ok && unavailable == nil {
			unavailable = &Unavailable{fmt.Errorf("%s: %w", a.Kind(), u.Err)}
		}
	}
	if unavailable != nil {
		return Identity{}, tried, unavailable
	}
	return Identity{}, tried, &ca.Error{Class: ca.Unauthenticated, Reason: "request authenticate failure: " + c.why(r, tried)}
}

// why says in one sentence what was wrong with each proof, or what would do.
func (c Chain) why(r Request, tried []Outcome) string {
	var parts []string
	if r.Bearer != "" && len(tried) == 0 {
		return "the bearer token is of no kind and no issuer that is accepted here"
	}
	for _, o := range tried {
		parts = append(parts, o.Kind+": "+o.Err.Error())
	}
	if parts == nil {
		for _, a := range c {
			parts = append(parts, a.Kind())
		}
		return "no proof of identity is given; any of these would do: " + strings.Join(parts, ", ")
	}
	return strings.Join(parts, "; ")
}
