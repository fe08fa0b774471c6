package ca

import (
	"math/big"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Caller is somebody whose identity has been established. The zero Caller is
// nobody, and gets nothing. Only authenticators and the secret controller make
// one.
type Caller struct {
	id       spiffeid.ID
	method   string
	evidence string
	serial   *big.Int // of the certificate that proved it; may be nil
}

// NewCaller states that id has been authenticated: by which method ("secret
// controller", "client certificate", …) and on what evidence, for the audit
// record. The evidence must not hold a secret.
func NewCaller(id spiffeid.ID, method, evidence string) Caller {
	return Caller{id: id, method: method, evidence: evidence}
}

// ID is the caller's SPIFFE ID.
func (c Caller) ID() spiffeid.ID { return c.id }

// WithCertificate states that a certificate of this serial number proved the
// caller's identity: bans may name it.
func (c Caller) WithCertificate(serial *big.Int) Caller {
	c.serial = serial
	return c
}

// Certificate is the serial number of WithCertificate in hexadecimal; empty
// when another kind of proof was given.
func (c Caller) Certificate() string {
	if c.serial == nil {
		return ""
	}
	return c.serial.Text(16)
}
