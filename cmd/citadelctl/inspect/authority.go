package inspect

import (
	"crypto/x509"
	"strings"
)

// judgeAuthorityName.
func (i *inspection) judgeAuthorityName(s *subject) {
	if len(s.cert.Subject.Names) == 0 {
		i.problem("ca-without-subject", s, "is a CA's with an empty subject: what it signs cannot name its issuer")
	}
	if id, err := spiffeID(s.cert); err == nil && id.Path() != "" {
		i.problem("ca-with-path", s, "is a CA's, and its SPIFFE ID has a path, %s: that is a workload's", id)
	}
	if len(s.cert.URIs) > 1 {
		i.problem("several-uris", s, "has %d URIs, and a SPIFFE certificate has exactly one: %s", len(s.cert.URIs), uris(s.cert))
	}
}

// judgeAuthorityUsage.
func (i *inspection) judgeAuthorityUsage(s *subject) {
	switch {
	case !s.cert.IsCA:
		i.problem("not-a-ca", s, "stands where a CA's belongs, and is not marked as one (basic constraints cA)")
	case !critical(s.cert, oidBasicConstraints):
		i.problem("basic-constraints-not-critical", s, "has basic constraints that are not marked critical")
	}
	if present(s.cert, oidKeyUsage) && s.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		i.problem("ca-cannot-sign", s, "is a CA's, and its key usage lacks keyCertSign")
	}
	if usages := extKeyUsages(s.cert); len(usages) > 0 {
		i.remark("ca-ext-key-usage", s, "is a CA's with an extended key usage (%s), which some verifiers apply to everything below it", strings.Join(usages, ", "))
	}
	if s.cert.IsCA && len(s.cert.SubjectKeyId) == 0 {
		i.remark("no-subject-key-id", s, "is a CA's without a subject key identifier")
	}
}
