package inspect

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"citadel/ca/trust"
)

// Piece is a certificate and the file or key of a Secret that held it.
type Piece struct {
	Cert *x509.Certificate
	From string
}

// Material is what there is to inspect. ParseFile and ParseSecret make it.
type Material struct {
	// Source is how people call all of it.
	Source string
	// Expect is what the first certificate of Chain must be; empty: what it
	// looks like.
	Expect Role
	// Chain is in the order found. Chain and Bundle are not both empty.
	Chain []Piece
	// Bundle are the roots that came with it.
	Bundle []Piece
	// Key is nil where there is none.
	Key     crypto.Signer
	KeyFrom string
	// Signer is set for what a Citadel signs with.
	Signer *trust.Pieces
	// Problems and Remarks are what reading it found.
	Problems, Remarks []Finding
}

func located(certs []*x509.Certificate, from string) []Piece {
	var out []Piece
	for _, cert := range certs {
		out = append(out, Piece{Cert: cert, From: from})
	}
	return out
}

// ParseFile reads a file: certificates in PEM and perhaps their private key,
// or certificates in DER. Its errors begin with the name, and never quote the
// text.
func ParseFile(name string, text []byte) (Material, error) {
	m := Material{Source: name}
	certs, key, err := m.split(text)
	if err != nil {
		return Material{}, fmt.Errorf("%s %w", name, err)
	}
	if isBundle(certs) {
		m.Bundle = located(certs, name)
	} else {
		m.Chain = located(certs, name)
	}
	m.takeKey(name, key)
	return m, nil
}

// split tells certificates from keys.
func (m *Material) split(text []byte) (certs []*x509.Certificate, key []byte, err error) {
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, nil, errors.New("is empty")
	case !bytes.Contains(text, []byte("-----BEGIN")):
		certs, err := x509.ParseCertificates(text)
		if err != nil || len(certs) == 0 {
			return nil, nil, errors.New("holds no certificate: neither PEM (-----BEGIN CERTIFICATE-----) nor DER")
		}
		return certs, nil, nil
	}
	chain, key, err := m.sort(text)
	switch {
	case err != nil:
		return nil, nil, err
	case len(chain) == 0 && len(key) > 0:
		return nil, nil, errors.New("holds a private key and no certificate: give the file of the certificate")
	case len(chain) == 0:
		return nil, nil, errors.New("holds no certificate, but PEM blocks of another kind")
	}
	certs, err = trust.ParseCertificates(chain)
	return certs, key, err
}

// sort tells PEM blocks by their kind.
func (m *Material) sort(text []byte) (chain, key []byte, err error) {
	for {
		block, rest, err := trust.NextBlock(text)
		if err != nil {
			return nil, nil, fmt.Errorf("is damaged: %w", err)
		}
		switch text = rest; {
		case block == nil:
			return chain, key, nil
		case block.Type == "CERTIFICATE":
			chain = append(chain, pem.EncodeToMemory(block)...)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key = append(key, pem.EncodeToMemory(block)...)
		case block.Type == "EC PARAMETERS": // openssl writes one before a key
		default:
			m.remark("other-block", "holds a PEM block that is neither a certificate nor a private key: it was not looked at")
		}
	}
}

// isBundle tells a file of roots from a chain: it begins with a root, and holds
// CAs alone.
func isBundle(certs []*x509.Certificate) bool {
	for _, cert := range certs {
		if !cert.IsCA {
			return false
		}
	}
	return selfSigned(certs[0])
}

// takeKey reads a key that is there. What is wrong with it is a finding.
func (m *Material) takeKey(from string, text []byte) {
	if len(text) == 0 {
		return
	}
	key, err := trust.ParseKey(text)
	if err != nil {
		m.problem("key-damaged", "%s %v", from, err)
		return
	}
	m.Key, m.KeyFrom = key, from
}

func (m *Material) problem(code, format string, args ...any) {
	m.Problems = append(m.Problems, finding(code, nil, format, args))
}

func (m *Material) remark(code, format string, args ...any) {
	m.Remarks = append(m.Remarks, finding(code, nil, format, args))
}
