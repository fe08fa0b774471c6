package ca_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func account(t *testing.T, namespace, name string) spiffeid.ID {
	t.Helper()
	id, err := ca.ServiceAccountID(catest.TrustDomain, namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestWebhooksGetTheNamesOfTheirServices: these and no others, in the storage
// namespace alone.
func TestWebhooksGetTheNamesOfTheirServices(t *testing.T) {
	d := ca.DNSNames{}
	if err := d.AddWebhooks(catest.TrustDomain, "istio-system"); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"istio-sidecar-injector-service-account": {"istio-sidecar-injector.istio-system.svc", "istio-sidecar-injector.istio-system"},
		"istio-galley-service-account":           {"istio-galley.istio-system.svc", "istio-galley.istio-system"},
	}
	if len(d) != len(want) {
		t.Errorf("%d identities have names, want %d", len(d), len(want))
	}
	for name, names := range want {
		if got := d[account(t, "istio-system", name)]; !slices.Equal(got, names) {
			t.Errorf("%s has %q, want %q", name, got, names)
		}
		if got := d[account(t, "default", name)]; len(got) > 0 {
			t.Errorf("%s of another namespace has %q", name, got)
		}
	}
}

func TestWebhooksOfAnImpossibleNamespace(t *testing.T) {
	for _, namespace := range []string{"", "..", "a/b", "a b"} {
		d := ca.DNSNames{}
		if err := d.AddWebhooks(catest.TrustDomain, namespace); err == nil || len(d) > 0 {
			t.Errorf("%q: error %v, %d identities", namespace, err, len(d))
		}
	}
}

func TestCustomDNSNames(t *testing.T) {
	for name, c := range map[string]struct {
		list string
		want map[string][]string // "namespace name" to names
	}{
		"nothing":                       {"", nil},
		"commas and blanks":             {" , ,", nil},
		"one":                           {"sleep.default:sleep.example.org", map[string][]string{"default sleep": {"sleep.example.org"}}},
		"dots in the service account":   {"my.old.sleep.default:a.example.org", map[string][]string{"default my.old.sleep": {"a.example.org"}}},
		"two of one identity, in order": {"s.d:b.example.org,s.d:a.example.org", map[string][]string{"d s": {"b.example.org", "a.example.org"}}},
		"the same twice":                {"s.d:a.example.org,s.d:a.example.org", map[string][]string{"d s": {"a.example.org"}}},
		"several, with blanks":          {" s.d:a.example.org ,\n t.e:b ", map[string][]string{"d s": {"a.example.org"}, "e t": {"b"}}},
		"a wildcard":                    {"s.d:*.example.org", map[string][]string{"d s": {"*.example.org"}}},
		"same name in two namespaces":   {"s.d:a,s.e:b", map[string][]string{"d s": {"a"}, "e s": {"b"}}}, // 0.8 mixed them up
	} {
		t.Run(name, func(t *testing.T) {
			d := ca.DNSNames{}
			if err := d.AddCustom(catest.TrustDomain, c.list); err != nil {
				t.Fatal(err)
			}
			if len(d) != len(c.want) {
				t.Errorf("%d identities, want %d", len(d), len(c.want))
			}
			for who, names := range c.want {
				namespace, name, _ := strings.Cut(who, " ")
				if got := d[account(t, namespace, name)]; !slices.Equal(got, names) {
					t.Errorf("%s has %q, want %q", who, got, names)
				}
			}
		})
	}
}

// TestFaultyCustomDNSNames: metacharacters of regular expressions are of no use
// here (section 9, point 9).
func TestFaultyCustomDNSNames(t *testing.T) {
	for _, entry := range []string{
		"sleep", "sleep.default", ":", ".:a", ".default:a", "sleep.:a", "sleep:a", "a.b:", "a.b:c:d", "a.b :c", "a.b: c",
		"s.d:*", "s.d:*.org", "s.d:*.*.example.org", "s.d:a.*.example.org", "s.d:a*.example.org", "s.d:**.example.org",
		"s.d:A.example.org", "s.d:a_b.example.org", "s.d:-a.example.org", "s.d:a-.example.org", "s.d:a..example.org",
		"s.d:.example.org", "s.d:example.org.", "s.d:a b", "s.d:a/b", "s.d:a%2e", "s.d:é.example.org", "s.d:10.0.0.1",
		"s.d:[a-z]", "s.d:.*", "s.d:a|b", "s.d:^a$", "s.d:a+", "s.d:(a)", "s.d:a.b\nc", "s.d:" + strings.Repeat("a", 64),
		"s.d:" + strings.Repeat("abc.", 64) + "org", ".*.d:a", "s.*:a", "[a-z].d:a", "S.d:a", "s.D:a", "a/b.d:c",
		"s..d:a", "-s.d:a", "s.d_e:a", "s." + strings.Repeat("d", 64) + ":a", "spiffe://cluster.local/ns/d/sa/s:a",
	} {
		d := ca.DNSNames{}
		if err := d.AddCustom(catest.TrustDomain, entry); err == nil || len(d) > 0 {
			t.Errorf("%q: error %v, identities %v", entry, err, d)
		}
	}
}

func TestEveryFaultyEntryIsReported(t *testing.T) {
	d := ca.DNSNames{}
	err := d.AddCustom(catest.TrustDomain, "bad,s.d:*,s.d:good.example.org,t.d:UP")
	if err == nil {
		t.Fatal("no error")
	}
	for _, entry := range []string{`"bad"`, `"s.d:*"`, `"t.d:UP"`} {
		if !strings.Contains(err.Error(), "entry "+entry) {
			t.Errorf("error %q does not name %s", err, entry)
		}
	}
	if strings.Contains(err.Error(), "good.example.org") {
		t.Errorf("error %q names a good entry", err)
	}
}

// TestNamesDoNotMatchLikePatterns: each name stands for itself (section 9,
// point 9; C-6).
func TestNamesDoNotMatchLikePatterns(t *testing.T) {
	d := ca.DNSNames{}
	if err := d.AddCustom(catest.TrustDomain, "a.b.default:a.b.example.org"); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"axb", "a", "b", "a.bc", "xa.b"} {
		if got := d[account(t, "default", other)]; len(got) > 0 {
			t.Errorf("%s has %q", other, got)
		}
	}
	a := catest.Authority(t, now, ca.Config{DNSNames: d})
	key := catest.Key(t, trust.ECDSAP256, "workload")
	for _, asked := range []string{"axb.example.org", "a.b.example.orgx", "xa.b.example.org", "a.b.exampleXorg"} {
		_, err := a.Issue(now, ca.NewCaller(account(t, "default", "a.b"), "test", ""), ca.Request{CSR: catest.CSR(t, key, dns(asked))})
		wantClass(t, err, ca.CSRError, "may not have")
	}
}

