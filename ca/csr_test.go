package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func TestRequestForMoreThanTheCallerIsRefused(t *testing.T) {
	key := catest.Key(t, trust.ECDSAP256, "workload")
	for _, r := range tooMuch(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, catest.CSR(t, key, r.edits...), r.text)
		})
	}
}

// wantRefused checks that a request is refused with the text, and that nothing
// was signed: a refusal is audited, alone.
func wantRefused(t *testing.T, csr []byte, text string) {
	t.Helper()
	a, log := namesSetup(t)
	chain, err := a.Issue(now, caller, ca.Request{CSR: csr})
	wantClass(t, err, ca.CSRError, text)
	if chain != nil {
		t.Error("a chain came with the error")
	}
	if r := log.Records(); len(r) != 1 || r[0].Stage != ca.AuditRefused || r[0].Class != ca.CSRError || r[0].Error != err.Error() || r[0].Serial != "" {
		t.Errorf("audit records are %+v, want one of the refusal", r)
	}
}

// TestRequestForWhatTheCallerIsIsGranted: old node agents send Organization,
// today's proxies the URI, and some programs fill in all that they know. The
// certificate is the same as without.
func TestRequestForWhatTheCallerIsIsGranted(t *testing.T) {
	key := catest.Key(t, trust.ECDSAP256, "workload")
	for name, edits := range map[string][]edit{
		"nothing":                        nil,
		"its own URI":                    {uris(workload.String())},
		"its own URI, twice":             {uris(workload.String(), workload.String())},
		"its own URI, upper-case scheme": {sans(t, general(6, false, []byte("SPIFFE://cluster.local/ns/default/sa/sleep")))},
		"its DNS names":                  {dns(workNames...)},
		"one of its DNS names":           {dns(workNames[1])},
		"its ID as common name":          {subject(pkix.Name{CommonName: workload.String()})},
		"its DNS name as common name":    {subject(pkix.Name{CommonName: workNames[0]})},
		"an organization":                {subject(pkix.Name{Organization: []string{"Istio"}})},
		"two organizations":              {subject(pkix.Name{Organization: []string{"Istio", "system:masters"}})},
		"an empty common name":           {attribute("", 2, 5, 4, 3)},
		"CA:FALSE":                       {basicConstraints(t, false, -1)},
		"digitalSignature":               {keyUsage(t, 0)},
		"keyEncipherment":                {keyUsage(t, 0, 2)},
		"both extended key usages":       {extKeyUsage(t, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2})},
		"a subject key identifier":       {with(false, []byte{0x04, 0x01, 0xff}, 2, 5, 29, 14)},
		"all of it": {uris(workload.String()), dns(workNames...), basicConstraints(t, false, -1), keyUsage(t, 0),
			subject(pkix.Name{CommonName: workload.String(), Organization: []string{"Istio"}})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, _ := namesSetup(t)
			leaf := issue(t, a, now, ca.Request{CSR: catest.CSR(t, key, edits...)})
			i := issued{shape: shape{dnsNames: workNames}, key: key, signer: a.Signer(), now: now, ttl: defaultTTL, chain: []*x509.Certificate{leaf}}
			checkSubject(t, i)
			checkNames(t, i)
			checkUsages(t, i)
			checkBasicConstraints(t, i)
			checkKeyIDs(t, i)
			checkExtensionSet(t, i)
		})
	}
}

