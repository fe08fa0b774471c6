package authn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/ca"
	"citadel/ca/trust"
)

// maxClientChain bounds what is verified of what a client sends.
const maxClientChain = 8

// Client is a client certificate whose private key the TLS handshake proved,
// and whose chain verified then. It holds no more of it than each call needs:
// there is one for each connection.
type Client struct {
	id                  spiffeid.ID
	serial              *big.Int
	notBefore, notAfter time.Time
}

// VerifyClient verifies the certificates of a handshake, leaf first, as an
// X.509-SVID of the bundle's trust domain. One that expired no
// longer than expired ago is verified as of its end: whether it still counts
// is for Client.At to say at each call.
func VerifyClient(now time.Time, bundle *x509bundle.Bundle, certs []*x509.Certificate, expired time.Duration) (*Client, error) {
	if len(certs) == 0 {
		return nil, errors.New("there is no client certificate")
	}
	if len(certs) > maxClientChain {
		return nil, fmt.Errorf("the client sent %d certificates, more than %d", len(certs), maxClientChain)
	}
	for _, cert := range certs {
		if err := trust.CheckPublicKey(cert.PublicKey); err != nil {
			return nil, fmt.Errorf("the key of client certificate %s is refused: %w", trust.Name(cert), err)
		}
	}
	leaf := certs[0]
	at := now
	if over := now.Sub(leaf.NotAfter); over > 0 && over <= expired {
		at = leaf.NotAfter
	}
	id, _, err := x509svid.Verify(certs, bundle, x509svid.WithTime(at))
	if err != nil {
		return nil, fmt.Errorf("verify the client certificate: %w", err)
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && len(leaf.ExtKeyUsage) > 0 {
		return nil, fmt.Errorf("the certificate of %s is not for clients", id)
	}
	return &Client{id: id, serial: new(big.Int).Set(leaf.SerialNumber), notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}, nil
}

// ID is whom the certificate names.
func (c *Client) ID() spiffeid.ID { return c.id }

// ClientCertificate takes the certificate of the handshake.
type ClientCertificate struct {
	// RenewExpiredFor is for how long after its end a certificate still counts:
	// its holder has proven its key, and only slept too long. Zero: not at all.
	RenewExpiredFor time.Duration
}

// Kind is of Authenticator.
func (ClientCertificate) Kind() string { return "client certificate" }

// Authenticate is of Authenticator. A connection outlives handshakes: the
// times are checked at each call.
func (a ClientCertificate) Authenticate(_ context.Context, now time.Time, r Request) (Identity, error) {
	if r.ClientErr != nil {
		return Identity{}, r.ClientErr
	}
	if r.Client == nil {
		return Identity{}, ErrNoProof
	}
	c := r.Client
	over := now.Sub(c.notAfter)
	switch {
	case over > 0 && over > a.RenewExpiredFor:
		return Identity{}, fmt.Errorf("the certificate expired at %s: join anew with a token", c.notAfter.UTC().Format(time.RFC3339))
	case now.Before(c.notBefore):
		return Identity{}, fmt.Errorf("the certificate is not valid before %s: compare the clocks", c.notBefore.UTC().Format(time.RFC3339))
	}
	evidence := fmt.Sprintf("serial %x until %s", c.serial, c.notAfter.UTC().Format(time.RFC3339))
	if over > 0 {
		evidence += ", expired"
	}
	return Identity{Caller: ca.NewCaller(c.id, a.Kind(), evidence).WithCertificate(c.serial)}, nil
}
