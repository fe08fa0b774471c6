package inspect

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// signed tells whether issuer's key signed cert. Whether it was allowed to is
// another question. A signature too weak to be checked counts by the names.
func signed(cert, issuer *x509.Certificate) bool {
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return false
	}
	err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
	if _, weak := errors.AsType[x509.InsecureAlgorithmError](err); weak {
		return true
	}
	return err == nil
}

func selfSigned(cert *x509.Certificate) bool { return signed(cert, cert) }

// judgeChain looks at how the certificates hang together.
func (i *inspection) judgeChain() {
	if len(i.chain) == 0 {
		return
	}
	first := i.first()
	path := i.follow(first)
	i.judgeOrder(first, path)
	if slices.Contains(i.anchors, first) {
		i.verified = []*subject{first} // a root verifies itself: that proves nothing
		return
	}
	i.report.Verification = &Verification{Roots: i.roots.From}
	if i.verified = i.verify(first, path); i.verified != nil {
		i.report.Verification.Verified, i.report.Verification.End = true, end(i.verified).UTC()
		path = i.verified
	}
	i.judgePath(path)
	if first.role == Workload {
		i.judgeTrustDomain(first, path)
	}
}

// first is the certificate that all is about: the first, unless that is a CA's
// and a workload's comes later.
func (i *inspection) first() *subject {
	if len(i.chain) == 0 {
		return i.subjects[0]
	}
	if i.chain[0].role != Workload {
		for _, s := range i.chain {
			if s.role == Workload {
				return s
			}
		}
	}
	return i.chain[0]
}

// follow goes from a certificate to its issuer and on, in the chain and then
// among the roots, by signatures alone.
func (i *inspection) follow(first *subject) []*subject {
	path := []*subject{first}
	for {
		last := path[len(path)-1]
		next := slices.IndexFunc(i.subjects, func(s *subject) bool { return !slices.Contains(path, s) && signed(last.cert, s.cert) })
		if selfSigned(last.cert) || next < 0 {
			return path
		}
		path = append(path, i.subjects[next])
	}
}

// judgeOrder: each certificate of the chain must be followed by its issuer, for
// many verifiers do not sort.
func (i *inspection) judgeOrder(first *subject, path []*subject) {
	var inChain []*subject
	for _, s := range path {
		if slices.Contains(i.chain, s) {
			inChain = append(inChain, s)
		}
	}
	var have []*subject
	for _, s := range i.chain {
		switch {
		case slices.Contains(inChain, s):
			have = append(have, s)
		case !slices.ContainsFunc(inChain, func(p *subject) bool { return signed(p.cert, s.cert) }):
			i.remark("stray", s, "signed none of the others: it does not belong to the chain of %s", label(first))
		}
	}
	if !slices.Equal(have, inChain) {
		i.problem("wrong-order", nil, "the certificates are in the wrong order: %s is right, for each must be followed by its issuer", numbers(inChain))
	}
}

func numbers(list []*subject) string {
	var out []string
	for _, s := range list {
		out = append(out, strconv.Itoa(s.number))
	}
	return strings.Join(out, ", ")
}

