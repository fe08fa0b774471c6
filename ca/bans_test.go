package ca_test

import (
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func TestBans(t *testing.T) {
	holder := func(serial int64) ca.Caller { return caller.WithCertificate(big.NewInt(serial)) }
	for name, c := range map[string]struct {
		whom   string
		caller ca.Caller
		banned bool
	}{
		"identity":                  {workload.String(), caller, true},
		"identity, by certificate":  {workload.String(), holder(1), true},
		"another identity":          {workload.String() + "x", caller, false},
		"the beginning of identity": {strings.TrimSuffix(workload.String(), "p"), caller, false},
		"serial":                    {"0f00", holder(0xf00), true},
		"serial with colons":        {"0F:00", holder(0xf00), true},
		"another serial":            {"0f00", holder(0xf01), false},
		"serial of nobody":          {"0f00", caller, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, log := namesSetup(t)
			bans, err := ca.NewBans(map[string]string{c.whom: "stolen"})
			if err != nil {
				t.Fatal(err)
			}
			a.SetBans(bans)
			_, err = a.Issue(now, c.caller, ca.Request{CSR: workloadCSR(t)})
			if !c.banned {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantClass(t, err, ca.Denied, "is banned (stolen)")
			checkStages(t, log, ca.AuditRefused)
			a.SetBans(ca.Bans{})
			if _, err := a.Issue(now, c.caller, ca.Request{CSR: workloadCSR(t)}); err != nil {
				t.Errorf("after the ban: %v", err)
			}
		})
	}
}

// TestBansGrowOld: when the list has not been read for too long, nobody knows
// who was banned since, and nobody is issued anything. The CSR API's own
// certificate is for nobody whom a ban could be of.
func TestBansGrowOld(t *testing.T) {
	a, log := namesSetup(t)
	for name, c := range map[string]struct {
		until time.Time
		old   bool
	}{"for ever": {}, "in their time": {until: now.Add(time.Second)}, "at their end": {now, true}, "after it": {now.Add(-time.Hour), true}} {
		a.SetBans(ca.Bans{Until: c.until})
		before := len(log.Records())
		chain, err := a.Issue(now, caller, ca.Request{CSR: workloadCSR(t)})
		if !c.old {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ca.ErrBansUnknown) || chain != nil {
			t.Errorf("%s: %v, %v", name, chain, err)
		}
		wantClass(t, err, ca.CANotReady, "Istio CA is not ready")
		if told := log.Records()[before:]; len(told) != 1 || told[0].Stage != ca.AuditRefused {
			t.Errorf("%s: audit records %v", name, told)
		}
		if _, err := a.IssueServer(now, caller, catest.Key(t, trust.ECDSAP256, "server"), nil, nil); err != nil {
			t.Errorf("%s: the server's own: %v", name, err)
		}
	}
}

// TestCheckSaysWhatIssueWould: to the letter, without a signature, and with the
// same audit record.
func TestCheckSaysWhatIssueWould(t *testing.T) {
	bans, err := ca.NewBans(map[string]string{workload.String(): "stolen"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bans   ca.Bans
		caller ca.Caller
		ttl    time.Duration
		csr    []byte
		want   string
	}{
		"nothing is wrong": {caller: caller, csr: workloadCSR(t)},
		"banned":           {bans: bans, caller: caller, csr: workloadCSR(t), want: "is banned (stolen)"},
		"old bans":         {bans: ca.Bans{Until: now}, caller: caller, csr: workloadCSR(t), want: "Istio CA is not ready"},
		"too long a life":  {caller: caller, ttl: maxTTL + 1, csr: workloadCSR(t), want: "TTL"},
		"no request":       {caller: caller, want: "is neither PEM nor DER"},
		"nobody":           {csr: workloadCSR(t), want: "caller is not authenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			a, log := namesSetup(t)
			a.SetBans(c.bans)
			req := ca.Request{CSR: c.csr, TTL: c.ttl}
			checked := a.Check(now, c.caller, req)
			if c.want == "" {
				if checked != nil || len(log.Records()) != 0 {
					t.Errorf("%v, %v", checked, log.Records())
				}
				return
			}
			_, issued := a.Issue(now, c.caller, req)
			if checked == nil || issued == nil || checked.Error() != issued.Error() || !strings.Contains(checked.Error(), c.want) {
				t.Errorf("checked: %v\nissued: %v", checked, issued)
			}
			checkStages(t, log, ca.AuditRefused, ca.AuditRefused)
		})
	}
}

func TestBansThatNameNobody(t *testing.T) {
	for _, whom := range []string{"", "default/sleep", "0", "-1", "xyz", "SPIFFE://cluster.local/x y"} {
		if _, err := ca.NewBans(map[string]string{whom: ""}); err == nil || !strings.Contains(err.Error(), "neither a SPIFFE ID") {
			t.Errorf("%q: %v", whom, err)
		}
	}
}

func TestServerCertificateHasTheNamesThatAreDialled(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{})
	key := catest.Key(t, trust.ECDSAP256, "server")
	names := []string{"istio-citadel", "istio-citadel.istio-system.svc"}
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
	chain, err := a.IssueServer(now, caller, key, names, addresses)
	if err != nil {
		t.Fatal(err)
	}
	leaf := chain[0]
	if !slices.Equal(leaf.DNSNames, names) || len(leaf.URIs) != 1 || leaf.URIs[0].String() != workload.String() {
		t.Errorf("names %v, %v", leaf.DNSNames, leaf.URIs)
	}
	for _, host := range []string{"istio-citadel", "192.0.2.1", "192.0.2.2", "2001:db8::1"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if _, err := a.IssueServer(now, ca.NewCaller(spiffeid.ID{}, "", ""), key, names, nil); err == nil {
		t.Error("nobody got a server's certificate")
	}
}
