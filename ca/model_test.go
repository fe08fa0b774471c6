package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// FuzzModel: what is signed for a key of ours is, byte for byte, what
// crypto/x509 encodes of the same fields.
func FuzzModel(f *testing.F) {
	now := time.Date(2026, 7, 14, 12, 34, 56, 0, time.UTC)
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	root, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: td, KeyType: trust.ECDSAP256, Lifetime: 24 * time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	self := spiffeid.RequireFromPath(td, "/self")
	sign, err := newSigner(root, self)
	if err != nil {
		f.Fatal(err)
	}
	leaves := map[trust.KeyType]x509.Certificate{}
	for _, keyType := range []trust.KeyType{trust.ECDSAP256, trust.ECDSAP384, trust.RSA2048} {
		key, err := keyType.Generate()
		if err != nil {
			f.Fatal(err)
		}
		leaves[keyType] = x509.Certificate{PublicKey: key.Public()}
	}
	add := func(keyType trust.KeyType, name, cn string, serial []byte, from, to time.Time) {
		f.Add(string(keyType), name, cn, serial, from.Unix(), to.Unix())
	}
	last := time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
	add(trust.ECDSAP256, "sleep.default.svc", "", []byte{1}, now, now.Add(time.Hour))
	add(trust.ECDSAP256, "", "spiffe://cluster.local/ns/a/sa/b", []byte{0x80}, last, last.Add(time.Second)) // RFC 5280 4.1.2.5
	add(trust.ECDSAP384, "*.example.org", "ü@", bytes.Repeat([]byte{0xff}, 20), last, last)
	add(trust.RSA2048, string(bytes.Repeat([]byte("a"), 300)), "x", []byte{0x7f, 0}, time.Unix(0, 0), now)
	east := time.FixedZone("east", 7*3600)
	f.Fuzz(func(t *testing.T, keyType, name, cn string, serial []byte, from, to int64) {
		leaf, ok := leaves[trust.KeyType(keyType)]
		p := &prepared{caller: Caller{id: self}, key: leaf.PublicKey, commonName: cn, serial: new(big.Int).SetBytes(serial),
			validity: validity{time.Unix(from, 0).In(east), time.Unix(to, 0).In(east)}}
		if !ok || p.serial.Sign() == 0 || len(serial) > 20 || from < 0 || to < from || time.Unix(to, 0).Year() > 9999 {
			return // prepare lets no such request through
		}
		if name != "" {
			p.dnsNames = []string{name}
		}
		want := bare(t, root, p)
		got, err := sign(p)
		if (want == nil) != (err != nil) {
			t.Fatalf("error %v; crypto/x509 signs: %v", err, want != nil)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(got.RawTBSCertificate, want.RawTBSCertificate) {
			t.Errorf("got  %x\nwant %x", got.RawTBSCertificate, want.RawTBSCertificate)
		}
		if err := got.CheckSignatureFrom(root.Cert()); err != nil {
			t.Error(err)
		}
	})
}

// TestModelOfEveryCAKey: New verifies what is signed.
func TestModelOfEveryCAKey(t *testing.T) {
	now := time.Date(2026, 7, 14, 12, 34, 56, 0, time.UTC)
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	for name, generate := range map[string]func() (crypto.Signer, error){
		"P-256":    trust.ECDSAP256.Generate,
		"P-384":    trust.ECDSAP384.Generate,
		"P-521":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
		"RSA 2048": trust.RSA2048.Generate,
		"RSA 3072": trust.RSA3072.Generate,
		"RSA 4096": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 4096) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, err := generate()
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "root"}, NotBefore: now,
				NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			text, err := trust.MarshalKey(key)
			if err != nil {
				t.Fatal(err)
			}
			cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
			piece := func(text []byte) trust.Piece { return trust.Piece{Name: "test", PEM: text} }
			signer, err := trust.NewSigner(now, trust.Pieces{Cert: piece(cert), Key: piece(text), Roots: piece(cert)})
			if err != nil {
				t.Fatal(err)
			}
			_, err = New(now, Config{TrustDomain: td, Signer: signer, DefaultTTL: time.Minute, MaxTTL: time.Hour, Audit: func(AuditRecord) error { return nil }})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// bare has crypto/x509 sign the request, nil if it cannot.
func bare(t *testing.T, root *trust.Signer, p *prepared) *x509.Certificate {
	t.Helper()
	san, err := subjectAltName(p)
	if err != nil {
		return nil
	}
	aki, err := authorityKeyID(root.Cert())
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keyID(spki)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: p.serial, Subject: pkix.Name{CommonName: p.commonName},
		NotBefore: p.validity.notBefore.UTC(), NotAfter: p.validity.notAfter.UTC(), SubjectKeyId: id,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, ExtraExtensions: []pkix.Extension{san, aki},
	}
	if profileName(p.key) == profileEncipherment {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root.Cert(), p.key, root.Key())
	if err != nil {
		return nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return cert
}
