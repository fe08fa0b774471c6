package ca

import "github.com/spiffe/go-spiffe/v2/spiffeid"

// Caller is somebody whose identity has been established. The zero Caller is
// nobody, and gets nothing. Only authenticators and the secret controller make
// one.
type Caller struct {
	id       spiffeid.ID
	method   string
	evidence string
}

// NewCaller states that id has been authenticated: by which method ("secret
// controller", "client certificate", …) and on what evidence, for the audit
// record. The evidence must not hold a secret.
func NewCaller(id spiffeid.ID, method, evidence string) Caller {
	return Caller{id: id, method: method, evidence: evidence}
}

// ID is the caller's SPIFFE ID.
func (c Caller) ID() spiffeid.ID { return c.id }
