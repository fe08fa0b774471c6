package ca_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // key identifiers are SHA-1 by RFC 5280 4.2.1.2
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestEachShape looks at every field of every kind of certificate, then lets
// the library of most SPIFFE programs verify it, and a linter read it.
func TestEachShape(t *testing.T) {
	registry := rfc5280Lints(t)
	eachShape(t, now, func(t *testing.T, i issued) {
		checkFields(t, i)
		checkGoSPIFFE(t, i)
		for _, complaint := range complaints(t, registry, i.leafCert()) {
			if i.shape.signer != nameless || !strings.HasPrefix(complaint, "e_issuer_field_empty:") {
				t.Error(complaint)
			}
		}
	})
}

func checkFields(t *testing.T, i issued) {
	t.Helper()
	checkSerial(t, i)
	checkSubject(t, i)
	checkNames(t, i)
	checkUsages(t, i)
	checkBasicConstraints(t, i)
	checkKeyIDs(t, i)
	checkValidity(t, i)
	checkExtensionSet(t, i)
	checkChain(t, i)
	checkByKey(t, i)
}

// checkByKey: a key of this process and one in a CSR give the same certificate.
func checkByKey(t *testing.T, i issued) {
	t.Helper()
	got, want := i.byKey[0], i.leafCert()
	type rest struct {
		Version              int
		Algorithm            x509.SignatureAlgorithm
		Issuer, Subject, Key []byte
		From, To             time.Time
		Extensions           []pkix.Extension
	}
	of := func(c *x509.Certificate) rest {
		return rest{c.Version, c.SignatureAlgorithm, c.RawIssuer, c.RawSubject, c.RawSubjectPublicKeyInfo, c.NotBefore, c.NotAfter, c.Extensions}
	}
	if diff := cmp.Diff(of(want), of(got)); diff != "" {
		t.Errorf("without a CSR the certificate is another (-with +without):\n%s", diff)
	}
	if got.SerialNumber.Cmp(want.SerialNumber) == 0 || len(i.byKey) != len(i.chain) {
		t.Errorf("the same serial twice, or a chain of %d for one of %d", len(i.byKey), len(i.chain))
	}
	i.chain, i.byKey = i.byKey, i.chain
	checkSerial(t, i)
	checkGoSPIFFE(t, i)
}

func checkSerial(t *testing.T, i issued) {
	t.Helper()
	serial := i.leafCert().SerialNumber
	if der, err := asn1.Marshal(serial); err != nil || serial.Sign() <= 0 || len(der)-2 > 20 || serial.BitLen() < 64 {
		t.Errorf("R-1: serial number %x, error %v", serial, err)
	}
}

func checkSubject(t *testing.T, i issued) {
	t.Helper()
	want := ""
	if i.cn {
		want = "CN=" + workload.String()
	}
	if got := i.leafCert().Subject.String(); got != want {
		t.Errorf("X-3: subject is %q, want %q", got, want)
	}
}

func checkNames(t *testing.T, i issued) {
	t.Helper()
	san := extension(i.leafCert(), "2.5.29.17")
	if san == nil || !san.Critical {
		t.Fatal("X-3, R-4: there is no critical subject alternative name")
	}
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(san.Value, &names); err != nil || len(rest) > 0 {
		t.Fatalf("names do not parse: %v", err)
	}
	want := []string{"6 " + workload.String()} // one URI, and it is the first name
	for _, name := range i.dnsNames {
		want = append(want, "2 "+name)
	}
	var got []string
	for _, name := range names {
		got = append(got, string('0'+rune(name.Tag))+" "+string(name.Bytes))
	}
	if !slices.Equal(got, want) {
		t.Errorf("X-1, R-11: names are %q, want %q", got, want)
	}
}

func checkUsages(t *testing.T, i issued) {
	t.Helper()
	cert := i.leafCert()
	want := x509.KeyUsageDigitalSignature
	if _, ok := i.key.Public().(*rsa.PublicKey); ok {
		want |= x509.KeyUsageKeyEncipherment
	}
	if cert.KeyUsage != want {
		t.Errorf("X-9: key usage is %b, want %b", cert.KeyUsage, want)
	}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if !slices.Equal(cert.ExtKeyUsage, both) || len(cert.UnknownExtKeyUsage) > 0 {
		t.Errorf("X-10: extended key usage is %v %v, want %v", cert.ExtKeyUsage, cert.UnknownExtKeyUsage, both)
	}
}

