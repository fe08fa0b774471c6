package inspect

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

var (
	now   = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	sleep = spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")
)

// pki is a root, an issuer below it, and a workload below that.
type pki struct{ root, issuer, leaf *catest.Issuer }

func newPKI(t *testing.T) pki {
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	issuer := root.Intermediate(t, now, catest.Spec{Name: "issuer"})
	return pki{root, issuer, issuer.Leaf(t, now, sleep)}
}

func chainOf(issuers ...*catest.Issuer) Material {
	m := Material{Source: "chain.pem"}
	for _, i := range issuers {
		m.Chain = append(m.Chain, Piece{i.Cert, "chain.pem"})
	}
	return m
}

func rootsOf(issuers ...*catest.Issuer) Roots {
	r := Roots{From: "root.pem"}
	for _, i := range issuers {
		r.Certs = append(r.Certs, i.Cert)
	}
	return r
}

func codes(findings []Finding) []string {
	out := []string{}
	for _, f := range findings {
		out = append(out, f.Code)
	}
	slices.Sort(out)
	return out
}

// expect compares the codes of all findings.
func expect(t *testing.T, r Report, problems, remarks string) {
	t.Helper()
	if got := strings.Join(codes(r.Problems), " "); got != problems {
		t.Errorf("problems are %q, want %q\n%+v", got, problems, r.Problems)
	}
	if got := strings.Join(codes(r.Remarks), " "); got != remarks {
		t.Errorf("remarks are %q, want %q\n%+v", got, remarks, r.Remarks)
	}
	if r.Right != (problems == "") {
		t.Errorf("Right is %v with problems %q", r.Right, problems)
	}
}

func TestGoodChain(t *testing.T) {
	p := newPKI(t)
	m := chainOf(p.leaf, p.issuer)
	m.Key, m.KeyFrom = p.leaf.Key, "key.pem"
	r := Inspect(now, m, rootsOf(p.root))
	expect(t, r, "", "")
	var roles []string
	for n, c := range r.Certificates {
		if c.Number != n+1 {
			t.Errorf("certificate %d is numbered %d", n+1, c.Number)
		}
		roles = append(roles, string(c.Role))
	}
	if got := strings.Join(roles, " "); got != "workload issuer root" {
		t.Errorf("roles are %q", got)
	}
	if c := r.Certificates[0]; c.SPIFFEID != sleep.String() || c.CA || c.KeyType != "ECDSA P-256" ||
		strings.Join(c.KeyUsages, " ") != "digitalSignature" || !c.KeyUsageCritical || strings.Join(c.ExtKeyUsages, " ") != "serverAuth clientAuth" {
		t.Errorf("workload's certificate is described as %+v", c)
	}
	if v := r.Verification; !v.Verified || v.Roots != "root.pem" || !v.End.Equal(p.leaf.Cert.NotAfter) {
		t.Errorf("verification is %+v", v)
	}
	if !r.Key.Matches || r.Key.KeyType != "ECDSA P-256" {
		t.Errorf("key is %+v", r.Key)
	}
}

func TestFindingsNameTheirCertificate(t *testing.T) {
	p := newPKI(t)
	r := Inspect(now.Add(2*time.Hour), chainOf(p.leaf, p.issuer), rootsOf(p.root))
	if len(r.Problems) != 1 || r.Problems[0].Certificate != 1 || r.Problems[0].Message != "expired 1h ago, at 2026-06-01T13:00:00Z" {
		t.Errorf("problems are %+v", r.Problems)
	}
}