func TestRequestIsReadAsPEMAndDER(t *testing.T) {
	der := workloadCSR(t)
	old := pem.EncodeToMemory(&pem.Block{Type: "NEW CERTIFICATE REQUEST", Bytes: der})
	for name, text := range map[string][]byte{
		"DER": der, "PEM": catest.CSRPEM(der), "the old PEM type": old,
		"text before the PEM":         append([]byte("Certificate Request:\n    Data:\n"), catest.CSRPEM(der)...),
		"blanks after the PEM":        append(catest.CSRPEM(der), "\n \t\r\n"...),
		"line ends of another system": bytes.ReplaceAll(catest.CSRPEM(der), []byte("\n"), []byte("\r\n")),
	} {
		a, _ := namesSetup(t)
		if _, err := a.Issue(now, caller, ca.Request{CSR: text}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformedRequestIsRefused(t *testing.T) {
	der := workloadCSR(t)
	text := catest.CSRPEM(der)
	for name, c := range map[string]struct {
		csr  []byte
		text string
	}{
		"nothing":                 {nil, "neither PEM nor DER"},
		"blanks":                  {[]byte("\n\n"), "neither PEM nor DER"},
		"garbage":                 {[]byte("hello"), "neither PEM nor DER"},
		"truncated PEM":           {text[:len(text)-30], "neither PEM nor DER"},
		"truncated DER":           {der[:len(der)-1], "does not parse"},
		"truncated DER in PEM":    {catest.CSRPEM(der[:len(der)/2]), "does not parse"},
		"an empty PEM block":      {catest.CSRPEM(nil), "does not parse"},
		"DER of something else":   {catest.SelfSigned(t, now, catest.TrustDomain).Cert().Raw, "does not parse"},
		"a certificate":           {catest.Root(t, now, catest.Spec{Name: "root"}).PEM(), `PEM block "CERTIFICATE" is no certificate request`},
		"a private key":           {catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, "workload")), `PEM block "PRIVATE KEY" is no certificate request`},
		"data after DER":          {append(bytes.Clone(der), 0), "does not parse"},
		"data after DER in PEM":   {catest.CSRPEM(append(bytes.Clone(der), 0)), "does not parse"},
		"data after PEM":          {append(bytes.Clone(text), 'x'), "followed by other data"},
		"two requests":            {append(bytes.Clone(text), text...), "followed by other data"},
		"oversized DER":           {append([]byte{0x30}, make([]byte, 16<<10)...), "larger than 16384"},
		"oversized PEM":           {append(bytes.Clone(text), bytes.Repeat([]byte("\n"), 16<<10)...), "larger than 16384"},
		"a hundred megabytes":     {make([]byte, 100<<20), "larger than 16384"},
		"a thousand names inside": {catest.CSR(t, catest.Key(t, trust.ECDSAP256, "workload"), dns(slices.Repeat(workNames[:1], 1000)...)), "larger than 16384"},
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, c.csr, c.text) })
	}
}

// tbs is CertificationRequestInfo of RFC 2986, for requests that crypto/x509
// would not write.
type tbs struct {
	Version    int
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Attributes []asn1.RawValue `asn1:"tag:0,set"`
}

type rawRequest struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// rsaRequest is a request with such an RSA key and a signature that is none:
// nobody needs to own the key to make one.
func rsaRequest(tb testing.TB, modulus *big.Int, exponent int) []byte {
	tb.Helper()
	key, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: modulus, E: exponent})
	if err != nil {
		tb.Fatal(err)
	}
	info := encode(tb, tbs{Subject: asn1.RawValue{FullBytes: []byte{0x30, 0}}, Key: asn1.RawValue{FullBytes: key}})
	return encode(tb, rawRequest{
		TBS:       asn1.RawValue{FullBytes: info},
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue},
		Signature: asn1.BitString{Bytes: make([]byte, 256), BitLength: 2048},
	})
}

func p224(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func ed25519Key(tb testing.TB) crypto.Signer {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// TestWeakKeyIsRefused: C-8. RSA keys without an owner show that keys are looked
// at before the signature: a check by a modulus of 16384 bits costs too much
// (section 9, point 5).
func TestWeakKeyIsRefused(t *testing.T) {
	modulus := func(bits uint) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return n.Add(n, big.NewInt(1))
	}
	for name, c := range map[string]struct {
		csr  []byte
		text string
	}{
		"RSA 1024":        {rsaRequest(t, modulus(1024), 65537), "RSA key of 1024 bits is too weak"},
		"RSA 16384":       {rsaRequest(t, modulus(16384), 65537), "RSA key of 16384 bits is too large"},
		"exponent 3":      {rsaRequest(t, modulus(2048), 3), "RSA public exponent 3 is not supported"},
		"an even modulus": {rsaRequest(t, new(big.Int).Add(modulus(2048), big.NewInt(1)), 65537), "RSA modulus is even"},
		"P-224":           {catest.CSR(t, p224(t)), "ECDSA curve P-224 is not supported"},
		"Ed25519":         {catest.CSR(t, ed25519Key(t)), "ed25519.PublicKey is not supported"},
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, c.csr, c.text) })
	}
}