func checkBasicConstraints(t *testing.T, i issued) {
	t.Helper()
	cert := i.leafCert()
	if !cert.BasicConstraintsValid || cert.IsCA || cert.MaxPathLen > 0 || cert.MaxPathLenZero {
		t.Errorf("X-6: basic constraints are present %t, CA %t, path length %d", cert.BasicConstraintsValid, cert.IsCA, cert.MaxPathLen)
	}
}

func checkKeyIDs(t *testing.T, i issued) {
	t.Helper()
	cert, issuer := i.leafCert(), i.signer.Cert()
	if len(cert.SubjectKeyId) == 0 || len(cert.AuthorityKeyId) == 0 {
		t.Errorf("R-5: subject key identifier %x, authority's %x", cert.SubjectKeyId, cert.AuthorityKeyId)
	}
	if len(issuer.SubjectKeyId) > 0 && !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId) {
		t.Errorf("R-5: authority key identifier is %x, the issuer's own %x", cert.AuthorityKeyId, issuer.SubjectKeyId)
	}
	if bytes.Equal(cert.SubjectKeyId, cert.AuthorityKeyId) {
		t.Error("R-5: the certificate names itself as its issuer")
	}
	if !trust.SamePublicKey(cert.PublicKey, i.key.Public()) {
		t.Error("the key is not the request's")
	}
}

func checkValidity(t *testing.T, i issued) {
	t.Helper()
	cert, issuer := i.leafCert(), i.signer.Cert()
	begin := i.now.Add(-2 * time.Minute).Truncate(time.Second)
	if issuer.NotBefore.After(begin) {
		begin = issuer.NotBefore
	}
	if !cert.NotBefore.Equal(begin) {
		t.Errorf("not before %s, want %s", cert.NotBefore, begin)
	}
	if end := i.now.Add(i.ttl).Truncate(time.Second); !cert.NotAfter.Equal(end) {
		t.Errorf("C-5: not after %s, want %s", cert.NotAfter, end)
	}
	if cert.NotBefore.Before(issuer.NotBefore) || cert.NotAfter.After(issuer.NotAfter) {
		t.Error("R-3: outlives its issuer")
	}
}

// checkExtensionSet: there is no extension but these, and no critical one that
// some verifier may not know.
func checkExtensionSet(t *testing.T, i issued) {
	t.Helper()
	critical := map[string]bool{}
	for _, ext := range i.leafCert().Extensions {
		critical[ext.Id.String()] = ext.Critical
	}
	want := map[string]bool{
		"2.5.29.15": true,  // key usage
		"2.5.29.19": true,  // basic constraints
		"2.5.29.17": true,  // names
		"2.5.29.37": false, // extended key usage
		"2.5.29.14": false, // subject key identifier
		"2.5.29.35": false, // authority key identifier
	}
	if !maps.Equal(critical, want) || len(i.leafCert().Extensions) != len(want) {
		t.Errorf("extensions, and whether critical, are %v, want %v", critical, want)
	}
}

func checkChain(t *testing.T, i issued) {
	t.Helper()
	if !slices.EqualFunc(i.chain[1:], i.signer.Chain(), (*x509.Certificate).Equal) {
		t.Errorf("%d certificates follow the leaf, want the signer's chain", len(i.chain)-1)
	}
	if i.leafCert().Version != 3 || !bytes.Equal(i.leafCert().RawIssuer, i.signer.Cert().RawSubject) {
		t.Errorf("version %d, issuer %s", i.leafCert().Version, i.leafCert().Issuer)
	}
}

func extension(cert *x509.Certificate, oid string) *pkix.Extension {
	for i, ext := range cert.Extensions {
		if ext.Id.String() == oid {
			return &cert.Extensions[i]
		}
	}
	return nil
}

// checkGoSPIFFE: the library takes the chain with the roots, and the
// chain with its key.
func checkGoSPIFFE(t *testing.T, i issued) {
	t.Helper()
	bundle := x509bundle.FromX509Authorities(catest.TrustDomain, i.signer.Roots())
	id, chains, err := x509svid.Verify(i.chain, bundle, x509svid.WithTime(i.now))
	if err != nil || id != workload || len(chains) == 0 {
		t.Errorf("x509svid.Verify: %s, error %v", id, err)
	}
	checkParseRaw(t, i)
}

