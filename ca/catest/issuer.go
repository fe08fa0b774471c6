package catest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	leafLife = time.Hour
)

// Issuer is an operator's own CA certificate with its private key.
type Issuer struct {
	Cert   *x509.Certificate
	Key    crypto.Signer
	Parent *Issuer // nil for a root
}

// Spec says what an issuer is like.
type Spec struct {
	// Name is its common name. Issuers of one name and key type have one key.
	Name string
	// KeyType is P-256 if it is left out.
	KeyType trust.KeyType
	// Edit, if set, changes the certificate before it is signed.
	Edit func(*x509.Certificate)
}

// Root makes a self-signed CA, valid from an hour before now for ten years.
func Root(tb testing.TB, now time.Time, s Spec) *Issuer {
	tb.Helper()
	return sign(tb, now, nil, s)
}

// Intermediate makes a CA below i, with the life of a Root.
func (i *Issuer) Intermediate(tb testing.TB, now time.Time, s Spec) *Issuer {
	tb.Helper()
	return sign(tb, now, i, s)
}

func sign(tb testing.TB, now time.Time, parent *Issuer, s Spec) *Issuer {
	tb.Helper()
	if s.KeyType == "" {
		s.KeyType = trust.ECDSAP256
	}
	template := &x509.Certificate{
		SerialNumber:          serial(tb),
		Subject:               pkix.Name{CommonName: s.Name, Organization: []string{"Operator"}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(rootLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if s.Edit != nil {
		s.Edit(template)
	}
	i := &Issuer{Key: Key(tb, s.KeyType, s.Name), Parent: parent}
	if parent == nil {
		i.Cert = create(tb, template, template, i.Key.Public(), i.Key)
	} else {
		i.Cert = create(tb, template, parent.Cert, i.Key.Public(), parent.Key)
	}
	return i
}

// Citadel14Root makes a root as Citadel 1.4 wrote it: RSA 2048, a serial number
// of 128 bits, a subject of an Organization alone, keyCertSign alone, and no
// subject key identifier.
func Citadel14Root(tb testing.TB, now time.Time, td spiffeid.TrustDomain) *Issuer {
	tb.Helper()
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: number,
		Subject:      pkix.Name{Organization: []string{td.Name()}},
		NotBefore:    now,
		NotAfter:     now.Add(rootLife),
		KeyUsage:     x509.KeyUsageCertSign,
		// crypto/x509 gives each CA a key identifier, so it must not see one here.
		ExtraExtensions: []pkix.Extension{BasicConstraints(tb, true, -1)},
	}
	key := Key(tb, trust.RSA2048, "Citadel 1.4 root")
	return &Issuer{Cert: create(tb, template, template, key.Public(), key), Key: key}
}

// Leaf makes a certificate of one hour for an identity and its key, past every
// check of package ca. The edits change it before it is signed.
func (i *Issuer) Leaf(tb testing.TB, now time.Time, id spiffeid.ID, edits ...func(*x509.Certificate)) *Issuer {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber:          serial(tb),
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             now.Add(-trust.Backdate),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, edit := range edits {
		edit(template)
	}
	key := Key(tb, trust.ECDSAP256, id.String())
	return &Issuer{Cert: create(tb, template, i.Cert, key.Public(), i.Key), Key: key, Parent: i}
}

// Root returns the end of i's chain.
func (i *Issuer) Root() *Issuer {
	for i.Parent != nil {
		i = i.Parent
	}
	return i
}

// Chain returns i and its issuers, without the root.
func (i *Issuer) Chain() []*x509.Certificate {
	var chain []*x509.Certificate
	for ; i.Parent != nil; i = i.Parent {
		chain = append(chain, i.Cert)
	}
	return chain
}

// PEM returns i's certificate.
func (i *Issuer) PEM() []byte {
	return trust.MarshalCertificates([]*x509.Certificate{i.Cert})
}

// Pieces returns i as an operator stores it, under the names of the secret
// cacerts.
func (i *Issuer) Pieces(tb testing.TB) trust.Pieces {
	tb.Helper()
	return trust.Pieces{
		Cert:  trust.Piece{Name: "ca-cert.pem", PEM: i.PEM()},
		Key:   trust.Piece{Name: "ca-key.pem", PEM: KeyPEM(tb, i.Key)},
		Chain: trust.Piece{Name: "cert-chain.pem", PEM: trust.MarshalCertificates(i.Chain())},
		Roots: trust.Piece{Name: "root-cert.pem", PEM: i.Root().PEM()},
	}
}

// Signer returns i as an authority's signer at now.
func (i *Issuer) Signer(tb testing.TB, now time.Time) *trust.Signer {
	tb.Helper()
	s, err := trust.NewSigner(now, i.Pieces(tb))
	if err != nil {
		tb.Fatalf("make a signer: %v", err)
	}
	return s
}

// BasicConstraints returns the extension, critical; a pathLen below zero is left out.
func BasicConstraints(tb testing.TB, isCA bool, pathLen int) pkix.Extension {
	tb.Helper()
	der, err := asn1.Marshal(struct {
		IsCA    bool `asn1:"optional"`
		PathLen int  `asn1:"optional,default:-1"`
	}{isCA, pathLen})
	if err != nil {
		tb.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: der}
}

func create(tb testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		tb.Fatalf("sign %s: %v", template.Subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := trust.NewSerial()
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
