package trust

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// source is a certificate and where it came from, for messages.
type source struct {
	cert *x509.Certificate
	name string
}

// buildPath lines up the signing certificate, its issuers and its root. The
// issuers must come in order: a chain that only a clever verifier can sort is
// one that some peers will refuse.
func buildPath(now time.Time, p Pieces, certs, roots []*x509.Certificate) ([]*x509.Certificate, error) {
	issuers, err := chainSources(p, certs)
	if err != nil {
		return nil, err
	}
	path := []*x509.Certificate{certs[0]}
	for _, issuer := range issuers {
		last := path[len(path)-1]
		if issuer.cert.Equal(last) {
			continue // the chain begins with the signing certificate, as Istio's cert-chain.pem does
		}
		if err := checkIssuer(now, issuer, last); err != nil {
			return nil, err
		}
		path = append(path, issuer.cert)
	}
	return closePath(now, p, path, roots)
}

func chainSources(p Pieces, certs []*x509.Certificate) ([]source, error) {
	var out []source
	for _, cert := range certs[1:] {
		out = append(out, source{cert, "signing certificate " + p.Cert.Name})
	}
	if len(p.Chain.PEM) == 0 {
		return out, nil
	}
	chain, err := certificates(p.Chain, "certificate chain")
	if err != nil {
		return nil, err
	}
	for _, cert := range chain {
		out = append(out, source{cert, "certificate chain " + p.Chain.Name})
	}
	return out, nil
}

func checkIssuer(now time.Time, issuer source, child *x509.Certificate) error {
	if err := checkAuthority(issuer.cert); err != nil {
		return fmt.Errorf("%s: %s: %w", issuer.name, Name(issuer.cert), err)
	}
	if err := child.CheckSignatureFrom(issuer.cert); err != nil {
		return fmt.Errorf("%s: wrong order: %s did not sign %s: put the signing certificate's issuer first, then each one's issuer",
			issuer.name, Name(issuer.cert), Name(child))
	}
	if err := checkTimes(now, issuer.cert); err != nil {
		return fmt.Errorf("%s: %s: %w", issuer.name, Name(issuer.cert), err)
	}
	return nil
}

// closePath ends the path at a root: its last certificate is one, or one of
// the roots signed it. A certificate that did not sign itself ends no path:
// OpenSSL and GnuTLS go on to look for its issuer.
func closePath(now time.Time, p Pieces, path, roots []*x509.Certificate) ([]*x509.Certificate, error) {
	last := path[len(path)-1]
	if slices.ContainsFunc(roots, last.Equal) && selfSigned(last) {
		return path, nil
	}
	var why error
	for _, root := range roots {
		if !selfSigned(root) || last.CheckSignatureFrom(root) != nil {
			continue
		}
		if why = checkTimes(now, root); why == nil {
			return append(path, root), nil
		}
	}
	if why != nil {
		return nil, fmt.Errorf("root certificates %s: the root of %s %w", p.Roots.Name, Name(path[0]), why)
	}
	return nil, fmt.Errorf("root certificates %s: the chain does not reach the root: no root here is or signed %s, the end of the chain of %s; a root is signed by itself",
		p.Roots.Name, Name(last), p.Cert.Name)
}

func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) && cert.CheckSignatureFrom(cert) == nil
}