// TestRequestMustBeSignedByItsKey: the ancestors did not check this until 2022.
// The signature is looked at last, so the records are those of a failure.
func TestRequestMustBeSignedByItsKey(t *testing.T) { // C-10
	good := workloadCSR(t)
	for name, csr := range map[string][]byte{
		"a changed signature":         editRequest(t, good, func(r *rawRequest) { r.Signature.Bytes[20] ^= 1 }),
		"no signature":                editRequest(t, good, func(r *rawRequest) { r.Signature = asn1.BitString{} }),
		"another key's signature":     editRequest(t, good, func(r *rawRequest) { r.Signature = parseRequest(t, otherCSR(t)).Signature }),
		"another request's signature": editRequest(t, good, func(r *rawRequest) { r.TBS = parseRequest(t, workloadCSRWithURI(t)).TBS }),
		"an unknown algorithm":        editRequest(t, good, func(r *rawRequest) { r.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 3} }),
		"MD5 with RSA": editRequest(t, good, func(r *rawRequest) {
			r.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}
		}),
		"an RSA key that nobody has": rsaRequest(t, catest.Key(t, trust.RSA2048, "victim").Public().(*rsa.PublicKey).N, 65537),
	} {
		t.Run(name, func(t *testing.T) {
			a, log := namesSetup(t)
			chain, err := a.Issue(now, caller, ca.Request{CSR: csr})
			wantClass(t, err, ca.CSRError, "is not signed by its own key")
			if chain != nil {
				t.Error("a chain came with the error")
			}
			checkStages(t, log, ca.AuditSigning, ca.AuditFailed)
		})
	}
}

func parseRequest(tb testing.TB, der []byte) rawRequest {
	tb.Helper()
	var r rawRequest
	if rest, err := asn1.Unmarshal(der, &r); err != nil || len(rest) > 0 {
		tb.Fatalf("read the request back: %v", err)
	}
	return r
}

func editRequest(tb testing.TB, der []byte, edit func(*rawRequest)) []byte {
	tb.Helper()
	r := parseRequest(tb, bytes.Clone(der))
	edit(&r)
	return encode(tb, r)
}

func otherCSR(tb testing.TB) []byte {
	tb.Helper()
	return catest.CSR(tb, catest.Key(tb, trust.ECDSAP256, "somebody else"))
}

func workloadCSRWithURI(tb testing.TB) []byte {
	tb.Helper()
	return catest.CSR(tb, catest.Key(tb, trust.ECDSAP256, "workload"), uris(workload.String()))
}

func TestErrorsOfRequestsStayShort(t *testing.T) {
	long := strings.Repeat("a", 8<<10)
	for name, edit := range map[string]edit{
		"DNS name": dns(long), "URI": uris("spiffe://" + long), "common name": subject(pkix.Name{CommonName: long}),
	} {
		a, _ := namesSetup(t)
		_, err := a.Issue(now, caller, ca.Request{CSR: catest.CSR(t, catest.Key(t, trust.ECDSAP256, "workload"), edit)})
		if err == nil || len(err.Error()) > 1<<10 {
			t.Errorf("%s: the error is nil, or longer than a kilobyte", name)
		}
	}
}

// TestKeysOfThisProcessAreCheckedToo: no CSR does not mean no policy (C-8).
func TestKeysOfThisProcessAreCheckedToo(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{})
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // refused is what it must be
	if err != nil {
		t.Fatal(err)
	}
	for name, req := range map[string]ca.Request{
		"weak": {Key: weak}, "Ed25519": {Key: ed25519Key(t)},
		"both": {Key: catest.Key(t, trust.ECDSAP256, "workload"), CSR: workloadCSR(t)},
	} {
		_, err := a.Issue(now, caller, req)
		if e, ok := errors.AsType[*ca.Error](err); !ok || e.Class != ca.CSRError {
			t.Errorf("%s: error is %v, want one of class %s", name, err, ca.CSRError)
		}
	}
}
