package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// signatureOf maps a key to how it signs a request.
type signatureOf struct {
	id   pkix.AlgorithmIdentifier
	hash crypto.Hash
}

var (
	ecdsaSHA256 = signatureOf{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, crypto.SHA256}
	ecdsaSHA384 = signatureOf{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}}, crypto.SHA384}
	rsaSHA256   = signatureOf{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}, crypto.SHA256}
)

func signatureBy(key crypto.Signer) (signatureOf, error) {
	switch pub := key.Public().(type) {
	case *rsa.PublicKey:
		return rsaSHA256, nil
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P384() {
			return ecdsaSHA384, nil
		}
		return ecdsaSHA256, nil
	}
	return signatureOf{}, fmt.Errorf("no signature algorithm for a key of type %T", key.Public())
}

// requestInfo is the CertificationRequestInfo of RFC 2986 4.1 with an empty
// subject and no attributes.
type requestInfo struct {
	Version    int
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Attributes asn1.RawValue
}

// NewCSR returns a request, DER, that asks for nothing but its key to be
// certified. It is encoded here because crypto/x509 verifies each request that
// it has just signed, which the authority does anyway: that would be a tenth of
// the cost of a Secret.
func NewCSR(key crypto.Signer) ([]byte, error) {
	der, err := signedRequest(key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}

func signedRequest(key crypto.Signer) ([]byte, error) {
	alg, err := signatureBy(key)
	if err != nil {
		return nil, err
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	info, err := asn1.Marshal(requestInfo{
		Subject:    asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true},
		PublicKey:  asn1.RawValue{FullBytes: pub},
		Attributes: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true},
	})
	if err != nil {
		return nil, err
	}
	digest := alg.hash.New()
	_, _ = digest.Write(info) // a hash never fails to write
	signature, err := key.Sign(rand.Reader, digest.Sum(nil), alg.hash)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Info      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: info}, alg.id, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
}
