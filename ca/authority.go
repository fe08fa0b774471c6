// Package ca issues workload certificates: an authenticated caller and a
// certificate request go in, a signed SPIFFE X.509 chain comes out, with an
// audit record before and after each signature.
//
// The identity in a certificate is the caller's, never the request's: a
// request yields a public key, and is refused when it asks for anything that
// its caller is not. The package refuses to do I/O, to read a clock, to log,
// and to sign for a caller that nobody authenticated.
package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// MinimumLife is the least that a signer must have left to sign for longer
// than it lives: below it a clamped certificate would be of no use.
const MinimumLife = 10 * time.Minute

// Config is what an Authority is made from.
type Config struct {
	// TrustDomain is the only trust domain that the authority issues for.
	TrustDomain spiffeid.TrustDomain
	// Signer signs, and its roots are what issued chains verify to.
	Signer *trust.Signer
	// DefaultTTL counts when a request asks for none.
	DefaultTTL time.Duration
	// MaxTTL bounds what a request may ask for. More is refused, not clamped.
	MaxTTL time.Duration
	// DNSNames says which identities get DNS SANs, and which. Nil: none.
	DNSNames DNSNames
	// CommonName repeats the SPIFFE ID in the subject's CN where it fits into
	// 64 characters, for programs that look nowhere else.
	CommonName bool
	// Audit receives each record. When it fails, nothing is signed. Required.
	Audit func(AuditRecord) error
}

// Authority signs certificates. Its methods are safe for concurrent use.
type Authority struct {
	cfg    Config
	issuer string // the signer's name, as records have it
	sign   signFunc
	bans   atomic.Pointer[Bans]
}

// New checks the configuration and proves, by signatures with the real profile
// that no verifier accepts for longer than this call, that chains of this
// signer verify to its roots, with the DNS names of each identity too: path
// lengths, name constraints and key usages of an operator's own CA show here
// and not at the first workload.
func New(now time.Time, cfg Config) (*Authority, error) {
	switch {
	case cfg.TrustDomain.IsZero():
		return nil, errors.New("authority: trust domain is not set")
	case cfg.Signer == nil:
		return nil, errors.New("authority: signer is not set")
	case cfg.Audit == nil:
		return nil, errors.New("authority: audit sink is not set")
	case cfg.DefaultTTL <= 0 || cfg.MaxTTL < cfg.DefaultTTL:
		return nil, fmt.Errorf("authority: default TTL %s must be positive and at most the maximum TTL %s", cfg.DefaultTTL, cfg.MaxTTL)
	}
	self, err := ServiceAccountID(cfg.TrustDomain, "citadel", "self-check")
	if err != nil {
		return nil, err
	}
	sign, err := newSigner(cfg.Signer, self)
	if err != nil {
		return nil, err
	}
	cfg.DNSNames = cfg.DNSNames.clone()
	a := &Authority{cfg: cfg, issuer: cfg.Signer.Cert().Subject.String(), sign: sign}
	if err := a.prove(now, self); err != nil {
		return nil, err
	}
	return a, nil
}

// TrustDomain is the trust domain that the authority issues for.
func (a *Authority) TrustDomain() spiffeid.TrustDomain { return a.cfg.TrustDomain }

// Signer is what the authority signs with.
func (a *Authority) Signer() *trust.Signer { return a.cfg.Signer }

// DNSNames returns the DNS SANs that policy gives to an identity. The caller
// must not change them.
func (a *Authority) DNSNames(id spiffeid.ID) []string { return a.cfg.DNSNames[id] }

// Ready returns nil when the authority can sign for its default TTL at now.
func (a *Authority) Ready(now time.Time) error {
	if a == nil {
		return &Error{Class: CANotReady, Reason: "Istio CA is not ready"}
	}
	_, err := a.validity(now, 0)
	return err
}

// Request is what a caller asks for.
type Request struct {
	// CSR is a PKCS#10 request, PEM or DER.
	CSR []byte
	// Key is what stands in a CSR's place for a key pair of this process: who
	// holds the private key need not prove it by a signature. It is only asked
	// for its public key.
	Key crypto.Signer
	// TTL is the life asked for, counted from now; zero or less means the
	// authority's default.
	TTL time.Duration
}

// Issue signs a certificate for the caller, and returns it with its issuers,
// leaf first, without the root. Its errors are *Error.
func (a *Authority) Issue(now time.Time, caller Caller, req Request) ([]*x509.Certificate, error) {
	p, err := a.admitted(now, caller, req)
	if err != nil {
		return nil, a.refused(now, caller, err)
	}
	return a.certify(p)
}

