package secretcontroller

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/trust"
)

// The certificates of FuzzJudge are the same in each process: fuzzing runs in
// several, and keeps what it found for later.

// fixedKey is a P-256 key without chance in it.
func fixedKey(tb testing.TB, n byte) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{n}, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// fixedCert is signed without chance: with no source of it, ECDSA takes the
// nonce of RFC 6979.
func fixedCert(tb testing.TB, n byte, parent *x509.Certificate, signer *ecdsa.PrivateKey, edits ...edited) *x509.Certificate {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(n)), Subject: pkix.Name{CommonName: string('A' + rune(n))},
		NotBefore: now.Add(-trust.Backdate), NotAfter: now.Add(time.Hour), BasicConstraintsValid: true,
		IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, edit := range edits {
		edit(template)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(nil, template, parent, fixedKey(tb, n).Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

func asLeaf(c *x509.Certificate) {
	c.Subject, c.IsCA, c.KeyUsage = pkix.Name{}, false, x509.KeyUsageDigitalSignature
	c.URIs = []*url.URL{sleepID.URL()}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// FuzzJudge: no Secret makes judging panic, and one that may stay is one that
// SPIFFE's own library reads, and verifies to today's roots, as the account's.
func FuzzJudge(f *testing.F) {
	root := fixedCert(f, 1, nil, fixedKey(f, 1))
	issuing := fixedCert(f, 2, root, fixedKey(f, 1))
	leaf := fixedCert(f, 3, issuing, fixedKey(f, 2), asLeaf)
	alien := fixedCert(f, 4, nil, fixedKey(f, 4))
	key, err := trust.MarshalKey(fixedKey(f, 3))
	if err != nil {
		f.Fatal(err)
	}
	pem := func(list ...*x509.Certificate) []byte { return trust.MarshalCertificates(list) }
	variant := func(edit edited) []byte { return pem(fixedCert(f, 3, issuing, fixedKey(f, 2), asLeaf, edit), issuing) }
	want := Want{Account: account, ID: sleepID, Roots: NewRoots(certs{root}, now.Add(-time.Hour)), Rotation: Rotation{GraceRatio: 0.5}}
	bundles := x509bundle.FromX509Authorities(sleepID.TrustDomain(), certs{root})

	chain, roots := pem(leaf, issuing), pem(root)
	f.Add(chain, key, roots, "sleep", true)
	f.Add(chain, key, roots, "sleep", false)
	f.Add(chain, key, roots, "admin", true)
	f.Add(chain, key, pem(root, alien), "sleep", true)
	f.Add(pem(leaf, issuing, root), key, roots, "sleep", true)
	f.Add(pem(leaf), key, roots, "sleep", true)
	f.Add(pem(issuing, leaf), key, roots, "sleep", true)
	f.Add(pem(leaf, issuing, leaf), key, roots, "sleep", true)
	f.Add(chain[:len(chain)-1], key, roots, "sleep", true)
	f.Add(chain, key[:len(key)/2], roots[:40], "sleep", true)
	f.Add([]byte(nil), []byte(nil), []byte(nil), "", false)
	f.Add(variant(func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), key, roots, "sleep", true)
	f.Add(variant(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), key, roots, "sleep", true)
	f.Add(variant(func(c *x509.Certificate) { c.IsCA = true }), key, roots, "sleep", true)
	f.Add(variant(lives(now.Add(-time.Hour), now.Add(-time.Minute))), key, roots, "sleep", true)

	f.Fuzz(func(t *testing.T, chain, key, roots []byte, annotation string, marked bool) {
		secret := &corev1.Secret{Type: SecretType, Data: map[string][]byte{ChainKey: chain, KeyKey: key, RootsKey: roots},
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{AccountAnnotation: annotation}}}
		if marked {
			secret = compose(secret, account, material{key: key, chain: chain, roots: roots})
			secret.Annotations[AccountAnnotation] = annotation
		}
		v := Judge(now, secret, want)
		if (v.Reason == Right) != v.Keep(now) && v.Reason != OldRoots {
			t.Errorf("found %q, and yet due at %s", v.Reason, v.RenewAt)
		}
		if v.Reason == Right {
			readable(t, secret, bundles)
		}
	})
}

// readable insists that go-spiffe takes the Secret as the account's SVID.
func readable(t *testing.T, secret *corev1.Secret, bundles *x509bundle.Bundle) {
	t.Helper()
	list, err := trust.ParseCertificates(secret.Data[ChainKey])
	if err != nil {
		t.Fatalf("right, and its chain: %v", err)
	}
	key, err := trust.ParseKey(secret.Data[KeyKey])
	if err != nil {
		t.Fatalf("right, and its key: %v", err)
	}
	pkcs8, err := trust.MarshalKey(key) // Secrets of the ancestor's hold other encodings
	if err != nil {
		t.Fatal(err)
	}
	svid, err := x509svid.Parse(trust.MarshalCertificates(list), pkcs8)
	if err != nil {
		t.Fatalf("right, and go-spiffe refuses it: %v", err)
	}
	id, _, err := x509svid.Verify(svid.Certificates, bundles, x509svid.WithTime(now))
	if err != nil || id != sleepID {
		t.Fatalf("right, and go-spiffe verifies it as %s: %v", id, err)
	}
}