// verify returns the longest-lived path to a root, or nil.
func (i *inspection) verify(first *subject, path []*subject) []*subject {
	last := path[len(path)-1]
	if len(i.roots.Certs) == 0 {
		i.remark("not-verified", last, "there are no roots to verify it by: its issuer is %q; give the roots by --root-cert FILE", last.cert.Issuer.String())
		return nil
	}
	if i.ownRoots {
		i.remark("own-root", i.anchors[0], "was taken for the root, because it signed itself: give the roots by --root-cert FILE to be sure")
	}
	options := x509.VerifyOptions{
		Roots: trust.Pool(i.roots.Certs), Intermediates: trust.Pool(certsOf(i.chain)), CurrentTime: i.now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	paths, err := first.cert.Verify(options)
	if err == nil {
		return i.longest(paths)
	}
	if expired(err) { // the certificates at fault have been named: is there more?
		options.CurrentTime = first.cert.NotBefore
		if _, err = first.cert.Verify(options); err == nil || expired(err) {
			return nil
		}
	}
	i.explain(first, last, err)
	return nil
}

// explain says why there is no path to a root.
func (i *inspection) explain(first, last *subject, err error) {
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown || slices.Contains(i.anchors, last) {
		i.problem("not-trusted", first, "does not verify to the roots of %s: %v", i.roots.From, err)
		return
	}
	if selfSigned(last.cert) {
		i.problem("not-trusted", last, "is the end of the chain, and is not among the roots of %s", i.roots.From)
		return
	}
	issuer := last.cert.Issuer.String()
	for _, root := range i.anchors {
		if bytes.Equal(root.cert.RawSubject, last.cert.RawIssuer) {
			i.problem("not-trusted", last, "is not signed by the root of its issuer's name, certificate %d: another key signed it in the name %q", root.number, issuer)
			return
		}
	}
	i.problem("not-trusted", last, "was issued by %q, which is neither in the chain nor among the roots of %s", issuer, i.roots.From)
}

func expired(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

func (i *inspection) longest(paths [][]*x509.Certificate) []*subject {
	var best []*subject
	for _, path := range paths {
		var p []*subject
		for _, cert := range path {
			p = append(p, i.find(cert))
		}
		if best == nil || end(p).After(end(best)) {
			best = p
		}
	}
	return best
}

// judgePath: between each certificate and its issuer.
func (i *inspection) judgePath(path []*subject) {
	for n, s := range path[:len(path)-1] {
		issuer := path[n+1]
		if s.cert.NotAfter.After(issuer.cert.NotAfter) {
			i.problem("outlives-issuer", s, "outlives its issuer, %s, by %s: it is worthless from %s on",
				label(issuer), Span(s.cert.NotAfter.Sub(issuer.cert.NotAfter)), stamp(issuer.cert.NotAfter))
		}
		if s.cert.NotBefore.Before(issuer.cert.NotBefore) {
			i.remark("older-than-issuer", s, "begins before its issuer, %s", label(issuer))
		}
		i.judgeKeyIDs(s, issuer)
	}
}

// judgeKeyIDs matters because OpenSSL refuses what crypto/x509 overlooks.
func (i *inspection) judgeKeyIDs(s, issuer *subject) {
	names, named := s.cert.AuthorityKeyId, issuer.cert.SubjectKeyId
	switch {
	case len(names) == 0:
		i.remark("no-authority-key-id", s, "does not say which key signed it (authority key identifier)")
	case len(named) > 0 && !bytes.Equal(names, named):
		i.problem("authority-key-id-mismatch", s, "says that key %x signed it, and its issuer, %s, calls its key %x: OpenSSL refuses it", names, label(issuer), named)
	}
}

// judgeTrustDomain: a root speaks for its own trust domain only.
// Where no root was reached, any of them might have been meant.
func (i *inspection) judgeTrustDomain(first *subject, path []*subject) {
	id, err := spiffeID(first.cert)
	if err != nil {
		return
	}
	if !slices.ContainsFunc(path, func(s *subject) bool { return slices.Contains(i.anchors, s) }) {
		i.judgeRootsDomain(first, id.TrustDomain())
	}
	for _, s := range path[1:] {
		if td, ok := TrustDomain(s.cert); ok && td != id.TrustDomain() {
			i.problem("trust-domain-mismatch", first, "is of trust domain %s, and its issuer, %s, is for %s", id.TrustDomain(), label(s), td)
			return
		}
	}
}

func (i *inspection) judgeRootsDomain(first *subject, td spiffeid.TrustDomain) {
	var others []string
	for _, s := range i.anchors {
		other, ok := TrustDomain(s.cert)
		if !ok || other == td {
			return
		}
		others = append(others, other.Name())
	}
	if len(others) > 0 {
		i.problem("trust-domain-mismatch", first, "is of trust domain %s, and the roots of %s are for %s", td, i.roots.From, strings.Join(slices.Compact(others), ", "))
	}
}

// end is when the first certificate of a path expires.
func end(path []*subject) time.Time {
	first := path[0].cert.NotAfter
	for _, s := range path[1:] {
		if s.cert.NotAfter.Before(first) {
			first = s.cert.NotAfter
		}
	}
	return first
}
