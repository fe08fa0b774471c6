package inspect

import (
	"crypto/rsa"
	"crypto/x509"
	"strings"
	"time"

	"citadel/ca/trust"
)

// longestLife is the most that Citadel lets a workload certificate live unless
// it is told otherwise.
const longestLife = 168 * time.Hour

// judgeWorkloadID.
func (i *inspection) judgeWorkloadID(s *subject) {
	id, err := spiffeID(s.cert)
	switch n := len(s.cert.URIs); {
	case n == 0:
		i.problem("no-spiffe-id", s, "has no SPIFFE ID: there is no URI among its names")
	case n > 1:
		i.problem("several-uris", s, "has %d URIs, and a SPIFFE certificate has exactly one: %s", n, uris(s.cert))
	case err != nil:
		i.problem("bad-spiffe-id", s, "has a URI that is no SPIFFE ID: %s: %v", uris(s.cert), err)
	case id.Path() == "":
		i.problem("spiffe-id-without-path", s, "has a SPIFFE ID without a path, %s: that is a trust domain's, not a workload's", id)
	}
	if len(s.cert.Subject.Names) == 0 && present(s.cert, oidSubjectAltName) && !critical(s.cert, oidSubjectAltName) {
		i.problem("san-not-critical", s, "has an empty subject, and its subject alternative names are not marked critical: verifiers may refuse it")
	}
}

func uris(cert *x509.Certificate) string {
	var out []string
	for _, uri := range cert.URIs {
		out = append(out, uri.String())
	}
	return strings.Join(out, ", ")
}

// judgeWorkloadUsage.
func (i *inspection) judgeWorkloadUsage(s *subject) {
	if s.cert.IsCA {
		i.problem("workload-is-ca", s, "is a workload's and marked as a CA: its holder could sign certificates for others")
	}
	if signing := s.cert.KeyUsage & (x509.KeyUsageCertSign | x509.KeyUsageCRLSign); signing != 0 {
		i.problem("workload-signs", s, "is a workload's, and its key usage lets it sign certificates or CRLs: %s",
			strings.Join(keyUsages(&x509.Certificate{KeyUsage: signing}), ", "))
	}
	if present(s.cert, oidKeyUsage) && s.cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		i.problem("no-digital-signature", s, "has a key usage without digitalSignature: it cannot authenticate anybody")
	}
	if _, isRSA := s.cert.PublicKey.(*rsa.PublicKey); !isRSA && s.cert.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) != 0 {
		i.remark("encipherment-without-rsa", s, "has a key usage for encipherment or key agreement, which is for RSA keys")
	}
	i.judgeExtKeyUsage(s)
}

// judgeExtKeyUsage: X-10, by the rule that citadel's own Secrets are judged by.
func (i *inspection) judgeExtKeyUsage(s *subject) {
	usages := extKeyUsages(s.cert)
	switch {
	case len(usages) == 0:
		i.remark("ext-key-usage-missing", s, "has no extended key usage: it should have serverAuth and clientAuth")
	case !trust.ServesBothSides(s.cert):
		i.problem("ext-key-usage-incomplete", s, "has the extended key usage %s: it must have both serverAuth and clientAuth, or none",
			strings.Join(usages, ", "))
	}
}

// judgeLife looks at the life that was asked for, which the backdating is not a
// part of.
func (i *inspection) judgeLife(s *subject) {
	if life := s.cert.NotAfter.Sub(s.cert.NotBefore); life > longestLife+trust.Backdate {
		i.remark("long-life", s, "lives for %s, longer than the %s that Citadel allows by default", Span(life), Span(longestLife))
	}
}
