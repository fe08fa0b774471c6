package ca

import (
	"errors"
	"time"
)

// The stages of an AuditRecord. Each signature has a record of stage signing
// before it and one of signed or failed after it, with the same serial;
// refused stands alone.
const (
	AuditSigning = "signing"
	AuditSigned  = "signed"
	AuditFailed  = "failed"
	AuditRefused = "refused"
)

// AuditRecord says who asked for a certificate, how that was established, and
// what came of it. It never holds key material.
type AuditRecord struct {
	Time      time.Time `json:"time"`
	Stage     string    `json:"stage"`
	Caller    string    `json:"caller"`
	Method    string    `json:"method,omitempty"`
	Evidence  string    `json:"evidence,omitempty"`
	Identity  string    `json:"identity,omitempty"`
	DNSNames  []string  `json:"dnsNames,omitempty"`
	Serial    string    `json:"serial,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	Class     Class     `json:"class,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// record is that of stage signing.
func (p *prepared) record(issuer string) AuditRecord {
	return AuditRecord{
		Time: p.now, Stage: AuditSigning,
		Caller: p.caller.id.String(), Method: p.caller.method, Evidence: p.caller.evidence,
		Identity: p.caller.id.String(), DNSNames: p.dnsNames,
		Serial: p.serial.Text(16), Issuer: issuer,
		NotBefore: p.validity.notBefore, NotAfter: p.validity.notAfter,
	}
}

// ended is the record of what became of the signature that r announced.
func (r AuditRecord) ended(err error) AuditRecord {
	r.Stage = AuditSigned
	if err != nil {
		r.Stage = AuditFailed
	}
	r.fail(err)
	return r
}

func (r *AuditRecord) fail(err error) {
	if err == nil {
		return
	}
	r.Error = err.Error()
	if e, ok := errors.AsType[*Error](err); ok {
		r.Class = e.Class
	}
}
