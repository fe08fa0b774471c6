package supervisor

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"
)

// TestPKI verifies each certificate for its use, now and in years, and against
// no authority but its own.
func TestPKI(t *testing.T) {
	l := newTestLayout(t)
	now := time.Now()
	if err := ensurePKI(l, now); err != nil {
		t.Fatal(err)
	}
	for _, s := range subjects {
		pair, err := tls.LoadX509KeyPair(l.certificate(s.name), l.key(s.name))
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if _, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok {
			t.Errorf("%s: a key of type %T", s.name, pair.PrivateKey)
		}
		for _, ca := range []string{caName, etcdCAName, proxyCAName} {
			for _, when := range []time.Time{now, now.AddDate(9, 0, 0)} {
				err := verify(t, l, pair.Leaf, ca, when)
				if ca == s.ca && err != nil {
					t.Errorf("%s against %s: %v", s.name, ca, err)
				}
				if ca != s.ca && err == nil {
					t.Errorf("%s is good against %s", s.name, ca)
				}
			}
		}
		for _, name := range s.servers {
			if err := pair.Leaf.VerifyHostname(name); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
	}
}

// TestPKIStays finds the same keys at the second start.
func TestPKIStays(t *testing.T) {
	l := newTestLayout(t)
	var keys [2]string
	for i := range keys {
		if err := ensurePKI(l, time.Now()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(l.key(serviceAccountName))
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = string(text)
	}
	if keys[0] != keys[1] {
		t.Error("the second start has made another key")
	}
}

func verify(t *testing.T, l layout, leaf *x509.Certificate, ca string, when time.Time) error {
	t.Helper()
	text, err := os.ReadFile(l.certificate(ca))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in %s", l.certificate(ca))
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: when, KeyUsages: leaf.ExtKeyUsage})
	return err
}
