package ca_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"slices"
	"testing"

	"citadel/ca"
	"citadel/ca/catest"
)

type edit = func(*x509.CertificateRequest)

// with adds an extension to a request.
func with(critical bool, value []byte, oid ...int) edit {
	return func(r *x509.CertificateRequest) {
		r.ExtraExtensions = append(r.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: value})
	}
}

func encode(tb testing.TB, value any) []byte {
	tb.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// sans adds names of the kinds that crypto/x509 cannot write.
func sans(tb testing.TB, names ...asn1.RawValue) edit {
	tb.Helper()
	return with(false, encode(tb, names), 2, 5, 29, 17)
}

func general(tag int, compound bool, value []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: value}
}

func uris(texts ...string) edit {
	return func(r *x509.CertificateRequest) {
		for _, text := range texts {
			u, err := url.Parse(text)
			if err != nil {
				panic(err)
			}
			r.URIs = append(r.URIs, u)
		}
	}
}

func dns(names ...string) edit {
	return func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, names...) }
}

func subject(name pkix.Name) edit {
	return func(r *x509.CertificateRequest) { r.Subject = name }
}

func attribute(value string, oid ...int) edit {
	return subject(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oid, Value: value}}})
}

func keyUsage(tb testing.TB, bits ...int) edit {
	tb.Helper()
	usage := asn1.BitString{Bytes: make([]byte, 2), BitLength: slices.Max(bits) + 1}
	for _, bit := range bits {
		usage.Bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	usage.Bytes = usage.Bytes[:(usage.BitLength+7)/8]
	return with(true, encode(tb, usage), 2, 5, 29, 15)
}

func extKeyUsage(tb testing.TB, usages ...asn1.ObjectIdentifier) edit {
	tb.Helper()
	return with(false, encode(tb, usages), 2, 5, 29, 37)
}

func basicConstraints(tb testing.TB, isCA bool, pathLen int) edit {
	tb.Helper()
	ext := catest.BasicConstraints(tb, isCA, pathLen)
	return with(true, ext.Value, ext.Id...)
}

// namesSetup is an authority that gives the workload DNS names, and its log.
func namesSetup(tb testing.TB) (*ca.Authority, *catest.Log) {
	tb.Helper()
	log := &catest.Log{}
	return catest.Authority(tb, now, ca.Config{DNSNames: ca.DNSNames{workload: workNames}, Audit: log.Audit}), log
}

// request is a certificate request's edits and what its refusal says.
type request struct {
	name  string
	edits []edit
	text  string
}

// tooMuch are requests for something that the caller is not (section 9, point
// 7). Most is what attacked SPIRE, Istio and istio-csr.
func tooMuch(tb testing.TB) []request {
	tb.Helper()
	return slices.Concat(tooManyNames(tb), tooMuchSubject(), tooManyRights(tb), strangeExtensions(tb))
}

func tooManyNames(tb testing.TB) []request {
	tb.Helper()
	upn := append(encode(tb, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}), 0xa0, 0x03, 0x0c, 0x01, 'x')
	directory := encode(tb, pkix.Name{CommonName: "admin"}.ToRDNSequence())
	return []request{
		{"a DNS name", []edit{dns("bank.example.org")}, `asks for DNS name "bank.example.org"`},
		{"an allowed DNS name and another", []edit{dns(workNames[0], "bank.example.org")}, `"bank.example.org"`},
		{"a DNS name under its own wildcard", []edit{dns("x.sleep.example.org")}, `"x.sleep.example.org"`},
		{"its own DNS name in another case", []edit{dns("SLEEP.default.svc")}, `"SLEEP.default.svc"`},
		{"a wildcard", []edit{dns("*.default.svc")}, `"*.default.svc"`},
		{"an IP address", []edit{func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }}, "asks for IP address 10.0.0.1"},
		{"an IPv6 address", []edit{func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.ParseIP("::1")} }}, "asks for IP address ::1"},
		{"an e-mail address", []edit{func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"root@example.org"} }}, `asks for e-mail address "root@example.org"`},
		{"another workload's URI", []edit{uris("spiffe://cluster.local/ns/default/sa/bank")}, `asks for URI "spiffe://cluster.local/ns/default/sa/bank"`},
		{"a foreign SPIFFE ID", []edit{uris("spiffe://example.org/ns/default/sa/sleep")}, "asks for URI"},
		{"the trust domain's own ID", []edit{uris("spiffe://cluster.local")}, "asks for URI"},
		{"its own URI and another (X-1)", []edit{uris(workload.String(), "spiffe://cluster.local/ns/default/sa/bank")}, "sa/bank"},
		{"another URI and its own (X-1)", []edit{uris("https://example.org/", workload.String())}, "https://example.org/"},
		{"its own URI with a query (ID-1)", []edit{uris(workload.String() + "?admin")}, "asks for URI"},
		{"its own URI with a fragment (ID-1)", []edit{uris(workload.String() + "#admin")}, "asks for URI"},
		{"its own URI with a user (ID-2)", []edit{uris("spiffe://root@cluster.local/ns/default/sa/sleep")}, "asks for URI"},
		{"its own URI with a port (ID-2)", []edit{uris("spiffe://cluster.local:80/ns/default/sa/sleep")}, "asks for URI"},
		{"its own URI, escaped (ID-4)", []edit{uris("spiffe://cluster.local/ns/default/sa/%73leep")}, "asks for URI"},
		{"its own URI and a slash (ID-4)", []edit{uris(workload.String() + "/")}, "asks for URI"},
		{"a prefix of its own URI", []edit{uris("spiffe://cluster.local/ns/default/sa/slee")}, "asks for URI"},
		{"an extension of its own URI", []edit{uris(workload.String() + "y")}, "asks for URI"},
		{"an otherName", []edit{sans(tb, general(0, true, upn))}, "a subject alternative name of kind 0"},
		{"an x400Address", []edit{sans(tb, general(3, true, nil))}, "a subject alternative name of kind 3"},
		{"a directoryName", []edit{sans(tb, general(4, true, directory))}, "a subject alternative name of kind 4"},
		{"an ediPartyName", []edit{sans(tb, general(5, true, nil))}, "a subject alternative name of kind 5"},
		{"a registeredID", []edit{sans(tb, general(8, false, []byte{0x2a, 0x03}))}, "a subject alternative name of kind 8"},
		{"its own URI and an otherName", []edit{sans(tb, general(6, false, []byte(workload.String())), general(0, true, upn))}, "kind 0"},
		{"a name of no kind", []edit{sans(tb, asn1.RawValue{Class: asn1.ClassUniversal, Tag: 6, Bytes: []byte{0x2a, 0x03}})}, "subject alternative name"},
		{"a DNS name of several parts", []edit{sans(tb, general(2, true, []byte{0x82, 1, 'x'}))}, "subject alternative name"},
		{"names that are none", []edit{with(false, []byte{0x30, 0x03, 0x01}, 2, 5, 29, 17)}, "does not parse"},
	}
}

