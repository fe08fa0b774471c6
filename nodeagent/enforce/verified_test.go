package enforce

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"citadel/ca/catest"
)

// TestVerifier: who was verified stays so for as long as all of its chain is
// valid, and not a second longer; X509-SVID 5.
func TestVerifier(t *testing.T) {
	now := time.Now()
	ends := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = now.Add(d) }
	}
	root := catest.Root(t, now, catest.Spec{Name: "root", Edit: ends(3 * time.Hour)})
	between := root.Intermediate(t, now, catest.Spec{Name: "between", Edit: ends(time.Hour)})
	foreign := catest.Root(t, now, catest.Spec{Name: "another"})
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		at    time.Duration // of the second look, when there are no roots any more
		good  bool
	}{
		"at once":                      {root.Leaf(t, now, account("sleep")).Chain(), 0, true},
		"the leaf's last second":       {root.Leaf(t, now, account("sleep"), ends(time.Minute)).Chain(), time.Minute - time.Second, true},
		"the leaf is over":             {root.Leaf(t, now, account("sleep"), ends(time.Minute)).Chain(), time.Minute + time.Second, false},
		"the intermediate is over":     {between.Leaf(t, now, account("sleep"), ends(2*time.Hour)).Chain(), time.Hour + time.Second, false},
		"the root is over":             {root.Leaf(t, now, account("sleep"), ends(4*time.Hour)).Chain(), 3*time.Hour + time.Second, false},
		"the clock was set back":       {root.Leaf(t, now, account("sleep")).Chain(), -2 * time.Hour, false},
		"a leaf of somebody else":      {foreign.Leaf(t, now, account("sleep")).Chain(), 0, false},
		"an issuer is not shown":       {between.Leaf(t, now, account("sleep")).Chain()[:1], 0, false},
		"a leaf that nobody knows yet": {nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := &verifier{roots: x509bundle.FromX509Authorities(domain, []*x509.Certificate{root.Cert})}
			first := c.chain
			if first == nil {
				first, c.chain = root.Leaf(t, now, account("httpbin")).Chain(), root.Leaf(t, now, account("sleep")).Chain()
			}
			_, before := v.verify(first, now)
			v.roots = x509bundle.New(domain)
			id, err := v.verify(c.chain, now.Add(c.at))
			if (err == nil) != c.good {
				t.Errorf("first %v, then %v, which should be good: %t", before, err, c.good)
			}
			if c.good && id != account("sleep") {
				t.Errorf("it is %s", id)
			}
		})
	}
}

// TestVerifierForgets: what is remembered is bounded.
func TestVerifierForgets(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	v := &verifier{roots: x509bundle.FromX509Authorities(domain, []*x509.Certificate{r.root.Cert}), known: map[[32]byte]verified{}}
	for i := range mostVerified {
		v.known[[32]byte{byte(i), byte(i >> 8)}] = verified{}
	}
	leaf := r.root.Leaf(t, now, account("sleep")).Chain()
	if _, err := v.verify(leaf, now); err != nil {
		t.Fatal(err)
	}
	if _, has := v.known[fingerprint(leaf)]; !has || len(v.known) > mostVerified {
		t.Errorf("%d are known, and the last of them: %t", len(v.known), has)
	}
}
