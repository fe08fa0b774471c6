// Package trust holds what an authority signs with and what its peers believe
// in: signing certificates with their chain, roots and keys. It parses them
// from PEM, checks that the pieces belong together, merges bundles, and makes
// self-signed roots.
//
// It refuses to do I/O, to read a clock, and to issue workload certificates:
// that is package ca's.
package trust

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Piece is a PEM text and the name that an operator knows it by: a file's path
// or a Secret and its key. Errors quote the name, never the text.
type Piece struct {
	Name string
	PEM  []byte
}

// Pieces is an authority as operators store it.
type Pieces struct {
	// Cert is the signing certificate. Certificates after the first are taken
	// as the beginning of Chain, as in a tls.crt.
	Cert Piece
	// Key is the signing certificate's private key.
	Key Piece
	// Chain holds the issuers of the signing certificate, nearest first. It may
	// begin with the signing certificate and end with the root; it is not
	// needed when a root signed the signing certificate, or is it.
	Chain Piece
	// Roots is what peers are told to trust.
	Roots Piece
}

// Signer is a signing certificate with its private key, its chain and the
// roots that peers verify it by. It is immutable; only NewSigner and
// NewSelfSigned make one.
type Signer struct {
	cert     *x509.Certificate
	key      crypto.Signer
	chain    []*x509.Certificate // signing certificate first, without the root
	roots    []*x509.Certificate
	chainPEM []byte
	rootsPEM []byte
	notAfter time.Time
}

// Cert returns the signing certificate. The caller must not change it.
func (s *Signer) Cert() *x509.Certificate { return s.cert }

// Key returns the signing certificate's private key.
func (s *Signer) Key() crypto.Signer { return s.key }

// Chain returns what a leaf's holder sends after the leaf: the signing
// certificate and its issuers up to, but without, the root. It is empty when
// the signing certificate is the root itself.
func (s *Signer) Chain() []*x509.Certificate { return slices.Clone(s.chain) }

// Roots returns the certificates that peers are told to trust.
func (s *Signer) Roots() []*x509.Certificate { return slices.Clone(s.roots) }

// ChainPEM returns Chain as PEM. The caller must not change it.
func (s *Signer) ChainPEM() []byte { return s.chainPEM }

// RootsPEM returns Roots as PEM. The caller must not change it.
func (s *Signer) RootsPEM() []byte { return s.rootsPEM }

// NotAfter is the end of the first certificate to expire between the signing
// certificate and its root, both included: no leaf may outlive it.
func (s *Signer) NotAfter() time.Time { return s.notAfter }

// NewSigner checks that the pieces make up an authority that can sign at now,
// and returns it. Every error names the piece at fault.
func NewSigner(now time.Time, p Pieces) (*Signer, error) {
	certs, err := certificates(p.Cert, "signing certificate")
	if err != nil {
		return nil, err
	}
	key, err := signingKey(p.Key)
	if err != nil {
		return nil, err
	}
	roots, err := certificates(p.Roots, "root certificates")
	if err != nil {
		return nil, err
	}
	if err := checkRoots(p.Roots.Name, roots); err != nil {
		return nil, err
	}
	if err := checkSigning(now, p.Cert.Name, certs[0]); err != nil {
		return nil, err
	}
	if !SamePublicKey(certs[0].PublicKey, key.Public()) {
		return nil, fmt.Errorf("signing key %s: the cert does not match the key: it is not the key of %s", p.Key.Name, p.Cert.Name)
	}
	path, err := buildPath(now, p, certs, roots)
	if err != nil {
		return nil, err
	}
	return newSigner(key, path, roots), nil
}

// newSigner takes a checked path, signing certificate first and root last.
func newSigner(key crypto.Signer, path, roots []*x509.Certificate) *Signer {
	s := &Signer{cert: path[0], key: key, chain: path[:len(path)-1], roots: roots, notAfter: path[0].NotAfter}
	for _, cert := range path {
		if cert.NotAfter.Before(s.notAfter) {
			s.notAfter = cert.NotAfter
		}
	}
	s.chainPEM = MarshalCertificates(s.chain)
	s.rootsPEM = MarshalCertificates(s.roots)
	return s
}

// WithRoots returns a signer whose bundle also holds extra, after its own.
func (s *Signer) WithRoots(extra Piece) (*Signer, error) {
	certs, err := certificates(extra, "root certificates")
	if err != nil {
		return nil, err
	}
	if err := checkRoots(extra.Name, certs); err != nil {
		return nil, err
	}
	wider := *s
	wider.roots = MergeRoots(s.roots, certs)
	wider.rootsPEM = MarshalCertificates(wider.roots)
	return &wider, nil
}

func certificates(p Piece, role string) ([]*x509.Certificate, error) {
	if len(p.PEM) == 0 {
		return nil, fmt.Errorf("%s %s: is missing or empty", role, p.Name)
	}
	certs, err := ParseCertificates(p.PEM)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", role, p.Name, err)
	}
	return certs, nil
}

func signingKey(p Piece) (crypto.Signer, error) {
	if len(p.PEM) == 0 {
		return nil, fmt.Errorf("signing key %s: is missing or empty", p.Name)
	}
	key, err := ParseKey(p.PEM)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", p.Name, err)
	}
	if err := CheckPublicKey(key.Public()); err != nil {
		return nil, fmt.Errorf("signing key %s: %w", p.Name, err)
	}
	return key, nil
}

func checkSigning(now time.Time, name string, cert *x509.Certificate) error {
	if err := checkAuthority(cert); err != nil {
		return fmt.Errorf("signing certificate %s: certificate is not authorized to sign other certificates: %w", name, err)
	}
	if err := checkTimes(now, cert); err != nil {
		return fmt.Errorf("signing certificate %s: %w", name, err)
	}
	return nil
}

func checkRoots(name string, roots []*x509.Certificate) error {
	for i, root := range roots {
		if err := checkAuthority(root); err != nil {
			return fmt.Errorf("root certificates %s: certificate %d (%s): %w", name, i+1, Name(root), err)
		}
	}
	return nil
}

// checkAuthority insists on cA and keyCertSign.
func checkAuthority(cert *x509.Certificate) error {
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return errors.New("it is no CA (basic constraints cA is not true)")
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("its key usage lacks keyCertSign")
	}
	return nil
}

func checkTimes(now time.Time, cert *x509.Certificate) error {
	if now.After(cert.NotAfter) {
		return fmt.Errorf("expired at %s, now is %s", cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("is not valid before %s, now is %s: check the clocks", cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Name is how messages call a certificate: its subject, else its SPIFFE ID,
// else its serial number.
func Name(cert *x509.Certificate) string {
	if subject := cert.Subject.String(); subject != "" {
		return subject
	}
	if len(cert.URIs) > 0 {
		return cert.URIs[0].String()
	}
	return "serial " + cert.SerialNumber.Text(16)
}
