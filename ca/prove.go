package ca

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// prove signs certificates that live for a moment, in both ways that there are,
// and verifies them as a peer would. They are not audited: no key but the one
// thrown away here goes with them.
func (a *Authority) prove(now time.Time, self spiffeid.ID) error {
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	caller := NewCaller(self, "self-check", "")
	if err := a.proof(now, caller, Request{CSR: csr}, nil); err != nil {
		return err
	}
	byKey := func(names []string) error { return a.proof(now, caller, Request{Key: key}, names) }
	if err := byKey(nil); err != nil {
		return err
	}
	return a.cfg.DNSNames.prove(byKey)
}

// proof is one of these signatures, with DNS names in place of the caller's.
func (a *Authority) proof(now time.Time, caller Caller, req Request, names []string) error {
	p, err := a.prepare(now, caller, req)
	if err != nil {
		return fmt.Errorf("signing certificate %s cannot be used: %w", trust.Name(a.cfg.Signer.Cert()), err)
	}
	p.validity.notAfter, p.dnsNames = now.Add(time.Second), names
	leaf, err := a.sign(p)
	if err != nil {
		return fmt.Errorf("signing certificate %s cannot sign: %w", trust.Name(a.cfg.Signer.Cert()), err)
	}
	if err := a.verify(now, leaf); err != nil {
		return fmt.Errorf("what %s signs for trust domain %s does not verify to its roots: check path lengths, name constraints and key usages of the chain: %w",
			trust.Name(a.cfg.Signer.Cert()), a.cfg.TrustDomain, err)
	}
	return nil
}

// ErrDNSNames is in New's error when the signer is good and its CA's
// constraints refuse the DNS names of an identity.
var ErrDNSNames = errors.New("cannot be certified")

// provenAtOnce is how many identities share a proof: a constraint that refuses
// one name refuses the certificate.
const provenAtOnce = 100

// prove has all names proven, with few proofs where all is well, and names the
// first identity whose names are refused.
func (d DNSNames) prove(proof func(names []string) error) error {
	ids := slices.SortedFunc(maps.Keys(d), func(a, b spiffeid.ID) int { return strings.Compare(a.String(), b.String()) })
	for group := range slices.Chunk(ids, provenAtOnce) {
		var together []string
		for _, id := range group {
			together = append(together, d[id]...)
		}
		if len(together) == 0 || proof(together) == nil {
			continue
		}
		for _, id := range group {
			if err := proof(d[id]); err != nil {
				return fmt.Errorf("the DNS names of %s %w: take them from it or have the CA permit them: %w", id, ErrDNSNames, err)
			}
		}
	}
	return nil
}

// verify checks the leaf as a client of a workload would, and as its server:
// an issuer's extended key usages may allow one and not the other.
func (a *Authority) verify(now time.Time, leaf *x509.Certificate) error {
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots:         trust.Pool(a.cfg.Signer.Roots()),
			Intermediates: trust.Pool(a.cfg.Signer.Chain()),
			CurrentTime:   now,
			KeyUsages:     []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return err
		}
	}
	return nil
}
