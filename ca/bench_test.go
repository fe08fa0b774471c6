package ca

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// BenchmarkIssue beside BenchmarkBare is the claim that signing costs at most
// 1.3 times a bare parse, check and sign.
func BenchmarkIssue(b *testing.B) {
	now := time.Now()
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	root, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: td, KeyType: trust.ECDSAP256, Lifetime: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	a, err := New(now, Config{TrustDomain: td, Signer: root, DefaultTTL: time.Minute, MaxTTL: time.Hour,
		Audit: func(AuditRecord) error { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	id, err := ServiceAccountID(td, "default", "sleep")
	if err != nil {
		b.Fatal(err)
	}
	caller := NewCaller(id, "benchmark", "")
	csr := benchmarkCSR(b)
	for b.Loop() {
		if _, err := a.Issue(now, caller, Request{CSR: csr}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBare is the floor: crypto/x509 alone.
func BenchmarkBare(b *testing.B) {
	now := time.Now()
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	root, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: td, KeyType: trust.ECDSAP256, Lifetime: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")
	der := benchmarkCSR(b)
	for b.Loop() {
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			b.Fatal(err)
		}
		if err := csr.CheckSignature(); err != nil {
			b.Fatal(err)
		}
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
		if err != nil {
			b.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: serial, NotBefore: now, NotAfter: now.Add(time.Minute), URIs: append(csr.URIs, id.URL()),
			KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if _, err := x509.CreateCertificate(rand.Reader, template, root.Cert(), csr.PublicKey, root.Key()); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkCSR(b *testing.B) []byte {
	b.Helper()
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		b.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		b.Fatal(err)
	}
	return csr
}
