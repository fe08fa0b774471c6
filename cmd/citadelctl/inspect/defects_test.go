package inspect

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

type edit = func(*x509.Certificate)

// extension puts an extension into a certificate in place of the one that would
// be made from its fields.
func extension(t *testing.T, oid asn1.ObjectIdentifier, critical bool, value any) edit {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: der})
	}
}

func uri(id string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(id)}
}

func withURIs(t *testing.T, ids ...string) edit {
	t.Helper()
	var parsed []*url.URL
	for _, id := range ids {
		u, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, u)
	}
	return func(c *x509.Certificate) { c.URIs = parsed }
}

// TestWorkloadDefects has a certificate for each thing that can be wrong with a
// workload's, and for some that are merely worth a remark.
func TestWorkloadDefects(t *testing.T) {
	digitalSignature := asn1.BitString{Bytes: []byte{0x80}, BitLength: 1}
	for name, c := range map[string]struct {
		edit              edit
		problems, remarks string
	}{
		"none":                   {func(*x509.Certificate) {}, "", ""},
		"DNS name":               {func(c *x509.Certificate) { c.DNSNames = []string{"sleep.default.svc"} }, "", ""},
		"no names":               {func(c *x509.Certificate) { c.URIs = nil }, "no-spiffe-id", ""},
		"DNS name alone":         {func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"x.example"} }, "no-spiffe-id", ""},
		"two URIs":               {withURIs(t, "spiffe://cluster.local/a", "spiffe://cluster.local/b"), "several-uris", ""},
		"web URI":                {withURIs(t, "https://example.org/"), "bad-spiffe-id", ""},
		"no path":                {withURIs(t, "spiffe://cluster.local"), "spiffe-id-without-path", ""},
		"SAN not critical":       {extension(t, oidSubjectAltName, false, []asn1.RawValue{uri("spiffe://cluster.local/ns/default/sa/sleep")}), "san-not-critical", ""},
		"CA":                     {func(c *x509.Certificate) { c.IsCA = true }, "workload-is-ca", ""},
		"signs certificates":     {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "workload-signs", ""},
		"signs CRLs":             {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "workload-signs", ""},
		"CA that signs":          {func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }, "workload-is-ca workload-signs", ""},
		"no digital signature":   {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }, "no-digital-signature", ""},
		"key encipherment":       {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }, "", "encipherment-without-rsa"},
		"no key usage":           {func(c *x509.Certificate) { c.KeyUsage = 0 }, "key-usage-missing", ""},
		"key usage not critical": {extension(t, oidKeyUsage, false, digitalSignature), "key-usage-not-critical", ""},
		"no extended key usage":  {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "", "ext-key-usage-missing"},
		"server alone":           {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, "ext-key-usage-incomplete", ""},
		"client alone":           {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, "ext-key-usage-incomplete", ""},
		"code signing alone":     {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, "ext-key-usage-incomplete", ""},
		"a usage of its own making": {func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 2, 3}}
		}, "ext-key-usage-incomplete", ""},
		"expired":                  {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, "expired", ""},
		"not yet valid":            {func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }, "not-yet-valid", ""},
		"long life":                {func(c *x509.Certificate) { c.NotAfter = now.Add(longestLife + time.Second) }, "", "long-life"},
		"longest life":             {func(c *x509.Certificate) { c.NotAfter = now.Add(longestLife) }, "", ""},
		"outlives its issuer":      {func(c *x509.Certificate) { c.NotAfter = now.AddDate(11, 0, 0) }, "outlives-issuer", "long-life"},
		"older than its issuer":    {func(c *x509.Certificate) { c.NotBefore = now.Add(-2 * time.Hour) }, "", "older-than-issuer"},
		"unknown extension":        {extension(t, asn1.ObjectIdentifier{1, 2, 3}, true, 1), "not-trusted unknown-critical-extension", ""},
		"weak signature":           {func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }, "not-trusted weak-signature", ""},
		"several things at once":   {func(c *x509.Certificate) { c.URIs, c.KeyUsage, c.NotAfter = nil, 0, now.Add(-time.Second) }, "expired key-usage-missing no-spiffe-id", ""},
		"ID of another trust area": {withURIs(t, "spiffe://other.example/ns/default/sa/sleep"), "trust-domain-mismatch", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := catest.Root(t, now, catest.Spec{Name: "root", Edit: withURIs(t, "spiffe://cluster.local")})
			leaf := root.Leaf(t, now, sleep, c.edit)
			m := chainOf(leaf)
			m.Expect = Workload
			expect(t, Inspect(now, m, rootsOf(root)), c.problems, c.remarks)
		})
	}
}

// TestRolesByContent: a workload's certificate that is marked as a CA's is found
// out in a file too, where nothing says what it should be.
func TestRolesByContent(t *testing.T) {
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	leaf := root.Leaf(t, now, sleep, func(c *x509.Certificate) { c.IsCA = true })
	expect(t, Inspect(now, chainOf(leaf), rootsOf(root)), "workload-is-ca", "")
}

