package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestNewCSRAsksForNothingButItsKey: it is encoded by hand, so it must read
// like any other, here and in OpenSSL, and be signed by its key (C-10).
func TestNewCSRAsksForNothingButItsKey(t *testing.T) {
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{
		"P-256": catest.Key(t, trust.ECDSAP256, "request"), "P-384": catest.Key(t, trust.ECDSAP384, "request"),
		"P-521": p521, "RSA": catest.Key(t, trust.RSA2048, "workload"),
	} {
		t.Run(name, func(t *testing.T) {
			der, err := ca.NewCSR(key)
			if err != nil {
				t.Fatal(err)
			}
			checkBareRequest(t, der, key)
			issue(t, catest.Authority(t, now, ca.Config{}), now, ca.Request{CSR: der})
		})
	}
}

func checkBareRequest(t *testing.T, der []byte, key crypto.Signer) {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil || !trust.SamePublicKey(csr.PublicKey, key.Public()) {
		t.Errorf("signature, or another key: %v", err)
	}
	if csr.Subject.String() != "" || len(csr.Extensions) > 0 || csr.Version != 0 {
		t.Errorf("subject %q, %d extensions, version %d", csr.Subject, len(csr.Extensions), csr.Version)
	}
	file := filepath.Join(t.TempDir(), "request.der")
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := openssl(t, "req", "-verify", "-noout", "-inform", "DER", "-in", file); !ok {
		t.Errorf("openssl: %s", out)
	}
}

func TestNewCSRRefusesOtherKeys(t *testing.T) {
	if _, err := ca.NewCSR(ed25519Key(t)); err == nil {
		t.Error("makes a request for an Ed25519 key")
	}
}
