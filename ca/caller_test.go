package ca_test

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func TestCallerThatMayHaveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		caller ca.Caller
		class  ca.Class
		text   string
	}{
		"nobody":                        {ca.Caller{}, ca.Unauthenticated, "caller is not authenticated"},
		"nobody, with a method":         {ca.NewCaller(spiffeid.ID{}, "test", "x"), ca.Unauthenticated, "caller is not authenticated"},
		"of a foreign trust domain":     {foreign("spiffe://example.org/ns/default/sa/sleep"), ca.Denied, "is not of trust domain cluster.local"},
		"of a longer trust domain":      {foreign("spiffe://cluster.local.example.org/ns/default/sa/sleep"), ca.Denied, "is not of trust domain"},
		"of a shorter trust domain":     {foreign("spiffe://cluster.loca/ns/default/sa/sleep"), ca.Denied, "is not of trust domain"},
		"the trust domain itself, ID-7": {foreign("spiffe://cluster.local"), ca.Denied, "has no path"},
		"a foreign trust domain itself": {foreign("spiffe://example.org"), ca.Denied, "is not of trust domain"},
	} {
		t.Run(name, func(t *testing.T) {
			a, log := namesSetup(t)
			chain, err := a.Issue(now, c.caller, ca.Request{CSR: workloadCSR(t)})
			wantClass(t, err, c.class, c.text)
			if chain != nil {
				t.Error("a chain came with the error")
			}
			checkStages(t, log, ca.AuditRefused)
		})
	}
}

func foreign(id string) ca.Caller {
	return ca.NewCaller(spiffeid.RequireFromString(id), "test", "")
}

// TestIdentityIsTheCallersOwn: X-2, for callers of any path.
func TestIdentityIsTheCallersOwn(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{})
	for _, text := range []string{"spiffe://cluster.local/x", "spiffe://cluster.local/vm/a.b_c-D", workload.String()} {
		id := spiffeid.RequireFromString(text)
		chain, err := a.Issue(now, ca.NewCaller(id, "test", ""), ca.Request{CSR: workloadCSR(t)})
		if err != nil {
			t.Fatal(err)
		}
		if uris := chain[0].URIs; len(uris) != 1 || uris[0].String() != text {
			t.Errorf("URIs are %v, want %s", uris, text)
		}
	}
}

func TestCallerTellsItsID(t *testing.T) {
	if caller.ID() != workload || !(ca.Caller{}).ID().IsZero() {
		t.Error("a caller's ID is not its own")
	}
}

func TestNobodyGetsOthersDNSNames(t *testing.T) {
	a, _ := namesSetup(t)
	other := spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleepy")
	chain, err := a.Issue(now, ca.NewCaller(other, "test", ""), ca.Request{CSR: workloadCSR(t)})
	if err != nil || len(chain[0].DNSNames) > 0 {
		t.Errorf("error %v, or somebody else's DNS names", err)
	}
	_, err = a.Issue(now, ca.NewCaller(other, "test", ""),
		ca.Request{CSR: catest.CSR(t, catest.Key(t, trust.ECDSAP256, "workload"), dns(workNames[0]))})
	wantClass(t, err, ca.CSRError, "which "+other.String()+" may not have")
}

func TestNoAuthorityIsNotReady(t *testing.T) {
	var none *ca.Authority
	_, err := none.Issue(now, caller, ca.Request{CSR: workloadCSR(t)})
	wantClass(t, err, ca.CANotReady, "Istio CA is not ready")
}
