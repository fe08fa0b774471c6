// Package catest makes throwaway issuers, authorities and certificate requests
// for tests: good ones, and ones with a fault that the test states.
//
// Everything is made in memory, at a time that the test hands in. The package
// refuses to read a clock, to touch a disk, and to vouch for a caller: a test
// that needs a ca.Caller makes it in its own sight.
package catest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/trust"
)

// TrustDomain is the trust domain of everything here that is not told another.
var TrustDomain = spiffeid.RequireTrustDomainFromString("cluster.local")

type keyName struct {
	keyType trust.KeyType
	name    string
}

var keys sync.Map // of keyName to func() (crypto.Signer, error)

// Key returns the private key of that type and name: the same one each time in
// one test binary, for a new RSA key costs more than most tests.
func Key(tb testing.TB, keyType trust.KeyType, name string) crypto.Signer {
	tb.Helper()
	generate, _ := keys.LoadOrStore(keyName{keyType, name}, sync.OnceValues(keyType.Generate))
	key, err := generate.(func() (crypto.Signer, error))()
	if err != nil {
		tb.Fatalf("generate key %q: %v", name, err)
	}
	return key
}

// KeyPEM returns a private key as PKCS#8 PEM.
func KeyPEM(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	text, err := trust.MarshalKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// CSR returns a certificate request, DER, signed by key. It asks for nothing
// but what the edits put in.
func CSR(tb testing.TB, key crypto.Signer, edits ...func(*x509.CertificateRequest)) []byte {
	tb.Helper()
	template := &x509.CertificateRequest{}
	for _, edit := range edits {
		edit(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		tb.Fatalf("make a certificate request: %v", err)
	}
	return der
}

// CSRPEM encodes a certificate request as PEM.
func CSRPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// Log is an audit sink that remembers. Its zero value is ready, and it is safe
// for concurrent use.
type Log struct {
	mu      sync.Mutex
	records []ca.AuditRecord // guarded by mu
}

// Audit is a ca.Config's Audit.
func (l *Log) Audit(r ca.AuditRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// Records returns the records so far, oldest first.
func (l *Log) Records() []ca.AuditRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]ca.AuditRecord(nil), l.records...)
}

// Authority returns an authority at now. What cfg leaves out is filled in: the
// trust domain, a self-signed P-256 root of ten years, the default and maximum
// TTL of 19 hours and 7 days, and an audit sink that forgets.
func Authority(tb testing.TB, now time.Time, cfg ca.Config) *ca.Authority {
	tb.Helper()
	a, err := ca.New(now, Complete(tb, now, cfg))
	if err != nil {
		tb.Fatalf("make an authority: %v", err)
	}
	return a
}

// Complete fills in what cfg leaves out, as Authority does.
func Complete(tb testing.TB, now time.Time, cfg ca.Config) ca.Config {
	tb.Helper()
	if cfg.TrustDomain.IsZero() {
		cfg.TrustDomain = TrustDomain
	}
	if cfg.Signer == nil {
		cfg.Signer = SelfSigned(tb, now, cfg.TrustDomain)
	}
	if cfg.DefaultTTL == 0 {
		cfg.DefaultTTL = 19 * time.Hour
	}
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = 7 * 24 * time.Hour
	}
	if cfg.Audit == nil {
		cfg.Audit = func(ca.AuditRecord) error { return nil }
	}
	return cfg
}

// SelfSigned returns a self-signed P-256 root of ten years, made at now.
func SelfSigned(tb testing.TB, now time.Time, td spiffeid.TrustDomain) *trust.Signer {
	tb.Helper()
	s, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: td, KeyType: trust.ECDSAP256, Lifetime: rootLife})
	if err != nil {
		tb.Fatalf("make a self-signed root: %v", err)
	}
	return s
}
