package ca

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"citadel/ca/trust"
)

// prove signs a certificate that lives for a moment and verifies it as a peer
// would. It is not audited: no key but the one thrown away here goes with it.
func (a *Authority) prove(now time.Time) error {
	id, err := ServiceAccountID(a.cfg.TrustDomain, "citadel", "self-check")
	if err != nil {
		return err
	}
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	p, err := a.prepare(now, NewCaller(id, "self-check", ""), Request{CSR: csr})
	if err != nil {
		return fmt.Errorf("signing certificate %s cannot be used: %w", trust.Name(a.cfg.Signer.Cert()), err)
	}
	p.validity.notAfter = now.Add(time.Second)
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
