package ca_test

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// now has a fraction of a second, as clocks do and certificates do not.
var now = time.Date(2026, 7, 14, 12, 34, 56, 789_000_000, time.UTC)

const (
	defaultTTL = 19 * time.Hour
	maxTTL     = 7 * 24 * time.Hour
)

var (
	workload  = spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")
	caller    = ca.NewCaller(workload, "test", "a test says so")
	workNames = []string{"sleep.default.svc", "sleep.default", "*.sleep.example.org"}
)

// shape is one kind of certificate that we issue.
type shape struct {
	leaf     trust.KeyType
	signer   string
	dnsNames []string
	cn       bool
}

func (s shape) String() string {
	parts := []string{string(s.leaf), s.signer}
	if len(s.dnsNames) > 0 {
		parts = append(parts, "DNS names")
	}
	if s.cn {
		parts = append(parts, "CN")
	}
	return strings.Join(parts, ", ")
}

// shapes are all of them: each kind of workload key under each kind of signer,
// with and without DNS names and a common name.
func shapes() []shape {
	var all []shape
	for _, leaf := range []trust.KeyType{trust.ECDSAP256, trust.ECDSAP384, trust.RSA2048} {
		for signer := range signers {
			for _, dnsNames := range [][]string{nil, workNames} {
				all = append(all, shape{leaf, signer, dnsNames, false}, shape{leaf, signer, dnsNames, true})
			}
		}
	}
	return all
}

// signers are the kinds of signer that an authority is given.
var signers = map[string]func(*testing.T, time.Time) *trust.Signer{
	"self-signed P-256": selfSigned(trust.ECDSAP256),
	"self-signed P-384": selfSigned(trust.ECDSAP384),
	"self-signed RSA":   selfSigned(trust.RSA2048),
	citadel14: func(t *testing.T, now time.Time) *trust.Signer {
		return catest.Citadel14Root(t, now, catest.TrustDomain).Signer(t, now)
	},
	"operator's ECDSA below RSA": operators(trust.RSA2048, catest.Spec{KeyType: trust.ECDSAP256}),
	"operator's RSA below ECDSA": operators(trust.ECDSAP384, catest.Spec{KeyType: trust.RSA2048}),
	"operator's, path length 0": operators(trust.ECDSAP256, catest.Spec{Edit: func(c *x509.Certificate) {
		c.MaxPathLen, c.MaxPathLenZero = 0, true
	}}),
	"operator's, for this trust domain alone": operators(trust.ECDSAP256, catest.Spec{Edit: func(c *x509.Certificate) {
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"cluster.local"}, true
	}}),
	nameless: operators(trust.ECDSAP256, catest.Spec{Edit: func(c *x509.Certificate) {
		c.Subject = pkix.Name{}
	}}),
	"operator's, its own kind of key identifier": operators(trust.ECDSAP256, catest.Spec{Edit: func(c *x509.Certificate) {
		c.SubjectKeyId = []byte("eight by")
	}}),
}

// The signers that others find fault with.
const (
	citadel14 = "root of Citadel 1.4"
	nameless  = "operator's, without a name" // against RFC 5280 4.1.2.6
)

func selfSigned(keyType trust.KeyType) func(*testing.T, time.Time) *trust.Signer {
	return func(t *testing.T, now time.Time) *trust.Signer {
		t.Helper()
		s, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: catest.TrustDomain, KeyType: keyType, Lifetime: 365 * 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func operators(root trust.KeyType, issuing catest.Spec) func(*testing.T, time.Time) *trust.Signer {
	return func(t *testing.T, now time.Time) *trust.Signer {
		t.Helper()
		issuing.Name = "issuing"
		return catest.Root(t, now, catest.Spec{Name: "root", KeyType: root}).Intermediate(t, now, issuing).Signer(t, now)
	}
}

// issued is a certificate with everything that it was made from.
type issued struct {
	shape
	key    crypto.Signer
	signer *trust.Signer
	now    time.Time
	ttl    time.Duration
	chain  []*x509.Certificate
	byKey  []*x509.Certificate // the same, asked for without a CSR
}

func (i issued) leafCert() *x509.Certificate { return i.chain[0] }

// signersAt makes each kind of signer once.
func signersAt(t *testing.T, now time.Time) map[string]*trust.Signer {
	t.Helper()
	made := map[string]*trust.Signer{}
	for name, make := range signers {
		made[name] = make(t, now)
	}
	return made
}

// eachShape issues a certificate of each shape at now, and hands it to check.
func eachShape(t *testing.T, now time.Time, check func(*testing.T, issued)) {
	t.Helper()
	made := signersAt(t, now)
	for _, s := range shapes() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			check(t, issueShape(t, now, s, made[s.signer]))
		})
	}
}

func issueShape(t *testing.T, now time.Time, s shape, signer *trust.Signer) issued {
	t.Helper()
	a := catest.Authority(t, now, ca.Config{Signer: signer, DNSNames: ca.DNSNames{workload: s.dnsNames}, CommonName: s.cn})
	i := issued{shape: s, key: catest.Key(t, s.leaf, "workload"), signer: signer, now: now, ttl: 90 * time.Minute}
	var err error
	i.chain, err = a.Issue(now, caller, ca.Request{CSR: catest.CSR(t, i.key), TTL: i.ttl})
	if err != nil {
		t.Fatal(err)
	}
	i.byKey, err = a.Issue(now, caller, ca.Request{Key: i.key, TTL: i.ttl})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// issue gets a certificate for the workload, and fails the test if it cannot.
func issue(t *testing.T, a *ca.Authority, at time.Time, req ca.Request) *x509.Certificate {
	t.Helper()
	chain, err := a.Issue(at, caller, req)
	if err != nil {
		t.Fatal(err)
	}
	return chain[0]
}

// workloadCSR asks for nothing but a key.
func workloadCSR(t *testing.T) []byte {
	t.Helper()
	return catest.CSR(t, catest.Key(t, trust.ECDSAP256, "workload"))
}
