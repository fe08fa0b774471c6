package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// Bounds on PEM text from outside. A chain or bundle beyond them is a mistake
// or an attack, and is refused before any of its signatures is looked at.
const (
	maxPEMBytes     = 1 << 20
	maxCertificates = 100
)

// ParseCertificates reads the certificates of a PEM text, in its order. Text
// between the blocks is allowed, as openssl writes it; any other kind of
// block, a block that does not parse, and a text without certificates are
// errors.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxPEMBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxPEMBytes)
	}
	var certs []*x509.Certificate
	for {
		block, rest, err := NextBlock(text)
		if err != nil {
			return nil, fmt.Errorf("is damaged in certificate %d: %w", len(certs)+1, err)
		}
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a PEM block %q where only certificates belong", block.Type)
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("holds more than %d certificates", maxCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d does not parse: %w", len(certs)+1, err)
		}
		if err := checkCost(cert.PublicKey); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs, text = append(certs, cert), rest
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return certs, nil
}

// NextBlock returns the first PEM block of a text and what follows it, or no
// block when there is none. A block that does not decode is an error:
// pem.Decode skips it in silence, and so would lose a root or take the wrong
// one of two keys.
func NextBlock(text []byte) (*pem.Block, []byte, error) {
	block, rest := pem.Decode(text)
	passed, blocks := text, 0
	if block != nil {
		passed, blocks = text[:len(text)-len(rest)], 1
	}
	if bytes.Count(passed, []byte("-----BEGIN")) > blocks {
		return nil, nil, errors.New("a PEM block has no end or does not decode")
	}
	return block, rest, nil
}

// MarshalCertificates encodes certificates as PEM, in their order, without
// text between them.
func MarshalCertificates(certs []*x509.Certificate) []byte {
	size := 0
	for _, cert := range certs {
		size += len(cert.Raw)*11/8 + 64 // base64 and ends of lines, and the lines of begin and end
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	for _, cert := range certs {
		_ = pem.Encode(out, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}) // a buffer takes all
	}
	return out.Bytes()
}

// MergeRoots returns the certificates of the lists, each once, in the order of
// their first appearance.
func MergeRoots(lists ...[]*x509.Certificate) []*x509.Certificate {
	var merged []*x509.Certificate
	for _, cert := range slices.Concat(lists...) {
		if !slices.ContainsFunc(merged, cert.Equal) {
			merged = append(merged, cert)
		}
	}
	return merged
}

// SameRoots tells whether two lists hold the same certificates. Order and
// repetition do not count: no verifier looks at them.
func SameRoots(a, b []*x509.Certificate) bool {
	return subset(a, b) && subset(b, a)
}

func subset(a, b []*x509.Certificate) bool {
	for _, cert := range a {
		if !slices.ContainsFunc(b, cert.Equal) {
			return false
		}
	}
	return true
}

// Pool returns the certificates as a pool for x509.VerifyOptions.
func Pool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}