func tooMuchSubject() []request {
	return []request{
		{"a common name", []edit{subject(pkix.Name{CommonName: "admin"})}, `asks for common name "admin"`},
		{"another workload's ID as common name", []edit{subject(pkix.Name{CommonName: "spiffe://cluster.local/ns/default/sa/bank"})}, "asks for common name"},
		{"two common names", []edit{subject(pkix.Name{CommonName: workload.String(), ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: []int{2, 5, 4, 3}, Value: workload.String()}, {Type: []int{2, 5, 4, 3}, Value: "admin"},
		}})}, `"admin"`},
		{"an organizational unit", []edit{subject(pkix.Name{OrganizationalUnit: []string{"system:masters"}})}, `asks for subject attribute 2.5.4.11="system:masters"`},
		{"a country", []edit{subject(pkix.Name{Country: []string{"CH"}})}, "asks for subject attribute 2.5.4.6"},
		{"a serial number in its name", []edit{subject(pkix.Name{SerialNumber: "1"})}, "asks for subject attribute 2.5.4.5"},
		{"an e-mail address in its name", []edit{attribute("root@example.org", 1, 2, 840, 113549, 1, 9, 1)}, `1.2.840.113549.1.9.1="root@example.org"`},
		{"a domain component", []edit{attribute("example", 0, 9, 2342, 19200300, 100, 1, 25)}, "asks for subject attribute"},
		{"a user ID", []edit{attribute("root", 0, 9, 2342, 19200300, 100, 1, 1)}, "asks for subject attribute"},
	}
}

