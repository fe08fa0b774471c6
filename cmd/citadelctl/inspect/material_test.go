package inspect

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/secretcontroller"
)

func TestParseFile(t *testing.T) {
	p := newPKI(t)
	chain := slices.Concat(p.leaf.PEM(), p.issuer.PEM())
	key := catest.KeyPEM(t, p.leaf.Key)
	legacy, err := trust.MarshalLegacyKey(p.leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	parameters := []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n")
	csr := catest.CSRPEM(catest.CSR(t, p.leaf.Key))
	for name, c := range map[string]struct {
		text              []byte
		chain, bundle     int
		key               bool
		problems, remarks string
	}{
		"chain":               {chain, 2, 0, false, "", ""},
		"text around":         {slices.Concat([]byte("subject=x\n"), chain, []byte("\nend\n")), 2, 0, false, "", ""},
		"chain and key":       {slices.Concat(chain, key), 2, 0, true, "", ""},
		"key and chain":       {slices.Concat(key, chain), 2, 0, true, "", ""},
		"as openssl writes":   {slices.Concat(parameters, legacy, chain), 2, 0, true, "", ""},
		"two keys":            {slices.Concat(key, chain, key), 2, 0, false, "key-damaged", ""},
		"a request beside it": {slices.Concat(chain, csr), 2, 0, false, "", "other-block"},
		"root":                {p.root.PEM(), 0, 1, false, "", ""},
		"roots":               {slices.Concat(p.root.PEM(), p.root.PEM()), 0, 2, false, "", ""},
		"root before leaf":    {slices.Concat(p.root.PEM(), p.leaf.PEM()), 2, 0, false, "", ""},
		"DER":                 {p.leaf.Cert.Raw, 1, 0, false, "", ""},
		"DER of two":          {slices.Concat(p.leaf.Cert.Raw, p.issuer.Cert.Raw), 2, 0, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseFile("x.pem", c.text)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Chain) != c.chain || len(m.Bundle) != c.bundle || (m.Key != nil) != c.key {
				t.Errorf("got %d in the chain, %d roots, key %v", len(m.Chain), len(m.Bundle), m.Key != nil)
			}
			if got := strings.Join(codes(m.Problems), " "); got != c.problems {
				t.Errorf("problems are %q", got)
			}
			if got := strings.Join(codes(m.Remarks), " "); got != c.remarks {
				t.Errorf("remarks are %q", got)
			}
		})
	}
}

func TestParseFileRefuses(t *testing.T) {
	p := newPKI(t)
	leaf := p.leaf.PEM()
	bad := bytes.Clone(leaf)
	bad[len(bad)/2] = '!'
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":              {nil, "x.pem is empty"},
		"blanks":               {[]byte(" \n"), "x.pem is empty"},
		"words":                {[]byte("hello"), "x.pem holds no certificate: neither PEM (-----BEGIN CERTIFICATE-----) nor DER"},
		"DER cut short":        {p.leaf.Cert.Raw[:100], "x.pem holds no certificate: neither PEM (-----BEGIN CERTIFICATE-----) nor DER"},
		"bad base64":           {bad, "x.pem is damaged: a PEM block has no end or does not decode"},
		"bad base64 among two": {slices.Concat(leaf, bad), "x.pem is damaged: a PEM block has no end or does not decode"},
		"cut short":            {leaf[:len(leaf)-30], "x.pem is damaged: a PEM block has no end or does not decode"},
		"a key alone":          {catest.KeyPEM(t, p.leaf.Key), "x.pem holds a private key and no certificate: give the file of the certificate"},
		"a request":            {catest.CSRPEM(catest.CSR(t, p.leaf.Key)), "x.pem holds no certificate, but PEM blocks of another kind"},
		"no DER inside":        {[]byte("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"), "x.pem certificate 1 does not parse: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseFile("x.pem", c.text)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error is %v, want %s", err, c.want)
			}
		})
	}
}

// TestParseFileKeepsKeys: nothing of a key shows, however it is damaged.
func TestParseFileKeepsKeys(t *testing.T) {
	p := newPKI(t)
	key := catest.KeyPEM(t, p.leaf.Key)
	secret := string(bytes.Split(key, []byte("\n"))[1])
	for name, text := range map[string][]byte{
		"no end":        slices.Concat(p.leaf.PEM(), key[:len(key)-40]),
		"wrong label":   slices.Concat(p.leaf.PEM(), bytes.ReplaceAll(key, []byte("PRIVATE KEY"), []byte(secret))),
		"no lines":      slices.Concat(p.leaf.PEM(), bytes.ReplaceAll(key, []byte("\n"), nil)),
		"half a key":    slices.Concat(p.leaf.PEM(), []byte("-----BEGIN PRIVATE KEY-----\n"+secret+"\n-----END PRIVATE KEY-----\n")),
		"called a cert": bytes.ReplaceAll(key, []byte("PRIVATE KEY"), []byte("CERTIFICATE")),
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseFile("x.pem", text)
			said := ""
			if err != nil {
				said = err.Error()
			}
			for _, f := range append(m.Problems, m.Remarks...) {
				said += f.Message
			}
			if said == "" || strings.Contains(said, secret[:10]) {
				t.Errorf("said %q", said)
			}
		})
	}
}

func secretOf(name string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Type: kind, Data: data}
}

