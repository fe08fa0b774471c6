package trust

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
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
	last := source{certs[0], "signing certificate " + p.Cert.Name}
	path := []*x509.Certificate{last.cert}
	for _, issuer := range issuers {
		if issuer.cert.Equal(last.cert) {
			continue // the chain begins with the signing certificate, as Istio's cert-chain.pem does
		}
		if err := checkIssuer(now, issuer, last); err != nil {
			return nil, err
		}
		path, last = append(path, issuer.cert), issuer
	}
	if !selfSigned(last.cert) {
		if err := checkAlgorithm(last); err != nil {
			return nil, err
		}
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

func checkIssuer(now time.Time, issuer, child source) error {
	if err := checkAuthority(issuer.cert); err != nil {
		return fmt.Errorf("%s: %s: %w", issuer.name, Name(issuer.cert), err)
	}
	if err := checkAlgorithm(child); err != nil {
		return err
	}
	if err := child.cert.CheckSignatureFrom(issuer.cert); err != nil {
		return fmt.Errorf("%s: wrong order: %s did not sign %s: put the signing certificate's issuer first, then each one's issuer",
			issuer.name, Name(issuer.cert), Name(child.cert))
	}
	if err := checkTimes(now, issuer.cert); err != nil {
		return fmt.Errorf("%s: %s: %w", issuer.name, Name(issuer.cert), err)
	}
	return nil
}

// checkAlgorithm refuses a signature by SHA-1 and the like, as peers do.
func checkAlgorithm(s source) error {
	if !weaklySigned(s.cert) {
		return nil
	}
	return fmt.Errorf("%s: %s: it is signed by %s, an algorithm that is not accepted: have its issuer sign it anew with SHA-256",
		s.name, Name(s.cert), s.cert.SignatureAlgorithm)
}

// weaklySigned asks crypto/x509 about the algorithm of a CA's certificate: it
// looks at that first, whoever is taken for the issuer.
func weaklySigned(cert *x509.Certificate) bool {
	err := cert.CheckSignatureFrom(cert)
	_, insecure := errors.AsType[x509.InsecureAlgorithmError](err)
	return insecure || errors.Is(err, x509.ErrUnsupportedAlgorithm)
}

// closePath ends the path at a root: its last certificate is one, or one of
// the roots signed it. A certificate that did not sign itself ends no path:
// OpenSSL and GnuTLS go on to look for its issuer.
//
// Where no root signed the last, one may have signed a certificate before it:
// then what follows that is the root once more, signed across by its predecessor
// for peers that know only that one.
func closePath(now time.Time, p Pieces, path, roots []*x509.Certificate) ([]*x509.Certificate, error) {
	last := path[len(path)-1]
	if slices.ContainsFunc(roots, last.Equal) && selfSigned(last) {
		return path, nil
	}
	var why error
	for _, child := range slices.Backward(path) {
		for _, root := range roots {
			if !selfSigned(root) || child.CheckSignatureFrom(root) != nil {
				continue
			}
			err := checkTimes(now, root)
			if err == nil {
				return append(path, root), nil
			}
			why = cmp.Or(why, err)
		}
	}
	if why != nil {
		return nil, fmt.Errorf("root certificates %s: the root of %s %w", p.Roots.Name, Name(path[0]), why)
	}
	return nil, fmt.Errorf("root certificates %s: the chain does not reach the root: no root here is or signed %s, the end of the chain of %s; a root is signed by itself",
		p.Roots.Name, Name(last), p.Cert.Name)
}

// selfSigned goes by the names where the signature is weak: of a root, no
// verifier looks at it.
func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) && (weaklySigned(cert) || cert.CheckSignatureFrom(cert) == nil)
}