func tooManyRights(tb testing.TB) []request {
	tb.Helper()
	return []request{
		{"CA:TRUE", []edit{basicConstraints(tb, true, -1)}, "asks to be a CA"},
		{"CA:TRUE, path length 0", []edit{basicConstraints(tb, true, 0)}, "asks to be a CA"},
		{"a path length without CA", []edit{basicConstraints(tb, false, 3)}, "asks to be a CA"},
		{"basic constraints that do not parse", []edit{with(true, []byte{0x30, 0x05}, 2, 5, 29, 19)}, "basic constraints do not parse"},
		{"basic constraints with more behind", []edit{with(true, []byte{0x30, 0, 0x30, 0}, 2, 5, 29, 19)}, "basic constraints do not parse"},
		{"keyCertSign", []edit{keyUsage(tb, 0, 5)}, "asks for key usage bit 5"},
		{"cRLSign", []edit{keyUsage(tb, 6)}, "asks for key usage bit 6"},
		{"decipherOnly", []edit{keyUsage(tb, 0, 8)}, "asks for key usage bit 8"},
		{"nonRepudiation", []edit{keyUsage(tb, 1)}, "asks for key usage bit 1"},
		{"key usage that does not parse", []edit{with(true, []byte{0x03}, 2, 5, 29, 15)}, "key usage does not parse"},
		{"codeSigning", []edit{extKeyUsage(tb, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3})}, "asks for extended key usage 1.3.6.1.5.5.7.3.3"},
		{"serverAuth and OCSPSigning", []edit{extKeyUsage(tb, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9})}, "asks for extended key usage 1.3.6.1.5.5.7.3.9"},
		{"anyExtendedKeyUsage", []edit{extKeyUsage(tb, asn1.ObjectIdentifier{2, 5, 29, 37, 0})}, "asks for extended key usage 2.5.29.37.0"},
		{"extended key usage that does not parse", []edit{with(false, []byte{0x05, 0}, 2, 5, 29, 37)}, "extended key usage does not parse"},
	}
}

func strangeExtensions(tb testing.TB) []request {
	tb.Helper()
	null := []byte{0x05, 0x00}
	twice := func(e edit) []edit { return []edit{e, e} }
	return []request{
		{"an unknown extension", []edit{with(false, null, 1, 2, 3, 4)}, "asks for extension 1.2.3.4"},
		{"an unknown critical extension", []edit{with(true, null, 1, 2, 3, 4)}, "asks for extension 1.2.3.4"},
		{"delegation usage (C-2)", []edit{with(false, null, 1, 3, 6, 1, 4, 1, 44363, 44)}, "asks for extension 1.3.6.1.4.1.44363.44"},
		{"name constraints", []edit{with(true, []byte{0x30, 0}, 2, 5, 29, 30)}, "asks for extension 2.5.29.30"},
		{"a certificate policy", []edit{with(false, []byte{0x30, 0}, 2, 5, 29, 32)}, "asks for extension 2.5.29.32"},
		{"an authority key identifier", []edit{with(false, []byte{0x30, 0}, 2, 5, 29, 35)}, "asks for extension 2.5.29.35"},
		{"must-staple", []edit{with(false, []byte{0x30, 3, 2, 1, 5}, 1, 3, 6, 1, 5, 5, 7, 1, 24)}, "asks for extension 1.3.6.1.5.5.7.1.24"},
		{"names twice", twice(sans(tb, general(6, false, []byte(workload.String())))), "duplicate"},
		{"key usage twice", twice(keyUsage(tb, 0)), "duplicate"},
		{"an unknown extension twice", twice(with(false, null, 1, 2, 3, 4)), "duplicate"},
	}
}