func TestParseSecret(t *testing.T) {
	p := newPKI(t)
	root, issuer, chain := p.root.PEM(), p.issuer.PEM(), slices.Concat(p.leaf.PEM(), p.issuer.PEM())
	key, issuerKey, rootKey := catest.KeyPEM(t, p.leaf.Key), catest.KeyPEM(t, p.issuer.Key), catest.KeyPEM(t, p.root.Key)
	workload := map[string][]byte{"cert-chain.pem": chain, "key.pem": key, "root-cert.pem": root}
	for name, c := range map[string]struct {
		secret            *corev1.Secret
		problems, remarks string
	}{
		"workload":                {secretOf("istio.sleep", secretcontroller.SecretType, workload), "", ""},
		"workload without key":    {secretOf("istio.sleep", secretcontroller.SecretType, without(workload, "key.pem")), "key-missing", ""},
		"workload without roots":  {secretOf("istio.sleep", secretcontroller.SecretType, without(workload, "root-cert.pem")), "roots-missing", "not-verified"},
		"workload, bad roots":     {secretOf("istio.sleep", secretcontroller.SecretType, with(workload, "root-cert.pem", key)), "roots-damaged", "not-verified"},
		"workload, bad key":       {secretOf("istio.sleep", secretcontroller.SecretType, with(workload, "key.pem", root)), "key-damaged", ""},
		"workload with a CA's":    {secretOf("istio.sleep", secretcontroller.SecretType, map[string][]byte{"cert-chain.pem": issuer, "key.pem": issuerKey, "root-cert.pem": root}), "no-digital-signature no-spiffe-id workload-is-ca workload-signs", "ext-key-usage-missing long-life"},
		"self-signed CA":          {secretOf(kube.CASecret, kube.CASecretType, map[string][]byte{"ca-cert.pem": root, "ca-key.pem": rootKey}), "", ""},
		"self-signed CA, no key":  {secretOf(kube.CASecret, kube.CASecretType, map[string][]byte{"ca-cert.pem": root}), "cannot-sign key-missing", ""},
		"self-signed CA is none":  {secretOf(kube.CASecret, kube.CASecretType, map[string][]byte{"ca-cert.pem": p.leaf.PEM(), "ca-key.pem": key}), "ca-cannot-sign ca-with-path ca-without-subject cannot-sign not-a-ca roots-missing", "ca-ext-key-usage not-verified"},
		"plugged CA":              {secretOf(kube.PluggedSecret, "", map[string][]byte{"ca-cert.pem": issuer, "ca-key.pem": issuerKey, "cert-chain.pem": issuer, "root-cert.pem": root}), "", ""},
		"plugged CA without root": {secretOf(kube.PluggedSecret, "", map[string][]byte{"ca-cert.pem": issuer, "ca-key.pem": issuerKey}), "cannot-sign roots-missing", "not-verified"},
		"plugged CA, bad chain":   {secretOf(kube.PluggedSecret, "", map[string][]byte{"ca-cert.pem": issuer, "ca-key.pem": issuerKey, "cert-chain.pem": key, "root-cert.pem": root}), "cannot-sign chain-damaged", ""},
		"plugged CA, other key":   {secretOf(kube.PluggedSecret, "", map[string][]byte{"ca-cert.pem": issuer, "ca-key.pem": key, "root-cert.pem": root}), "cannot-sign key-mismatch", ""},
		"cert-manager's CA":       {secretOf(kube.PluggedSecret, corev1.SecretTypeTLS, map[string][]byte{"tls.crt": issuer, "tls.key": issuerKey, "ca.crt": root}), "", ""},
		"any TLS":                 {secretOf("web", corev1.SecretTypeTLS, map[string][]byte{"tls.crt": chain, "tls.key": key}), "", "not-verified"},
		"any TLS with roots":      {secretOf("web", corev1.SecretTypeTLS, map[string][]byte{"tls.crt": chain, "tls.key": key, "ca.crt": root}), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseSecret(c.secret)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, Inspect(now, m, Roots{}), c.problems, c.remarks)
		})
	}
}

func without(data map[string][]byte, key string) map[string][]byte { return with(data, key, nil) }

func with(data map[string][]byte, key string, value []byte) map[string][]byte {
	out := map[string][]byte{key: value}
	for k, v := range data {
		if k != key {
			out[k] = v
		}
	}
	return out
}

func TestParseSecretRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		data map[string][]byte
		want string
	}{
		"other keys":  {map[string][]byte{"b": nil, "a": nil}, "secret/ns/x holds no certificate: of cert-chain.pem, ca-cert.pem and tls.crt it has none; its keys are: a, b"},
		"empty chain": {map[string][]byte{"cert-chain.pem": nil}, "secret/ns/x: cert-chain.pem holds no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseSecret(secretOf("x", "", c.data)); err == nil || err.Error() != c.want {
				t.Errorf("error is %v, want %s", err, c.want)
			}
		})
	}
}

// FuzzInspect: no file brings the inspection down.
func FuzzInspect(f *testing.F) {
	for _, text := range []string{"", "-----BEGIN", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"} {
		f.Add([]byte(text))
	}
	root, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: catest.TrustDomain, KeyType: trust.ECDSAP256, Lifetime: time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(root.RootsPEM())
	f.Add(root.Cert().Raw)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(root.Cert().Raw) + "\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseFile("x", text)
		if err != nil {
			return
		}
		if r := Inspect(now, m, Roots{}); len(r.Certificates) == 0 || r.Right != (len(r.Problems) == 0) {
			t.Errorf("report is %+v", r)
		}
	})
}
