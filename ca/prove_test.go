package ca_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
)

// edited changes a certificate before it is signed.
type edited = func(*x509.Certificate)

// uriConstraint permits only such hosts in URIs.
func uriConstraint(hosts ...string) edited {
	return func(c *x509.Certificate) { c.PermittedURIDomains, c.PermittedDNSDomainsCritical = hosts, true }
}

func usages(u ...x509.ExtKeyUsage) edited {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

var unknownCritical = pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}

func pathLenZero(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }

// TestNewProvesTheSigner: faults that no look at a single certificate shows
// stop the start, not the first workload.
func TestNewProvesTheSigner(t *testing.T) {
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for name, c := range map[string]struct {
		root, issuing edited
		good          bool
	}{
		"nothing special":                       {nil, nil, true},
		"path length 0 on the issuing CA (R-6)": {nil, pathLenZero, true},
		"path length 0 on the root above it":    {pathLenZero, nil, false},
		"our trust domain's bare host (R-7)":    {nil, uriConstraint("cluster.local"), true},
		"ours beside another (R-7)":             {nil, uriConstraint("example.org", "cluster.local"), true},
		"another trust domain (R-7)":            {nil, uriConstraint("other.org"), false},
		"sub-hosts of ours alone (R-7)":         {nil, uriConstraint(".cluster.local"), false},
		"ours excluded (R-7)": {nil, func(c *x509.Certificate) {
			c.ExcludedURIDomains, c.PermittedDNSDomainsCritical = []string{"cluster.local"}, true
		}, false},
		"another trust domain, in the root (R-7)":        {uriConstraint("other.org"), nil, false},
		"both extended key usages (X-11)":                {nil, usages(server, client), true},
		"any extended key usage (X-11)":                  {nil, usages(x509.ExtKeyUsageAny), true},
		"for code signing (X-11)":                        {nil, usages(x509.ExtKeyUsageCodeSigning), false},
		"for clients alone (X-10, X-11)":                 {nil, usages(client), false},
		"for servers alone (X-10, X-11)":                 {nil, usages(server), false},
		"an extension that no verifier knows (R-8)":      {nil, func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, unknownCritical) }, false},
		"DNS names of another domain, and we issue none": {nil, dnsConstraint("example.org"), true},
	} {
		t.Run(name, func(t *testing.T) {
			issuing := catest.Root(t, now, catest.Spec{Name: "root", Edit: c.root}).Intermediate(t, now, catest.Spec{Name: "issuing", Edit: c.issuing})
			_, err := ca.New(now, catest.Complete(t, now, ca.Config{Signer: issuing.Signer(t, now)}))
			if (err == nil) != c.good {
				t.Fatalf("error %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "what CN=issuing,O=Operator signs for trust domain cluster.local does not verify to its roots") {
				t.Errorf("error %q does not say whose fault it is", err)
			}
		})
	}
}

func dnsConstraint(domains ...string) edited {
	return func(c *x509.Certificate) { c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = domains, true }
}

// TestNewProvesTheDNSNames: a name that the operator's CA may not certify stops
// the start, and the error says whose it is.
func TestNewProvesTheDNSNames(t *testing.T) {
	many := ca.DNSNames{}
	for n := range 250 { // more than are proven at once
		many[account(t, "default", fmt.Sprintf("a%d", n))] = []string{fmt.Sprintf("a%d.example.org", n)}
	}
	odd := maps.Clone(many)
	odd[account(t, "default", "web")] = []string{"web.example.org", "web.other.org"}
	outside := func(c *x509.Certificate) {
		c.ExcludedDNSDomains, c.PermittedDNSDomainsCritical = []string{"other.org"}, true
	}
	for name, c := range map[string]struct {
		issuing edited
		names   ca.DNSNames
		text    string // of the error; empty: none
	}{
		"no constraint":           {nil, odd, ""},
		"all permitted":           {dnsConstraint("example.org"), many, ""},
		"all but one permitted":   {dnsConstraint("example.org"), odd, "the DNS names of spiffe://cluster.local/ns/default/sa/web cannot be certified: take them from it"},
		"one excluded":            {outside, odd, `"web.other.org"`},
		"none permitted":          {dnsConstraint("cluster.local"), ca.DNSNames{workload: workNames}, "the DNS names of " + workload.String()},
		"an identity of no names": {dnsConstraint("cluster.local"), ca.DNSNames{workload: nil}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			issuing := catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, catest.Spec{Name: "issuing", Edit: c.issuing})
			_, err := ca.New(now, catest.Complete(t, now, ca.Config{Signer: issuing.Signer(t, now), DNSNames: c.names}))
			if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %q", err, c.text)
			}
			if errors.Is(err, ca.ErrDNSNames) != (err != nil) {
				t.Errorf("error %v is not told from others", err)
			}
		})
	}
}