func checkParseRaw(t *testing.T, i issued) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	var certs []byte
	for _, cert := range i.chain {
		certs = append(certs, cert.Raw...)
	}
	svid, err := x509svid.ParseRaw(certs, key)
	if err != nil || svid.ID != workload || len(svid.Certificates) != len(i.chain) {
		t.Errorf("x509svid.ParseRaw: %v", err)
	}
}

func TestRFC5280LintsOfOurRoots(t *testing.T) {
	registry := rfc5280Lints(t)
	for _, keyType := range []trust.KeyType{trust.ECDSAP256, trust.ECDSAP384, trust.RSA2048} {
		for _, complaint := range complaints(t, registry, selfSigned(keyType)(t, now).Cert()) {
			t.Errorf("%s: %s", keyType, complaint)
		}
	}
}

// TestLintsSeeFaults: a linter that finds nothing anywhere proves nothing.
func TestLintsSeeFaults(t *testing.T) {
	got := complaints(t, rfc5280Lints(t), catest.Citadel14Root(t, now, catest.TrustDomain).Cert)
	if len(got) != 1 || !strings.HasPrefix(got[0], "e_ext_subject_key_identifier_missing_ca") {
		t.Errorf("complaints about a root of Citadel 1.4: %q", got)
	}
}

// rfc5280Lints are the rules of RFC 5280 alone: those of the CA/Browser Forum
// are for web sites, and refuse URI names. No warning of them is allowed, for
// none comes.
func rfc5280Lints(t *testing.T) lint.Registry {
	t.Helper()
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280}})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

// complaints are the warnings and errors.
func complaints(t *testing.T, registry lint.Registry, cert *x509.Certificate) []string {
	t.Helper()
	parsed, err := zx509.ParseCertificate(cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for name, result := range zlint.LintCertificateEx(parsed, registry).Results {
		if result.Status >= lint.Warn {
			out = append(out, fmt.Sprintf("%s: %s %s", name, result.Status, result.Details))
		}
	}
	return out
}

func TestSerialNumbersAreUnique(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{})
	csr, seen := workloadCSR(t), map[string]bool{}
	for range 200 {
		serial := issue(t, a, now, ca.Request{CSR: csr}).SerialNumber.String()
		if seen[serial] {
			t.Fatalf("serial number %s came twice", serial)
		}
		seen[serial] = true
	}
}

// TestCommonNameOfALongIDIsLeftOut: 64 characters is the most (RFC 5280
// appendix A.1), and half an identity would be another one.
func TestCommonNameOfALongIDIsLeftOut(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{CommonName: true})
	const before = "spiffe://cluster.local/ns/def/sa/"
	for length, want := range map[int]bool{64: true, 65: false} {
		id := spiffeid.RequireFromString(before + strings.Repeat("a", length-len(before)))
		chain, err := a.Issue(now, ca.NewCaller(id, "test", ""), ca.Request{CSR: workloadCSR(t)})
		if err != nil {
			t.Fatal(err)
		}
		if got := chain[0].Subject.CommonName; (got == id.String()) != want || (got == "") == want {
			t.Errorf("an ID of %d characters: common name %q", length, got)
		}
	}
}

// TestIssuerWithoutKeyIDIsNamedByTheHashOfItsKey: RFC 5280 4.2.1.2 method 1,
// which every leaf of one root of Citadel 1.4 then shares.
func TestIssuerWithoutKeyIDIsNamedByTheHashOfItsKey(t *testing.T) {
	root := catest.Citadel14Root(t, now, catest.TrustDomain)
	a := catest.Authority(t, now, ca.Config{Signer: root.Signer(t, now)})
	public := root.Key.Public().(*rsa.PublicKey)
	want := sha1.Sum(x509.MarshalPKCS1PublicKey(public)) //nolint:gosec // a name, not a secret
	if got := issue(t, a, now, ca.Request{CSR: workloadCSR(t)}).AuthorityKeyId; !bytes.Equal(got, want[:]) {
		t.Errorf("authority key identifier %x, want %x", got, want)
	}
}
