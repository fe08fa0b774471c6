package caserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/trust"
)

// OwnCertificate is a serving certificate that the authority issues to its own
// server, of a P-256 key, kept until half of its life and then made anew.
type OwnCertificate struct {
	Authority *ca.Authority
	// ID is the server's own identity.
	ID spiffeid.ID
	// DNSNames and Addresses are what clients dial.
	DNSNames  []string
	Addresses []netip.Addr

	mu      sync.Mutex
	cached  *tls.Certificate // guarded by mu
	renewAt time.Time        // guarded by mu
}

// Certificate returns the certificate of now. While a new one cannot be had
// the last one serves to its end.
func (o *OwnCertificate) Certificate(now time.Time) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cached != nil && now.Before(o.renewAt) && !now.Before(o.cached.Leaf.NotBefore) {
		return o.cached, nil
	}
	fresh, err := o.issue(now)
	if err != nil {
		if o.cached != nil && now.Before(o.cached.Leaf.NotAfter) {
			o.renewAt = now.Add(retryIssue)
			return o.cached, nil
		}
		return nil, err
	}
	o.cached, o.renewAt = fresh, now.Add(fresh.Leaf.NotAfter.Sub(now)/2)
	return fresh, nil
}

// retryIssue is how long a serving certificate that could not be renewed is
// left alone: handshakes must not each try.
const retryIssue = 5 * time.Second

func (o *OwnCertificate) issue(now time.Time) (*tls.Certificate, error) {
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return nil, err
	}
	chain, err := o.Authority.IssueServer(now, authn.Server(o.ID), key, o.DNSNames, o.Addresses)
	if err != nil {
		return nil, err
	}
	if err := o.verify(now, chain); err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range append(chain, anchor(chain[len(chain)-1], o.Authority.Signer().Roots())...) {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// verify does as clients will: an operator's own CA may be constrained to other
// names.
func (o *OwnCertificate) verify(now time.Time, chain []*x509.Certificate) error {
	opts := x509.VerifyOptions{CurrentTime: now, Roots: trust.Pool(o.Authority.Signer().Roots()), Intermediates: trust.Pool(chain[1:])}
	if _, err := chain[0].Verify(opts); err != nil {
		return fmt.Errorf("the serving certificate for %s does not verify: %w", strings.Join(chain[0].DNSNames, ", "), err)
	}
	return nil
}

// anchor is the root that signed the last of a chain. It is sent along: a host
// that joins knows no more than its fingerprint.
func anchor(last *x509.Certificate, roots []*x509.Certificate) []*x509.Certificate {
	for _, root := range roots {
		if last.CheckSignatureFrom(root) == nil {
			return []*x509.Certificate{root}
		}
	}
	return nil
}

// ForHandshake is Certificate as tls.Config wants it.
func (o *OwnCertificate) ForHandshake(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return o.Certificate(time.Now())
}
