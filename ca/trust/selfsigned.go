package trust

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Backdate is how far before its making a certificate becomes valid, so that
// peers whose clock is behind accept it at once.
const Backdate = 2 * time.Minute

// SelfSigned says what a new self-signed root is like.
type SelfSigned struct {
	TrustDomain spiffeid.TrustDomain
	KeyType     KeyType
	// Lifetime counts from now; the backdating comes on top of it.
	Lifetime time.Duration
}

// NewSelfSigned makes a root and its key. Its name is its own (R-4; two roots
// of one name break the transition between them in OpenSSL and GnuTLS), it has
// no path length constraint, and it bears the trust domain's SPIFFE ID.
func NewSelfSigned(now time.Time, s SelfSigned) (*Signer, error) {
	if s.TrustDomain.IsZero() || s.Lifetime <= 0 {
		return nil, fmt.Errorf("make a self-signed root: trust domain %q and lifetime %s must both be set", s.TrustDomain, s.Lifetime)
	}
	key, err := s.KeyType.Generate()
	if err != nil {
		return nil, fmt.Errorf("make a self-signed root: %w", err)
	}
	serial, err := NewSerial()
	if err != nil {
		return nil, err
	}
	template := s.template(now, serial)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the self-signed root of %s: %w", s.TrustDomain, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse the self-signed root of %s: %w", s.TrustDomain, err)
	}
	path := []*x509.Certificate{cert}
	return newSigner(key, path, path), nil
}

func (s SelfSigned) template(now time.Time, serial *big.Int) *x509.Certificate {
	name := s.TrustDomain.Name()
	unique := hex.EncodeToString(serial.Bytes()[:4])
	id := s.TrustDomain.ID()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			CommonName:   clip(name, 64-len(" root ")-len(unique)) + " root " + unique,
			Organization: []string{clip(name, 64)},
		},
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             now.Add(-Backdate).UTC().Truncate(time.Second),
		NotAfter:              now.Add(s.Lifetime).UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// clip keeps names inside the 64 characters of RFC 5280 appendix A.1.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// NewSerial returns 20 random octets as a positive number, none of them a
// leading zero (R-1, RFC 5280 4.1.2.2).
func NewSerial() (*big.Int, error) {
	octets := make([]byte, 20)
	if _, err := rand.Read(octets); err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	octets[0] = octets[0]&0x7f | 0x40
	return new(big.Int).SetBytes(octets), nil
}
