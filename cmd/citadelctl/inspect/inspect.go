package inspect

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"citadel/ca/trust"
)

// Roots are certificates to verify by, and where they came from. The zero value
// has none.
type Roots struct {
	From  string
	Certs []*x509.Certificate
}

// subject is a certificate under inspection.
type subject struct {
	cert   *x509.Certificate
	number int
	from   string
	role   Role
}

// inspection is one run of Inspect.
type inspection struct {
	now      time.Time
	material Material
	chain    []*subject // as it was given
	anchors  []*subject // the certificates of roots; may also be in chain
	roots    Roots
	ownRoots bool       // whether the roots are of the chain itself, for want of others
	subjects []*subject // all, by number
	verified []*subject // the path to a root, if there is one
	report   Report
}

// Inspect reports on the material at now. Given roots are what it is verified
// by; without them, those that came with it.
func Inspect(now time.Time, m Material, given Roots) Report {
	i := &inspection{now: now, material: m, roots: given}
	i.report = Report{Source: m.Source, Problems: slices.Clone(m.Problems), Remarks: slices.Clone(m.Remarks)}
	i.collect(given)
	i.judgeChain()
	for _, s := range i.subjects {
		i.report.Certificates = append(i.report.Certificates, describe(s))
		i.judge(s)
	}
	i.judgeKey()
	i.judgeSigner()
	i.report.Right = len(i.report.Problems) == 0
	i.report.Problems, i.report.Remarks = inOrder(i.report.Problems), inOrder(i.report.Remarks)
	return i.report
}

// inOrder sorts findings by certificate. An empty list is not nil, for it must
// show as one.
func inOrder(list []Finding) []Finding {
	list = append([]Finding{}, list...)
	slices.SortStableFunc(list, func(a, b Finding) int { return cmp.Compare(a.Certificate, b.Certificate) })
	return list
}

func (i *inspection) problem(code string, s *subject, format string, args ...any) {
	i.report.Problems = append(i.report.Problems, finding(code, s, format, args))
}

func (i *inspection) remark(code string, s *subject, format string, args ...any) {
	i.report.Remarks = append(i.report.Remarks, finding(code, s, format, args))
}

func finding(code string, s *subject, format string, args []any) Finding {
	f := Finding{Code: code, Message: fmt.Sprintf(format, args...)}
	if s != nil {
		f.Certificate = s.number
	}
	return f
}

// collect numbers the certificates, each once, and gives them their roles.
func (i *inspection) collect(given Roots) {
	for n, piece := range i.material.Chain {
		if old := i.find(piece.Cert); old != nil {
			i.remark("repeated", old, "is there more than once")
			continue
		}
		s := i.add(piece.Cert, piece.From)
		s.role = i.roleInChain(n)
		i.chain = append(i.chain, s)
	}
	bundle := i.addRoots(i.material.Bundle)
	switch {
	case len(given.Certs) > 0:
		i.anchors = i.addRoots(located(given.Certs, given.From))
		if len(bundle) > 0 && !sameSubjects(bundle, i.anchors) {
			i.remark("other-roots", nil, "the roots that came with it are not those of %s", given.From)
		}
	case len(bundle) > 0:
		i.anchors, i.roots = bundle, Roots{From: bundle[0].from, Certs: certsOf(bundle)}
	default:
		i.takeOwnRoots()
	}
}

// takeOwnRoots takes the self-signed certificates at hand, for want of others.
func (i *inspection) takeOwnRoots() {
	for _, s := range i.chain {
		if s.role == Root {
			i.anchors = append(i.anchors, s)
		}
	}
	if len(i.anchors) > 0 {
		i.ownRoots, i.roots = true, Roots{From: i.anchors[0].from, Certs: certsOf(i.anchors)}
	}
}

func (i *inspection) addRoots(pieces []Piece) []*subject {
	var out []*subject
	for _, piece := range pieces {
		s := i.find(piece.Cert)
		if s == nil {
			s = i.add(piece.Cert, piece.From)
		}
		s.role = Root
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func (i *inspection) find(cert *x509.Certificate) *subject {
	for _, s := range i.subjects {
		if s.cert.Equal(cert) {
			return s
		}
	}
	return nil
}

func (i *inspection) add(cert *x509.Certificate, from string) *subject {
	s := &subject{cert: cert, from: from, number: len(i.subjects) + 1}
	i.subjects = append(i.subjects, s)
	return s
}

// roleInChain goes by what the first certificate must be where the material
// says so, by content where it does not, and for the others also by whether
// they signed one before them: an issuer that lacks a CA's marks is still one.
func (i *inspection) roleInChain(n int) Role {
	cert := i.material.Chain[n].Cert
	switch {
	case n == 0 && i.material.Expect != "":
		return i.material.Expect
	case cert.IsCA && selfSigned(cert):
		return Root
	case cert.IsCA && !hasWorkloadID(cert):
		return Issuer
	case n > 0 && slices.ContainsFunc(i.material.Chain[:n], func(p Piece) bool { return signed(p.Cert, cert) }):
		return Issuer
	}
	return Workload
}

func (i *inspection) judgeKey() {
	if i.material.Key == nil {
		return
	}
	public := i.material.Key.Public()
	first := i.first()
	key := &Key{From: i.material.KeyFrom, KeyType: KeyType(public), Matches: trust.SamePublicKey(first.cert.PublicKey, public)}
	i.report.Key = key
	if key.Matches {
		return
	}
	for _, s := range i.subjects {
		if trust.SamePublicKey(s.cert.PublicKey, public) {
			i.problem("key-mismatch", first, "the private key in %s is not its key, but that of certificate %d", key.From, s.number)
			return
		}
	}
	i.problem("key-mismatch", first, "the private key in %s is not its key", key.From)
}

// judgeSigner asks the engine that citadel itself starts by.
func (i *inspection) judgeSigner() {
	if i.material.Signer == nil {
		return
	}
	if _, err := trust.NewSigner(i.now, *i.material.Signer); err != nil {
		i.problem("cannot-sign", nil, "citadel cannot sign with this: %v", err)
	}
}

func certsOf(subjects []*subject) []*x509.Certificate {
	var out []*x509.Certificate
	for _, s := range subjects {
		out = append(out, s.cert)
	}
	return out
}

func sameSubjects(a, b []*subject) bool { return trust.SameRoots(certsOf(a), certsOf(b)) }
