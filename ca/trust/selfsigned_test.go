package trust_test

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

const lifetime = 365 * 24 * time.Hour

func selfSigned(t *testing.T, keyType trust.KeyType, td spiffeid.TrustDomain) *trust.Signer {
	t.Helper()
	s, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: td, KeyType: keyType, Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSelfSignedRootIsWhatTheSpecificationsAsk(t *testing.T) {
	for _, keyType := range []trust.KeyType{trust.ECDSAP256, trust.ECDSAP384, trust.RSA2048} {
		t.Run(string(keyType), func(t *testing.T) {
			s := selfSigned(t, keyType, catest.TrustDomain)
			checkRootNames(t, s.Cert())
			checkRootRights(t, s.Cert())
			checkRootValidity(t, s.Cert())
			checkSerial(t, s.Cert().SerialNumber)
			if err := s.Cert().CheckSignatureFrom(s.Cert()); err != nil {
				t.Errorf("is not self-signed: %v", err)
			}
			if err := trust.CheckPublicKey(s.Key().Public()); err != nil {
				t.Error(err)
			}
		})
	}
}

func checkRootNames(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	if want := "cluster.local root "; !strings.HasPrefix(cert.Subject.CommonName, want) {
		t.Errorf("R-4: CN is %q, want one that begins with %q", cert.Subject.CommonName, want)
	}
	if got := cert.Subject.Organization; len(got) != 1 || got[0] != "cluster.local" {
		t.Errorf("O is %q, want the trust domain", got)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://cluster.local" {
		t.Errorf("X-4, ID-7: URIs are %v, want the trust domain's ID alone", cert.URIs)
	}
	if len(cert.DNSNames)+len(cert.EmailAddresses)+len(cert.IPAddresses) > 0 {
		t.Error("has further names")
	}
}

func checkRootRights(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	if !cert.BasicConstraintsValid || !cert.IsCA {
		t.Error("X-6: is no CA")
	}
	if cert.MaxPathLen != -1 || cert.MaxPathLenZero {
		t.Errorf("has path length %d: a root that another one signs across must have none", cert.MaxPathLen)
	}
	if cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("X-9: key usage is %b", cert.KeyUsage)
	}
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 {
		t.Error("X-11: has an extended key usage")
	}
	if len(cert.SubjectKeyId) == 0 {
		t.Error("R-5: has no subject key identifier")
	}
	critical := map[string]bool{}
	for _, ext := range cert.Extensions {
		critical[ext.Id.String()] = ext.Critical
	}
	if want := map[string]bool{"2.5.29.15": true, "2.5.29.19": true, "2.5.29.14": false, "2.5.29.17": false}; !maps.Equal(critical, want) {
		t.Errorf("X-8, R-6, R-8: critical extensions are %v, want %v", critical, want)
	}
}

func checkRootValidity(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	if want := now.Add(-2 * time.Minute).Truncate(time.Second); !cert.NotBefore.Equal(want) {
		t.Errorf("not before %s, want %s", cert.NotBefore, want)
	}
	if want := now.Add(lifetime).Truncate(time.Second); !cert.NotAfter.Equal(want) {
		t.Errorf("not after %s, want %s", cert.NotAfter, want)
	}
}

func checkSerial(t *testing.T, serial *big.Int) {
	t.Helper()
	if der, err := asn1.Marshal(serial); err != nil || serial.Sign() <= 0 || len(der)-2 > 20 || serial.BitLen() < 64 {
		t.Errorf("R-1: serial number %x, error %v", serial, err)
	}
}

// TestEachRootHasItsOwnName: a transition between two roots of one name fails
// in OpenSSL and GnuTLS (R-4, and the bridge table of section 4).
func TestEachRootHasItsOwnName(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		subject := selfSigned(t, trust.ECDSAP256, catest.TrustDomain).Cert().RawSubject
		if seen[string(subject)] {
			t.Fatal("two roots have one name")
		}
		seen[string(subject)] = true
	}
}

// TestNamesOfLongTrustDomainsAreClipped: 255 octets is the longest trust domain
// (ID-5), 64 characters the longest CN and O (RFC 5280 appendix A.1).
func TestNamesOfLongTrustDomainsAreClipped(t *testing.T) {
	for _, length := range []int{1, 49, 50, 51, 64, 65, 255} {
		td := spiffeid.RequireTrustDomainFromString(strings.Repeat("d", length))
		cert := selfSigned(t, trust.ECDSAP256, td).Cert()
		if len(cert.Subject.CommonName) > 64 || len(cert.Subject.Organization[0]) > 64 {
			t.Errorf("%d: CN of %d and O of %d characters", length, len(cert.Subject.CommonName), len(cert.Subject.Organization[0]))
		}
		if _, unique, ok := strings.Cut(cert.Subject.CommonName, " root "); !ok || len(unique) != 8 {
			t.Errorf("%d: CN %q lost what makes it unique", length, cert.Subject.CommonName)
		}
		if cert.URIs[0].String() != "spiffe://"+td.Name() {
			t.Errorf("%d: URI %s is not the whole trust domain", length, cert.URIs[0])
		}
	}
}

func TestSelfSignedSignerIsItsOwnRoot(t *testing.T) {
	s := selfSigned(t, trust.ECDSAP256, catest.TrustDomain)
	if len(s.Chain()) != 0 || len(s.ChainPEM()) != 0 {
		t.Error("has a chain below the root")
	}
	if len(s.Roots()) != 1 || !s.Roots()[0].Equal(s.Cert()) || !bytes.Equal(s.RootsPEM(), trust.MarshalCertificates(s.Roots())) {
		t.Error("its root is not itself")
	}
	if !s.NotAfter().Equal(s.Cert().NotAfter) {
		t.Errorf("ends at %s, its certificate at %s", s.NotAfter(), s.Cert().NotAfter)
	}
}

func TestNewSelfSignedRefuses(t *testing.T) {
	good := trust.SelfSigned{TrustDomain: catest.TrustDomain, KeyType: trust.ECDSAP256, Lifetime: lifetime}
	for name, edit := range map[string]func(*trust.SelfSigned){
		"no trust domain":     func(s *trust.SelfSigned) { s.TrustDomain = spiffeid.TrustDomain{} },
		"no key type":         func(s *trust.SelfSigned) { s.KeyType = "" },
		"an unknown key type": func(s *trust.SelfSigned) { s.KeyType = "dsa" },
		"no lifetime":         func(s *trust.SelfSigned) { s.Lifetime = 0 },
		"a negative lifetime": func(s *trust.SelfSigned) { s.Lifetime = -time.Hour },
	} {
		bad := good
		edit(&bad)
		if _, err := trust.NewSelfSigned(now, bad); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestSerialNumbers(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		serial, err := trust.NewSerial()
		if err != nil {
			t.Fatal(err)
		}
		checkSerial(t, serial)
		if len(serial.Bytes()) != 20 || seen[serial.String()] {
			t.Fatalf("serial %x has %d octets, or came twice", serial, len(serial.Bytes()))
		}
		seen[serial.String()] = true
	}
}