func TestCheckDNSName(t *testing.T) { // R-10, RFC 1123 2.1
	long := strings.Repeat("a234567890.", 23) // 253 characters without the last dot
	for name, good := range map[string]bool{
		"a": true, "a.b": true, "a-b.c1": true, "1a.b": true, "xn--bcher-kva.example": true, "*.a.b": true, "a.1b": true,
		strings.Repeat("a", 63) + ".b": true, strings.Repeat("a", 64) + ".b": false, long[:252]: true, long + "a": false,
		"": false, "*": false, "*.a": false, "a.*": false, "*a.b.c": false, ".a": false, "a.": false, "A": false,
		"a\n": false, "a\x00.b": false, "1.2.3.4": false, "*.2.3.4": false, "a.1": false,
	} {
		if err := ca.CheckDNSName(name); (err == nil) != good {
			t.Errorf("%q: error %v", name, err)
		}
	}
}

func TestServiceAccountID(t *testing.T) { // ID-4
	if id := account(t, "default", "my.sleep"); id.String() != "spiffe://cluster.local/ns/default/sa/my.sleep" {
		t.Errorf("ID is %s", id)
	}
	for _, c := range [][2]string{{"", "a"}, {"a", ""}, {"..", "a"}, {"a", "."}, {"a/b", "c"}, {"a", "b/../c"}, {"a", "b%2f"}, {"a", "b:c"}, {"a", "b@c"}} {
		if id, err := ca.ServiceAccountID(catest.TrustDomain, c[0], c[1]); err == nil {
			t.Errorf("%q %q has ID %s", c[0], c[1], id)
		}
	}
}
