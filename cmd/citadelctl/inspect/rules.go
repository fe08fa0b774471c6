package inspect

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"citadel/ca/trust"
)

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// present and critical look for an extension.
func present(cert *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return true
		}
	}
	return false
}

func critical(cert *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Critical
		}
	}
	return false
}

// judge looks at a certificate by itself.
func (i *inspection) judge(s *subject) {
	if s.role == Workload {
		i.judgeWorkloadID(s)
		i.judgeWorkloadUsage(s)
		i.judgeLife(s)
	} else {
		i.judgeAuthorityName(s)
		i.judgeAuthorityUsage(s)
	}
	i.judgeKeyUsagePresence(s)
	i.judgeStrength(s)
	i.judgeTimes(s)
}

// judgeKeyUsagePresence: X-8.
func (i *inspection) judgeKeyUsagePresence(s *subject) {
	switch {
	case !present(s.cert, oidKeyUsage):
		i.problem("key-usage-missing", s, "has no key usage")
	case !critical(s.cert, oidKeyUsage):
		i.problem("key-usage-not-critical", s, "has a key usage that is not marked critical")
	}
}

// judgeStrength: C-8, R-8. What a root says of itself needs no signature.
func (i *inspection) judgeStrength(s *subject) {
	if err := trust.CheckPublicKey(s.cert.PublicKey); err != nil {
		i.problem("weak-key", s, "has a key that is not accepted: %v", err)
	}
	switch s.cert.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256, x509.ECDSAWithSHA1, x509.UnknownSignatureAlgorithm:
		if s.role != Root {
			i.problem("weak-signature", s, "is signed by %s, which is not accepted", s.cert.SignatureAlgorithm)
		}
	}
	for _, oid := range s.cert.UnhandledCriticalExtensions {
		i.problem("unknown-critical-extension", s, "has a critical extension that verifiers do not know: %s", oid)
	}
}

// judgeTimes forgives an old root that another has taken the place of.
func (i *inspection) judgeTimes(s *subject) {
	say := i.problem
	if s.role == Root && i.verified != nil && !slices.Contains(i.verified, s) {
		say = i.remark
	}
	switch {
	case i.now.After(s.cert.NotAfter):
		say("expired", s, "expired %s ago, at %s", Span(i.now.Sub(s.cert.NotAfter)), stamp(s.cert.NotAfter))
	case i.now.Before(s.cert.NotBefore):
		say("not-yet-valid", s, "is not valid yet: it begins in %s, at %s: is a clock wrong?",
			Span(s.cert.NotBefore.Sub(i.now)), stamp(s.cert.NotBefore))
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// label is how messages call another certificate.
func label(s *subject) string {
	return fmt.Sprintf("certificate %d (%s)", s.number, trust.Name(s.cert))
}