// IssueServer signs a certificate for a server of this process: beside the
// caller's identity it has the names that its clients may dial. No request from
// outside comes here.
func (a *Authority) IssueServer(now time.Time, caller Caller, key crypto.Signer, dnsNames []string, addresses []netip.Addr) ([]*x509.Certificate, error) {
	p, err := a.prepare(now, caller, Request{Key: key})
	if err != nil {
		return nil, a.refused(now, caller, err)
	}
	p.dnsNames, p.addresses = dnsNames, addresses
	return a.certify(p)
}

// Check is the error with which Issue would refuse a request before it signs, and
// nil where it would sign; a CSR's own signature is checked by Issue alone. A
// refusal has its audit record.
func (a *Authority) Check(now time.Time, caller Caller, req Request) error {
	if _, err := a.admitted(now, caller, req); err != nil {
		return a.refused(now, caller, err)
	}
	return nil
}

// admitted is a request that may be signed now.
func (a *Authority) admitted(now time.Time, caller Caller, req Request) (*prepared, error) {
	p, err := a.prepare(now, caller, req)
	if err != nil {
		return nil, err
	}
	return p, a.bans.Load().known(now)
}

func (a *Authority) certify(p *prepared) ([]*x509.Certificate, error) {
	record := p.record(a.issuer)
	if err := a.cfg.Audit(record); err != nil {
		return nil, &Error{Class: CertGenError, Reason: "the audit record before signing cannot be written", Cause: err}
	}
	leaf, err := a.sign(p)
	if auditErr := a.cfg.Audit(record.ended(err)); err == nil && auditErr != nil {
		err = &Error{Class: CertGenError, Reason: "the audit record after signing cannot be written", Cause: auditErr}
	}
	if err != nil {
		return nil, err
	}
	return append([]*x509.Certificate{leaf}, a.cfg.Signer.Chain()...), nil
}

// prepare runs every check, and returns the only thing that can be signed.
func (a *Authority) prepare(now time.Time, caller Caller, req Request) (*prepared, error) {
	if a == nil {
		return nil, &Error{Class: CANotReady, Reason: "Istio CA is not ready"}
	}
	if err := a.CheckCaller(caller); err != nil {
		return nil, err
	}
	names := a.cfg.DNSNames[caller.id]
	key, csr, err := publicKey(req, caller.id, names)
	if err != nil {
		return nil, err
	}
	v, err := a.validity(now, req.TTL)
	if err != nil {
		return nil, err
	}
	serial, err := trust.NewSerial()
	if err != nil {
		return nil, &Error{Class: CertGenError, Reason: "no serial number", Cause: err}
	}
	p := &prepared{caller: caller, key: key, csr: csr, dnsNames: names, validity: v, serial: serial, now: now}
	if a.cfg.CommonName && len(caller.id.String()) <= maxCommonName {
		p.commonName = caller.id.String()
	}
	return p, nil
}

// publicKey is what a request asks to have certified, and the CSR that it came
// in, if any.
func publicKey(req Request, id spiffeid.ID, names []string) (crypto.PublicKey, *x509.CertificateRequest, error) {
	if req.Key == nil {
		csr, err := parseCSR(req.CSR, id, names)
		if err != nil {
			return nil, nil, err
		}
		return csr.PublicKey, csr, nil
	}
	if len(req.CSR) > 0 {
		return nil, nil, csrError("a request has a certificate request or a key, not both")
	}
	key := req.Key.Public()
	if err := trust.CheckPublicKey(key); err != nil {
		return nil, nil, csrError("key is refused: %v", err)
	}
	return key, nil, nil
}

// CheckCaller refuses the zero caller, foreign trust domains, the trust
// domain's own ID, which is a signing authority's and no workload's, and
// who is banned. Issue does it too: it is for callers who ask on behalf of
// others. Its errors are *Error.
func (a *Authority) CheckCaller(caller Caller) error {
	switch {
	case caller.id.IsZero():
		return &Error{Class: Unauthenticated, Reason: "caller is not authenticated"}
	case !caller.id.MemberOf(a.cfg.TrustDomain):
		return &Error{Class: Denied, Reason: fmt.Sprintf("identity %s is not of trust domain %s", caller.id, a.cfg.TrustDomain)}
	case caller.id.Path() == "":
		return &Error{Class: Denied, Reason: fmt.Sprintf("identity %s has no path: it is the signing authority's own", caller.id)}
	}
	return a.bans.Load().check(caller)
}

// refused audits a request that was turned down before anything was signed.
func (a *Authority) refused(now time.Time, caller Caller, err error) error {
	if a == nil {
		return err
	}
	record := AuditRecord{Time: now, Stage: AuditRefused, Caller: caller.id.String(), Method: caller.method,
		Evidence: caller.evidence}
	record.fail(err)
	if auditErr := a.cfg.Audit(record); auditErr != nil {
		return errors.Join(err, fmt.Errorf("write the audit record of the refusal: %w", auditErr))
	}
	return err
}