// TestNewKeepsItsOwnDNSNames: what a caller does to the map later is not policy.
func TestNewKeepsItsOwnDNSNames(t *testing.T) {
	names := ca.DNSNames{workload: {"sleep.default.svc"}}
	a := catest.Authority(t, now, ca.Config{DNSNames: names})
	names[workload][0] = "other.example.org"
	if err := names.AddCustom(catest.TrustDomain, "sleep.default:more.example.org"); err != nil {
		t.Fatal(err)
	}
	if leaf := issue(t, a, now, ca.Request{CSR: workloadCSR(t)}); !slices.Equal(leaf.DNSNames, []string{"sleep.default.svc"}) {
		t.Errorf("DNS names are %q", leaf.DNSNames)
	}
}

// TestProofIsNotAudited: it is no certificate of anybody's.
func TestProofIsNotAudited(t *testing.T) {
	_, log := namesSetup(t)
	checkStages(t, log)
}

func TestNewRefusesIncompleteConfig(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*ca.Config)
		text string
	}{
		"no trust domain":        {func(c *ca.Config) { c.TrustDomain = spiffeid.TrustDomain{} }, "trust domain is not set"},
		"no signer":              {func(c *ca.Config) { c.Signer = nil }, "signer is not set"},
		"no audit sink":          {func(c *ca.Config) { c.Audit = nil }, "audit sink is not set"},
		"no default TTL":         {func(c *ca.Config) { c.DefaultTTL = 0 }, "must be positive"},
		"a negative default TTL": {func(c *ca.Config) { c.DefaultTTL = -1 }, "must be positive"},
		"default above maximum":  {func(c *ca.Config) { c.MaxTTL = c.DefaultTTL - 1 }, "at most the maximum TTL 18h59m59.999999999s"},
		"no maximum TTL":         {func(c *ca.Config) { c.MaxTTL = 0 }, "at most the maximum TTL 0s"},
	} {
		cfg := catest.Complete(t, now, ca.Config{})
		c.edit(&cfg)
		if _, err := ca.New(now, cfg); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.text)
		}
	}
}

func TestNewRefusesASignerWithoutTimeLeft(t *testing.T) {
	s := catest.SelfSigned(t, now, catest.TrustDomain)
	for at, text := range map[time.Time]string{
		s.NotAfter().Add(-time.Minute): "too little to sign",
		s.NotAfter().Add(time.Minute):  "signing certificate has expired at 2036-07-11T12:34:56Z",
	} {
		_, err := ca.New(at, catest.Complete(t, now, ca.Config{Signer: s}))
		wantClass(t, err, ca.CertGenError, text)
	}
}

// TestAuthorityOfAnotherTrustDomainsRoot: X-4 is a SHOULD, and roots of
// operators bear what they like; only constraints bind.
func TestAuthorityOfAnotherTrustDomainsRoot(t *testing.T) {
	root := catest.Root(t, now, catest.Spec{Name: "root", Edit: func(c *x509.Certificate) {
		c.URIs = []*url.URL{spiffeid.RequireTrustDomainFromString("example.org").ID().URL()}
	}})
	issue(t, catest.Authority(t, now, ca.Config{Signer: root.Signer(t, now)}), now, ca.Request{CSR: workloadCSR(t)})
}

func TestAuthorityTellsWhatItIsMadeOf(t *testing.T) {
	s := catest.SelfSigned(t, now, catest.TrustDomain)
	a := catest.Authority(t, now, ca.Config{Signer: s, DNSNames: ca.DNSNames{workload: workNames}})
	if a.TrustDomain() != catest.TrustDomain || a.Signer() != s || len(a.DNSNames(workload)) != len(workNames) {
		t.Error("an authority's parts are not what it was given")
	}
	if names := a.DNSNames(spiffeid.RequireFromString("spiffe://cluster.local/x")); len(names) > 0 {
		t.Errorf("a stranger has DNS names %q", names)
	}
}
