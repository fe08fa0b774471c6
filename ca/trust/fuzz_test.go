package trust_test

import (
	"bytes"
	"strings"
	"testing"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// FuzzParseCertificates: whatever is accepted is all that the text holds, and
// comes back from what we write.
func FuzzParseCertificates(f *testing.F) {
	one := catest.Root(f, now, catest.Spec{Name: "fuzz"}).PEM()
	for _, seed := range [][]byte{
		nil, one, append(bytes.Clone(one), one...), one[:len(one)/2], append([]byte("text\n"), one...),
		append([]byte(damaged(one)), one...), block("PRIVATE KEY", []byte("x")), block("CERTIFICATE", []byte("x")),
		[]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN "),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := trust.ParseCertificates(text)
		if err != nil {
			return
		}
		if n := bytes.Count(text, []byte("-----BEGIN")); len(certs) != n || n == 0 || n > 100 {
			t.Fatalf("%d certificates from %d blocks", len(certs), n)
		}
		back, err := trust.ParseCertificates(trust.MarshalCertificates(certs))
		if err != nil || !trust.SameRoots(certs, back) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}

// FuzzParseKey: no text makes it panic, what is accepted signs and comes back,
// and no error quotes the text.
func FuzzParseKey(f *testing.F) {
	key := catest.KeyPEM(f, catest.Key(f, trust.ECDSAP256, "fuzz"))
	legacy, err := trust.MarshalLegacyKey(catest.Key(f, trust.RSA2048, "fuzz"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		nil, key, legacy, ecParameters, append(bytes.Clone(key), key...), key[:len(key)/2], []byte(damaged(key)),
		block("ENCRYPTED PRIVATE KEY", []byte("x")),
	} {
		f.Add(seed)
	}
	for _, weak := range weakKeys(f) {
		f.Add(weak)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := trust.ParseKey(text)
		if err != nil {
			checkQuotesNothing(t, err, text)
			return
		}
		if trust.CheckPublicKey(key.Public()) != nil {
			return
		}
		written, err := trust.MarshalKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := trust.ParseKey(written); err != nil || !trust.SamePublicKey(back.Public(), key.Public()) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}

// checkQuotesNothing looks for whole lines: base64 has 64 characters in each.
func checkQuotesNothing(t *testing.T, err error, text []byte) {
	t.Helper()
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); len(line) >= 32 && !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line) {
			t.Fatalf("error %q quotes the text", err)
		}
	}
}
