package trust_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestKeyTooDearToCheck: one signature of an RSA key of a million bits takes
// minutes to check, so certificates with such keys are not even kept
// (specifications section 9, 5).
func TestKeyTooDearToCheck(t *testing.T) {
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	huge := new(big.Int).SetBit(big.NewInt(1), 100_000, 1)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, root.Cert, &rsa.PublicKey{N: huge, E: 65537}, root.Key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = trust.ParseCertificates(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err == nil || !strings.Contains(err.Error(), "certificate 1: RSA key of 100001 bits is too large") {
		t.Errorf("error %v", err)
	}
}

// TestKeyTooLargeToParse: parsing a private key computes with it.
func TestKeyTooLargeToParse(t *testing.T) {
	for _, kind := range []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"} {
		_, err := trust.ParseKey(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: make([]byte, 9<<10)}))
		if err == nil || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("%s: error %v", kind, err)
		}
	}
}
