package inspect

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// describe puts a certificate into words. It judges nothing.
func describe(s *subject) Certificate {
	cert := s.cert
	c := Certificate{
		Number: s.number, From: s.from, Role: s.role,
		DNSNames: cert.DNSNames, EmailAddresses: cert.EmailAddresses,
		Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Serial: fmt.Sprintf("%x", cert.SerialNumber),
		KeyType: KeyType(cert.PublicKey), Signature: cert.SignatureAlgorithm.String(),
		NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
		CA: cert.IsCA, KeyUsages: keyUsages(cert), ExtKeyUsages: extKeyUsages(cert),
		KeyUsageCritical: critical(cert, oidKeyUsage),
		SubjectKeyID:     hex.EncodeToString(cert.SubjectKeyId), AuthorityKeyID: hex.EncodeToString(cert.AuthorityKeyId),
		SHA256: sum(cert.Raw), PublicKeySHA256: sum(cert.RawSubjectPublicKeyInfo),
	}
	for _, uri := range cert.URIs {
		c.URIs = append(c.URIs, uri.String())
	}
	for _, ip := range cert.IPAddresses {
		c.IPAddresses = append(c.IPAddresses, ip.String())
	}
	if id, err := spiffeID(cert); err == nil {
		c.SPIFFEID = id.String()
	}
	if cert.IsCA && (cert.MaxPathLen > 0 || cert.MaxPathLenZero) {
		c.MaxPathLength = &cert.MaxPathLen
	}
	return c
}

func sum(der []byte) string {
	s := sha256.Sum256(der)
	return hex.EncodeToString(s[:])
}

// spiffeID is the one URI of a certificate, as a SPIFFE ID with or without a
// path.
func spiffeID(cert *x509.Certificate) (spiffeid.ID, error) {
	if n := len(cert.URIs); n != 1 {
		return spiffeid.ID{}, fmt.Errorf("has %d URIs", n)
	}
	return spiffeid.FromURI(cert.URIs[0])
}

// TrustDomain returns the trust domain that a signing certificate or root says
// it is for: that of its SPIFFE ID without a path.
func TrustDomain(ca *x509.Certificate) (spiffeid.TrustDomain, bool) {
	id, err := spiffeID(ca)
	if err != nil || id.Path() != "" {
		return spiffeid.TrustDomain{}, false
	}
	return id.TrustDomain(), true
}

func hasWorkloadID(cert *x509.Certificate) bool {
	id, err := spiffeID(cert)
	return err == nil && id.Path() != ""
}

// KeyType is how people call a kind of key.
func KeyType(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("unknown (%T)", key)
}

// named is a bit or value and what standards call it.
type named[T any] struct {
	value T
	name  string
}

var keyUsageNames = []named[x509.KeyUsage]{
	{x509.KeyUsageDigitalSignature, "digitalSignature"},
	{x509.KeyUsageContentCommitment, "contentCommitment"},
	{x509.KeyUsageKeyEncipherment, "keyEncipherment"},
	{x509.KeyUsageDataEncipherment, "dataEncipherment"},
	{x509.KeyUsageKeyAgreement, "keyAgreement"},
	{x509.KeyUsageCertSign, "keyCertSign"},
	{x509.KeyUsageCRLSign, "cRLSign"},
	{x509.KeyUsageEncipherOnly, "encipherOnly"},
	{x509.KeyUsageDecipherOnly, "decipherOnly"},
}

func keyUsages(cert *x509.Certificate) []string {
	var out []string
	for _, u := range keyUsageNames {
		if cert.KeyUsage&u.value != 0 {
			out = append(out, u.name)
		}
	}
	return out
}

var extKeyUsageNames = []named[x509.ExtKeyUsage]{
	{x509.ExtKeyUsageAny, "anyExtendedKeyUsage"},
	{x509.ExtKeyUsageServerAuth, "serverAuth"},
	{x509.ExtKeyUsageClientAuth, "clientAuth"},
	{x509.ExtKeyUsageCodeSigning, "codeSigning"},
	{x509.ExtKeyUsageEmailProtection, "emailProtection"},
	{x509.ExtKeyUsageTimeStamping, "timeStamping"},
	{x509.ExtKeyUsageOCSPSigning, "OCSPSigning"},
}

func extKeyUsages(cert *x509.Certificate) []string {
	var out []string
	for _, u := range cert.ExtKeyUsage {
		name := fmt.Sprintf("usage %d", u)
		if i := slices.IndexFunc(extKeyUsageNames, func(n named[x509.ExtKeyUsage]) bool { return n.value == u }); i >= 0 {
			name = extKeyUsageNames[i].name
		}
		out = append(out, name)
	}
	for _, oid := range cert.UnknownExtKeyUsage {
		out = append(out, oid.String())
	}
	return out
}