func TestAuthorityDefects(t *testing.T) {
	for name, c := range map[string]struct {
		edit              edit
		problems, remarks string
	}{
		"none":                {func(*x509.Certificate) {}, "", ""},
		"path length":         {func(c *x509.Certificate) { c.MaxPathLenZero = true }, "", ""},
		"no CA":               {func(c *x509.Certificate) { c.IsCA = false }, "not-a-ca not-trusted", "no-authority-key-id"},
		"no CA constraints":   {func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false }, "not-a-ca not-trusted", "no-authority-key-id"},
		"cannot sign":         {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, "ca-cannot-sign not-trusted", ""},
		"no key usage":        {func(c *x509.Certificate) { c.KeyUsage = 0 }, "key-usage-missing", ""},
		"no subject":          {func(c *x509.Certificate) { c.Subject = pkix.Name{} }, "ca-without-subject", "no-authority-key-id"},
		"a workload's ID":     {withURIs(t, "spiffe://cluster.local/ns/x"), "ca-with-path", ""},
		"two URIs":            {withURIs(t, "spiffe://cluster.local", "spiffe://b.example"), "several-uris", ""},
		"extended usage":      {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "", "ca-ext-key-usage"},
		"expired":             {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, "expired outlives-issuer", ""},
		"not yet valid":       {func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }, "not-yet-valid", "older-than-issuer"},
		"ends before":         {func(c *x509.Certificate) { c.NotAfter = now.Add(time.Minute) }, "outlives-issuer", ""},
		"another trust area":  {withURIs(t, "spiffe://other.example"), "trust-domain-mismatch", ""},
		"constraints lax":     {extension(t, oidBasicConstraints, false, struct{ CA bool }{true}), "basic-constraints-not-critical", ""},
		"other key's name":    {func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3} }, "", ""},
		"name constraint":     {func(c *x509.Certificate) { c.PermittedURIDomains = []string{"cluster.local"} }, "", ""},
		"name constraint off": {func(c *x509.Certificate) { c.PermittedURIDomains = []string{"other.example"} }, "not-trusted", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := catest.Root(t, now, catest.Spec{Name: "root"})
			issuer := root.Intermediate(t, now, catest.Spec{Name: "issuer", Edit: c.edit})
			leaf := issuer.Leaf(t, now, sleep)
			expect(t, Inspect(now, chainOf(leaf, issuer), rootsOf(root)), c.problems, c.remarks)
		})
	}
}

// TestWrongAuthorityKeyID is refused by OpenSSL, and overlooked by crypto/x509.
func TestWrongAuthorityKeyID(t *testing.T) {
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	misled := *root.Cert
	misled.SubjectKeyId = []byte{1, 2, 3}
	leaf := (&catest.Issuer{Cert: &misled, Key: root.Key}).Leaf(t, now, sleep)
	expect(t, Inspect(now, chainOf(leaf), rootsOf(root)), "authority-key-id-mismatch", "")
}

func TestOldCitadelRoot(t *testing.T) {
	root := catest.Citadel14Root(t, now.AddDate(-1, 0, 0), catest.TrustDomain)
	leaf := root.Leaf(t, now, sleep)
	expect(t, Inspect(now, chainOf(leaf), rootsOf(root)), "", "no-authority-key-id no-subject-key-id")
}

func TestWeakKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	for name, public := range map[string]crypto.PublicKey{"RSA 1024": weak.Public(), "Ed25519": edwards} {
		t.Run(name, func(t *testing.T) {
			template := root.Leaf(t, now, sleep).Cert
			der, err := x509.CreateCertificate(rand.Reader, template, root.Cert, public, root.Key)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			r := Inspect(now, chainOf(&catest.Issuer{Cert: leaf}), rootsOf(root))
			expect(t, r, "weak-key", "")
			if got := r.Certificates[0].KeyType; got != name {
				t.Errorf("key is called %q", got)
			}
		})
	}
}

// TestTrustDomainOfOtherRoots: of a chain that no root verifies, it helps to
// know that the roots are another mesh's.
func TestTrustDomainOfOtherRoots(t *testing.T) {
	other := catest.SelfSigned(t, now, spiffeid.RequireTrustDomainFromString("other.example"))
	p := newPKI(t)
	r := Inspect(now, chainOf(p.leaf, p.issuer), Roots{From: "root.pem", Certs: other.Roots()})
	expect(t, r, "not-trusted trust-domain-mismatch", "")
}

// TestIssuedByCitadel: what our own authority makes is right.
func TestIssuedByCitadel(t *testing.T) {
	started := now.Add(-time.Hour)
	authority := catest.Authority(t, started, ca.Config{DNSNames: ca.DNSNames{sleep: {"sleep.default.svc"}}})
	for _, keyType := range []trust.KeyType{trust.ECDSAP256, trust.RSA2048} {
		key := catest.Key(t, keyType, "sleep")
		caller := ca.NewCaller(sleep, "test", "")
		chain, err := authority.Issue(now, caller, ca.Request{CSR: catest.CSR(t, key), TTL: 168 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		m := Material{Chain: located(chain, "chain.pem"), Key: key, Expect: Workload}
		expect(t, Inspect(now, m, Roots{From: "root.pem", Certs: authority.Signer().Roots()}), "", "")
	}
}
