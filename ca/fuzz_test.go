package ca_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// FuzzCSR: no request makes the authority panic, and whatever it issues has
// exactly the caller's URI and is no CA.
func FuzzCSR(f *testing.F) {
	good := catest.CSR(f, catest.Key(f, trust.ECDSAP256, "workload"), uris(workload.String()))
	for _, seed := range [][]byte{nil, good, catest.CSRPEM(good), good[:len(good)/2], {0x30, 0x80}, []byte("-----BEGIN ")} {
		f.Add(seed)
	}
	for _, r := range tooMuch(f) {
		f.Add(catest.CSR(f, catest.Key(f, trust.ECDSAP256, "workload"), r.edits...))
	}
	a := catest.Authority(f, now, ca.Config{DNSNames: ca.DNSNames{workload: workNames}})
	f.Fuzz(func(t *testing.T, csr []byte) { checkIssue(t, a, csr) })
}

// FuzzSignedCSR goes past the check of the signature: what it makes up of
// names and extensions is signed by the request's own key.
func FuzzSignedCSR(f *testing.F) {
	f.Add("", "", "", []byte{0x05, 0x00}, uint8(14), false)
	f.Add("Istio", workload.String(), workNames[0], []byte{0x30, 0x00}, uint8(19), true)
	f.Add("O", "CN", "dns.example.org", []byte{0x30, 0x03, 0x01, 0x01, 0xff}, uint8(19), true)
	f.Add("", "", "", []byte{0x03, 0x02, 0x02, 0x04}, uint8(15), true)
	f.Add("", "", "", encode(f, []asn1.RawValue{general(6, false, []byte(workload.String()))}), uint8(17), false)
	f.Add("", "", "", encode(f, []asn1.RawValue{general(0, true, []byte{0x06, 0x01, 0x2a})}), uint8(17), false)
	f.Add("", "", "", encode(f, []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}}), uint8(37), false)
	a := catest.Authority(f, now, ca.Config{DNSNames: ca.DNSNames{workload: workNames}})
	key := catest.Key(f, trust.ECDSAP256, "workload")
	f.Fuzz(func(t *testing.T, organization, commonName, dnsName string, value []byte, oid uint8, critical bool) {
		template := &x509.CertificateRequest{
			Subject:         pkix.Name{Organization: []string{organization}, CommonName: commonName},
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, int(oid)}, Critical: critical, Value: value}},
		}
		if dnsName != "" {
			template.DNSNames = []string{dnsName}
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			return // crypto/x509 writes no such request
		}
		checkIssue(t, a, csr)
	})
}

func checkIssue(t *testing.T, a *ca.Authority, csr []byte) {
	t.Helper()
	chain, err := a.Issue(now, caller, ca.Request{CSR: csr})
	if err != nil {
		if e, ok := errors.AsType[*ca.Error](err); !ok || e.Class != ca.CSRError || len(err.Error()) > 1<<10 || chain != nil {
			t.Fatalf("error %v is of the wrong kind", err)
		}
		return
	}
	leaf := chain[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != workload.String() || !slices.Equal(leaf.DNSNames, workNames) {
		t.Fatalf("names are %v %v", leaf.URIs, leaf.DNSNames)
	}
	if leaf.IsCA || leaf.KeyUsage&^(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment) != 0 {
		t.Fatalf("is a CA: %t, key usage %b", leaf.IsCA, leaf.KeyUsage)
	}
	if leaf.Subject.String() != "" || len(leaf.Extensions) != 6 || len(leaf.EmailAddresses)+len(leaf.IPAddresses) > 0 {
		t.Fatalf("subject %s, extensions %v", leaf.Subject, leaf.Extensions)
	}
}

// FuzzCustomDNSNames: each accepted name may stand in a certificate, and its
// identity is a service account's.
func FuzzCustomDNSNames(f *testing.F) {
	for _, seed := range []string{
		"", "sleep.default:sleep.example.org", "a.b.default:*.example.org,c.d:e", "s.d:*", "s.d:[a-z]", ":", ",", "s.d:a,s.d:a",
		"s..d:a", "s.d:10.0.0.1", " s.d:a ", "s.d:a:b", "é.d:a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		d := ca.DNSNames{}
		err := d.AddCustom(catest.TrustDomain, list)
		if err != nil && strings.TrimSpace(strings.ReplaceAll(list, ",", "")) == "" {
			t.Fatalf("nothing is a fault: %v", err)
		}
		for id, names := range d {
			checkEntry(t, list, id, names)
		}
	})
}

func checkEntry(t *testing.T, list string, id spiffeid.ID, names []string) {
	t.Helper()
	back, err := spiffeid.FromString(id.String())
	segments := strings.Split(id.Path(), "/")
	if err != nil || back != id || len(segments) != 5 || segments[1] != "ns" || segments[3] != "sa" {
		t.Fatalf("%q makes ID %s, error %v", list, id, err)
	}
	for _, name := range names {
		// Each entry is in the list as it was accepted: nothing is guessed.
		if entry := segments[4] + "." + segments[2] + ":" + name; ca.CheckDNSName(name) != nil || !strings.Contains(list, entry) {
			t.Fatalf("%q gives %s the name %q", list, id, name)
		}
	}
}