// TestChain is about how certificates hang together.
func TestChain(t *testing.T) {
	p := newPKI(t)
	otherRoot := catest.Root(t, now, catest.Spec{Name: "other root"})
	// A root that bears the name of ours and has another key.
	impostor := catest.Root(t, now, catest.Spec{Name: "root", KeyType: trust.ECDSAP384})
	oldRoot := catest.Root(t, now.AddDate(-11, 0, 0), catest.Spec{Name: "old root"})
	across := otherRoot.Intermediate(t, now, catest.Spec{Name: "root"}) // ours, signed by its predecessor
	nobody := p.issuer.Leaf(t, now, spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/nobody"))
	for name, c := range map[string]struct {
		material          Material
		roots             Roots
		problems, remarks string
	}{
		"no roots":                  {chainOf(p.leaf, p.issuer), Roots{}, "", "not-verified"},
		"the root in the file":      {chainOf(p.leaf, p.issuer, p.root), Roots{}, "", "own-root"},
		"the root in the file too":  {chainOf(p.leaf, p.issuer, p.root), rootsOf(p.root), "", ""},
		"issuers swapped":           {chainOf(p.leaf, p.root, p.issuer), rootsOf(p.root), "wrong-order", ""},
		"issuer first":              {chainOf(p.issuer, p.leaf), rootsOf(p.root), "wrong-order", ""},
		"upside down":               {chainOf(p.root, p.issuer, p.leaf), rootsOf(p.root), "wrong-order", ""},
		"issuer missing":            {chainOf(p.leaf), rootsOf(p.root), "not-trusted", ""},
		"other root":                {chainOf(p.leaf, p.issuer), rootsOf(otherRoot), "not-trusted", ""},
		"other root, ours in file":  {chainOf(p.leaf, p.issuer, p.root), rootsOf(otherRoot), "not-trusted", ""},
		"root of the same name":     {chainOf(p.leaf, p.issuer), rootsOf(impostor), "not-trusted", ""},
		"an expired root beside it": {chainOf(p.leaf, p.issuer), rootsOf(oldRoot, p.root), "", "expired"},
		"one too many":              {chainOf(p.leaf, p.issuer, otherRoot), rootsOf(p.root), "", "stray"},
		"two workloads":             {chainOf(p.leaf, nobody, p.issuer), rootsOf(p.root), "", "stray"},
		"twice the same":            {chainOf(p.leaf, p.leaf, p.issuer), rootsOf(p.root), "", "repeated"},
		"a root signed across":      {chainOf(p.leaf, p.issuer, across), rootsOf(p.root), "", ""},
		"the same, by the old root": {chainOf(p.leaf, p.issuer, across), rootsOf(otherRoot), "", ""},
		"a signing certificate":     {chainOf(p.issuer), rootsOf(p.root), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, Inspect(now, c.material, c.roots), c.problems, c.remarks)
		})
	}
}

func TestRootsAlone(t *testing.T) {
	p := newPKI(t)
	m := Material{Source: "root.pem", Bundle: chainOf(p.root).Chain}
	r := Inspect(now, m, Roots{})
	expect(t, r, "", "")
	if r.Verification != nil || len(r.Certificates) != 1 || r.Certificates[0].Role != Root {
		t.Errorf("a root is reported as %+v", r)
	}
	expect(t, Inspect(now.AddDate(20, 0, 0), m, Roots{}), "expired", "")
}

func TestOldRootsOfSecret(t *testing.T) {
	p := newPKI(t)
	m := chainOf(p.leaf, p.issuer)
	m.Bundle = chainOf(p.root).Chain
	expect(t, Inspect(now, m, Roots{}), "", "")
	expect(t, Inspect(now, m, rootsOf(p.root)), "", "")
	newer := catest.Root(t, now, catest.Spec{Name: "newer root"})
	expect(t, Inspect(now, m, rootsOf(newer)), "not-trusted", "other-roots")
	expect(t, Inspect(now, m, rootsOf(p.root, newer)), "", "other-roots")
}

func TestKey(t *testing.T) {
	p := newPKI(t)
	for name, c := range map[string]struct {
		of   *catest.Issuer
		want string
	}{
		"its own":      {p.leaf, ""},
		"the issuer's": {p.issuer, "the private key in key.pem is not its key, but that of certificate 2"},
		"another's":    {p.issuer.Leaf(t, now, spiffeid.RequireFromString("spiffe://cluster.local/x")), "the private key in key.pem is not its key"},
	} {
		t.Run(name, func(t *testing.T) {
			m := chainOf(p.leaf, p.issuer)
			m.Key, m.KeyFrom = c.of.Key, "key.pem"
			r := Inspect(now, m, rootsOf(p.root))
			if r.Key.Matches != (c.want == "") {
				t.Errorf("key is %+v", r.Key)
			}
			if c.want != "" && (len(r.Problems) != 1 || r.Problems[0].Message != c.want || r.Problems[0].Certificate != 1) {
				t.Errorf("problems are %+v, want %q", r.Problems, c.want)
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                             "0s",
		95 * time.Second:              "95s",
		2 * time.Minute:               "2m",
		59*time.Minute + time.Second:  "59m",
		5*time.Hour + 3*time.Minute:   "5h3m",
		19 * time.Hour:                "19h",
		2*day + 4*time.Hour:           "2d4h",
		7 * day:                       "7d",
		300*day + time.Hour:           "300d",
		10*year - time.Minute:         "9y364d",
		10 * year:                     "10y",
		48*time.Hour - time.Second:    "47h59m",
		8*day - time.Hour:             "7d23h",
		2*year - time.Nanosecond:      "729d",
		time.Hour - time.Nanosecond:   "59m",
		time.Hour + 59*time.Second:    "1h",
		2*time.Minute - 1*time.Second: "119s",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%s) is %q, want %q", d, got, want)
		}
	}
}
