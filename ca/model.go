package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // key identifiers are SHA-1 by RFC 5280 4.2.1.2; nothing is secured by it
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"citadel/ca/trust"
)

// model is what all certificates of a profile have in common, in DER, taken
// from one that cfssl signed. Only the key's own fields are encoded anew for
// each certificate, and nothing is verified that this process has just signed:
// that is half the cost of crypto/x509.CreateCertificate. Authority.prove
// verifies what comes of it before the first use.
type model struct {
	hash       crypto.Hash
	algorithm  []byte // AlgorithmIdentifier
	issuer     []byte // Name
	extensions []pkix.Extension
}

// newModel takes a certificate apart.
func newModel(der []byte) (*model, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	m := &model{issuer: cert.RawIssuer, extensions: cert.Extensions}
	switch cert.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.SHA256WithRSA:
		m.hash = crypto.SHA256
	case x509.ECDSAWithSHA384, x509.SHA384WithRSA:
		m.hash = crypto.SHA384
	case x509.ECDSAWithSHA512, x509.SHA512WithRSA:
		m.hash = crypto.SHA512
	default:
		return nil, fmt.Errorf("signature algorithm %s is not supported", cert.SignatureAlgorithm)
	}
	outer := cryptobyte.String(cert.Raw)
	var whole, algorithm cryptobyte.String
	if !outer.ReadASN1(&whole, tags.SEQUENCE) || !whole.SkipASN1(tags.SEQUENCE) || !whole.ReadASN1Element(&algorithm, tags.SEQUENCE) {
		return nil, errors.New("the model certificate does not parse")
	}
	m.algorithm = algorithm
	return m, nil
}

// sign makes the certificate of a request in the model's likeness, RFC 5280
// 4.1.
func (m *model) sign(key crypto.Signer, p *prepared, san pkix.Extension) ([]byte, error) {
	tbs, err := m.tbs(p, san)
	if err != nil {
		return nil, err
	}
	signature, err := crypto.SignMessage(key, rand.Reader, tbs, m.hash)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+len(m.algorithm)+16))
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(m.algorithm)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// tbs is the part of the certificate that is signed, RFC 5280 4.1.2.
func (m *model) tbs(p *prepared, san pkix.Extension) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(p.key)
	if err != nil {
		return nil, err
	}
	id, err := keyID(spki)
	if err != nil {
		return nil, err
	}
	subject, err := subject(p)
	if err != nil {
		return nil, err
	}
	const version3 = 2
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tags.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Int64(version3) })
		b.AddASN1BigInt(p.serial)
		b.AddBytes(m.algorithm)
		b.AddBytes(m.issuer)
		b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, p.validity.notBefore)
			addTime(b, p.validity.notAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(spki)
		b.AddASN1(tags.Tag(3).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) { m.addExtensions(b, id, san) })
		})
	})
	return b.Bytes()
}

// addExtensions adds the model's extensions with the key's own identifier and
// the request's names in their places.
func (m *model) addExtensions(b *cryptobyte.Builder, keyID []byte, san pkix.Extension) {
	for _, ext := range m.extensions {
		switch {
		case ext.Id.Equal(oidSubjectAltName):
			ext = san
		case ext.Id.Equal(oidSubjectKeyID):
			var value cryptobyte.Builder
			value.AddASN1OctetString(keyID)
			ext.Value = value.BytesOrPanic() // of 20 bytes
		}
		b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(ext.Id)
			if ext.Critical {
				b.AddASN1Boolean(true)
			}
			b.AddASN1OctetString(ext.Value)
		})
	}
}

// addTime encodes a time in seconds as RFC 5280 4.1.2.5 asks: in two digits of
// the year up to 2049.
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t = t.UTC(); t.Year() < 2050 {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
}

// subject is the name of a request, which is empty unless it has a common name.
func subject(p *prepared) ([]byte, error) {
	if p.commonName == "" {
		return []byte{byte(tags.SEQUENCE), 0}, nil
	}
	return asn1.Marshal(pkix.Name{CommonName: p.commonName}.ToRDNSequence())
}

// keyID is the key identifier of a SubjectPublicKeyInfo by RFC 5280 4.2.1.2
// method 1.
func keyID(spki []byte) ([]byte, error) {
	outer := cryptobyte.String(spki)
	var whole, key cryptobyte.String
	var unused uint8
	if !outer.ReadASN1(&whole, tags.SEQUENCE) || !whole.SkipASN1(tags.SEQUENCE) ||
		!whole.ReadASN1(&key, tags.BIT_STRING) || !key.ReadUint8(&unused) {
		return nil, errors.New("the public key does not parse")
	}
	sum := sha1.Sum(key) //nolint:gosec // see the import
	return sum[:], nil
}

// withKeyID returns the issuer with a subject key identifier where it has none
// (roots of Citadel 1.4), so that leaves always name their issuer's key.
func withKeyID(cert *x509.Certificate) (*x509.Certificate, error) {
	if len(cert.SubjectKeyId) > 0 {
		return cert, nil
	}
	id, err := keyID(cert.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, fmt.Errorf("read the public key of %s: %w", trust.Name(cert), err)
	}
	named := *cert
	named.SubjectKeyId = id
	return &named, nil
}

// authorityKeyID names the issuer's key in each leaf. crypto/x509 leaves it
// out where issuer and leaf have the same subject: where both have none.
func authorityKeyID(issuer *x509.Certificate) (pkix.Extension, error) {
	der, err := asn1.Marshal(struct {
		KeyID []byte `asn1:"tag:0"`
	}{issuer.SubjectKeyId})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encode the key identifier of %s: %w", trust.Name(issuer), err)
	}
	return pkix.Extension{Id: oidAuthorityKeyID, Value: der}, nil
}
