package ca

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// These tests stand inside the package, for they replace the signer.

var errBroken = errors.New("broken")

func counted(t *testing.T, audit func(AuditRecord) error, sign signFunc) (*Authority, Caller, Request) {
	t.Helper()
	now := time.Date(2026, 7, 14, 12, 34, 56, 0, time.UTC)
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	root, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: td, KeyType: trust.ECDSAP256, Lifetime: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(now, Config{TrustDomain: td, Signer: root, DefaultTTL: time.Hour, MaxTTL: time.Hour, Audit: audit})
	if err != nil {
		t.Fatal(err)
	}
	a.sign = sign
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, root.Key())
	if err != nil {
		t.Fatal(err)
	}
	return a, NewCaller(spiffeid.RequireFromPath(td, "/x"), "test", ""), Request{CSR: csr}
}

func TestNothingIsSignedWithoutTheRecordBefore(t *testing.T) { // C-9
	signed := 0
	a, caller, req := counted(t, func(AuditRecord) error { return errBroken }, func(*prepared) (*x509.Certificate, error) {
		signed++
		return nil, errBroken
	})
	if _, err := a.Issue(a.cfg.Signer.Cert().NotBefore, caller, req); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if signed != 0 {
		t.Errorf("signed %d times", signed)
	}
}

func TestNothingIsSignedForARefusedRequest(t *testing.T) {
	signed := 0
	a, caller, req := counted(t, func(AuditRecord) error { return nil }, func(*prepared) (*x509.Certificate, error) {
		signed++
		return nil, errBroken
	})
	for name, c := range map[string]struct {
		caller Caller
		req    Request
	}{
		"nobody": {Caller{}, req}, "malformed": {caller, Request{CSR: []byte("x")}}, "too long": {caller, Request{CSR: req.CSR, TTL: 2 * time.Hour}},
	} {
		if _, err := a.Issue(a.cfg.Signer.Cert().NotBefore, c.caller, c.req); err == nil || signed != 0 {
			t.Errorf("%s: error %v, signed %d times", name, err, signed)
		}
	}
}

func TestFailureOfTheSignerIsAudited(t *testing.T) {
	var records []AuditRecord
	a, caller, req := counted(t,
		func(r AuditRecord) error { records = append(records, r); return nil },
		func(*prepared) (*x509.Certificate, error) {
			return nil, &Error{Class: CertGenError, Reason: "signing failed", Cause: errBroken}
		})
	if _, err := a.Issue(a.cfg.Signer.Cert().NotBefore.Add(time.Minute), caller, req); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if len(records) != 2 || records[1].Stage != AuditFailed || records[1].Class != CertGenError || records[1].Serial != records[0].Serial {
		t.Errorf("records are %+v", records)
	}
}
