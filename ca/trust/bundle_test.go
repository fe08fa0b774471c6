package trust_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// now has a fraction of a second, as clocks do and certificates do not.
var now = time.Date(2026, 7, 14, 12, 34, 56, 789_000_000, time.UTC)

func roots(t *testing.T, names ...string) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for _, name := range names {
		certs = append(certs, catest.Root(t, now, catest.Spec{Name: name}).Cert)
	}
	return certs
}

func TestParseCertificatesKeepsTheOrder(t *testing.T) {
	certs := roots(t, "b", "a", "c")
	got, err := trust.ParseCertificates(trust.MarshalCertificates(certs))
	if err != nil || !slices.EqualFunc(got, certs, (*x509.Certificate).Equal) {
		t.Errorf("%d certificates came back, error %v", len(got), err)
	}
}

func TestParseCertificatesAllowsTextBetweenBlocks(t *testing.T) {
	one := trust.MarshalCertificates(roots(t, "a"))
	text := slices.Concat([]byte("subject=CN = a\n"), one, []byte("\nsubject=CN = a\n# spare\n"), one, []byte("\n\nend"))
	if got, err := trust.ParseCertificates(text); err != nil || len(got) != 2 {
		t.Errorf("%d certificates, error %v", len(got), err)
	}
}

func TestParseCertificatesRefuses(t *testing.T) {
	certs := roots(t, "a")
	one := string(trust.MarshalCertificates(certs))
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                       {"", "no PEM certificate"},
		"garbage":                       {"hello", "no PEM certificate"},
		"DER":                           {string(certs[0].Raw), "no PEM certificate"},
		"a private key":                 {one + string(catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, "a"))), `"PRIVATE KEY" where only certificates belong`},
		"a CRL":                         {string(block("X509 CRL", []byte("x"))) + one, `"X509 CRL" where only certificates belong`},
		"a trusted certificate":         {string(block("TRUSTED CERTIFICATE", certs[0].Raw)), "only certificates belong"},
		"a block that is no DER":        {one + string(block("CERTIFICATE", []byte("x"))), "certificate 2 does not parse"},
		"data after the DER":            {string(block("CERTIFICATE", append(bytes.Clone(certs[0].Raw), 0))), "certificate 1 does not parse"},
		"a block without its end":       {one + one[:len(one)-30], "damaged in certificate 2"},
		"a damaged block at the front":  {damaged([]byte(one)) + one, "damaged in certificate 1"},
		"a damaged block in the middle": {one + damaged([]byte(one)) + one, "damaged in certificate 2"},
		"a damaged block at the end":    {one + damaged([]byte(one)), "damaged in certificate 2"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := trust.ParseCertificates([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d certificates, error %v, want one with %q", len(got), err, c.want)
			}
		})
	}
}

func TestParseCertificatesBounds(t *testing.T) {
	one := trust.MarshalCertificates(roots(t, "a"))
	if _, err := trust.ParseCertificates(bytes.Repeat(one, 100)); err != nil {
		t.Errorf("100 certificates: %v", err)
	}
	if _, err := trust.ParseCertificates(bytes.Repeat(one, 101)); err == nil || !strings.Contains(err.Error(), "more than 100") {
		t.Errorf("101 certificates: %v", err)
	}
	padded := append(bytes.Clone(one), bytes.Repeat([]byte("\n"), 1<<20)...)
	if _, err := trust.ParseCertificates(padded); err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("more than a megabyte: %v", err)
	}
}

// TestMarshalCertificatesWritesBlocksAlone: kubelet and Envoy refuse text
// between the blocks and headers in them (K-15).
func TestMarshalCertificatesWritesBlocksAlone(t *testing.T) {
	certs := roots(t, "a", "b")
	rest := trust.MarshalCertificates(certs)
	for _, cert := range certs {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----\n")) {
			t.Fatalf("text between blocks: %.20q", rest)
		}
		var got *pem.Block
		got, rest = pem.Decode(rest)
		if len(got.Headers) > 0 || !bytes.Equal(got.Bytes, cert.Raw) {
			t.Error("a block has headers, or holds something else")
		}
	}
	if len(rest) > 0 {
		t.Errorf("%q follows the blocks", rest)
	}
}

func TestMergeRootsKeepsEachOnceInOrderOfAppearance(t *testing.T) {
	c := roots(t, "a", "b", "c")
	a, b, third := c[0], c[1], c[2]
	again := slices.Clone(roots(t, "a")) // another certificate of the same name and key
	type list = []*x509.Certificate
	for name, test := range map[string]struct {
		lists []list
		want  list
	}{
		"nothing":                 {nil, nil},
		"one list":                {[]list{{b, a}}, list{b, a}},
		"overlapping lists":       {[]list{{b, a}, {a, third, b}}, list{b, a, third}},
		"repetition in a list":    {[]list{{a, a}}, list{a}},
		"an empty list":           {[]list{{}, {a}, nil}, list{a}},
		"same name, another cert": {[]list{{a}, again}, list{a, again[0]}},
	} {
		if got := trust.MergeRoots(test.lists...); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %d certificates in another order, want %d", name, len(got), len(test.want))
		}
	}
}

func TestSameRootsIgnoresOrderAndRepetition(t *testing.T) {
	c := roots(t, "a", "b")
	a, b := c[0], c[1]
	type list = []*x509.Certificate
	for name, test := range map[string]struct {
		x, y list
		want bool
	}{
		"both empty":      {nil, list{}, true},
		"order":           {list{a, b}, list{b, a}, true},
		"repetition":      {list{a, a, b}, list{b, a}, true},
		"one more":        {list{a, b}, list{a}, false},
		"one less":        {list{a}, list{a, b}, false},
		"none against it": {nil, list{a}, false},
		"another":         {list{a}, list{b}, false},
	} {
		if got := trust.SameRoots(test.x, test.y); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestPoolHoldsWhatItIsGiven(t *testing.T) {
	root := catest.Root(t, now, catest.Spec{Name: "pool"})
	leaf := root.Leaf(t, now, workload)
	if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: trust.Pool([]*x509.Certificate{root.Cert}), CurrentTime: now}); err != nil {
		t.Errorf("with the root: %v", err)
	}
	if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: trust.Pool(nil), CurrentTime: now}); err == nil {
		t.Error("verifies without a root")
	}
}
