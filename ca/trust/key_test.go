package trust_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func mustDER(t *testing.T) func([]byte, error) []byte {
	t.Helper()
	return func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
}

// ecParameters is what `openssl ecparam -name prime256v1 -genkey` writes first.
var ecParameters = block("EC PARAMETERS", []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})

func TestParseKeyReadsEveryPEMType(t *testing.T) {
	rsaKey := catest.Key(t, trust.RSA2048, "parse").(*rsa.PrivateKey)
	ecKey := catest.Key(t, trust.ECDSAP256, "parse").(*ecdsa.PrivateKey)
	p384 := catest.Key(t, trust.ECDSAP384, "parse").(*ecdsa.PrivateKey)
	must := mustDER(t)
	sec1 := block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ecKey)))
	for name, c := range map[string]struct {
		text []byte
		want crypto.Signer
	}{
		"PKCS#8 RSA":                  {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey))), rsaKey},
		"PKCS#8 P-256":                {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ecKey))), ecKey},
		"PKCS#8 P-384":                {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p384))), p384},
		"PKCS#1":                      {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), rsaKey},
		"SEC 1":                       {sec1, ecKey},
		"SEC 1 after EC PARAMETERS":   {append(bytes.Clone(ecParameters), sec1...), ecKey},
		"SEC 1 before EC PARAMETERS":  {append(bytes.Clone(sec1), ecParameters...), ecKey},
		"text around the block":       {append([]byte("Private-Key: (256 bit)\n"), append(bytes.Clone(sec1), "\nbye\n"...)...), ecKey},
		"line ends of another system": {bytes.ReplaceAll(sec1, []byte("\n"), []byte("\r\n")), ecKey},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := trust.ParseKey(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if !trust.SamePublicKey(got.Public(), c.want.Public()) {
				t.Error("a different key came back")
			}
		})
	}
}

func TestParseKeyRefuses(t *testing.T) {
	key := catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, "refused"))
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agree := block("PRIVATE KEY", mustDER(t)(x509.MarshalPKCS8PrivateKey(x25519)))
	legacy := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("sealed"),
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}})
	body, _ := pem.Decode(key)
	for name, c := range map[string]struct{ text, want string }{
		"an empty text":              {"", "no PEM private key"},
		"garbage":                    {"not a key at all", "no PEM private key"},
		"a public key":               {string(block("PUBLIC KEY", []byte("x"))), "of another kind where a private key belongs"},
		"a certificate":              {string(block("CERTIFICATE", []byte("x"))), "a certificate where a private key belongs"},
		"a certificate after it":     {string(key) + string(block("CERTIFICATE", []byte("x"))), "a certificate where a private key belongs"},
		"EC parameters alone":        {string(ecParameters), "no PEM private key"},
		"two keys":                   {string(key) + string(key), "more than one private key"},
		"an encrypted PKCS#8 key":    {string(block("ENCRYPTED PRIVATE KEY", []byte("sealed"))), "encrypted"},
		"an encrypted PKCS#1 key":    {string(legacy), "encrypted"},
		"a key that cannot sign":     {string(agree), "cannot sign"},
		"PKCS#8 in a PKCS#1 block":   {string(block("RSA PRIVATE KEY", body.Bytes)), "does not parse"},
		"PKCS#8 in a SEC 1 block":    {string(block("EC PRIVATE KEY", body.Bytes)), "does not parse"},
		"a cut-off PKCS#8":           {string(block("PRIVATE KEY", body.Bytes[:40])), "does not parse"},
		"a key without its end":      {string(key[:len(key)-20]), "damaged"},
		"a damaged key before a key": {damaged(key) + string(key), "damaged"},
		"a damaged key after a key":  {string(key) + damaged(key), "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trust.ParseKey([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// weakKeys are keys that nothing may use, as PKCS#8 PEM.
func weakKeys(tb testing.TB) map[string][]byte {
	tb.Helper()
	small, rsaErr := rsa.GenerateKey(rand.Reader, 1024)
	p224, ecErr := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	_, ed, edErr := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(rsaErr, ecErr, edErr); err != nil {
		tb.Fatal(err)
	}
	return map[string][]byte{
		"RSA key of 1024 bits is too weak":      catest.KeyPEM(tb, small),
		"ECDSA curve P-224 is not supported":    catest.KeyPEM(tb, p224),
		"public key of type ed25519.PublicKey ": catest.KeyPEM(tb, ed),
	}
}

// damaged puts a character that is not base64 into a block's middle.
func damaged(text []byte) string {
	out := bytes.Clone(text)
	out[len(out)/2] = '!'
	return string(out)
}

// TestParseKeyNeverQuotesTheText: an operator's log must not learn the key,
// however the file was mangled.
func TestParseKeyNeverQuotesTheText(t *testing.T) {
	key := string(catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, "secret")))
	parsed, _ := pem.Decode([]byte(key))
	lines := strings.Split(strings.TrimSpace(key), "\n")
	body := strings.Join(lines[1:len(lines)-1], "")
	for name, text := range map[string]string{
		"all on one line":     strings.ReplaceAll(key, "\n", " "),
		"no line ends at all": strings.ReplaceAll(key, "\n", ""),
		"body alone":          body,
		"cut off":             key[:len(key)-10],
		"damaged":             damaged([]byte(key)),
		"twice":               key + key,
		"under a wrong type":  string(block("EC PRIVATE KEY", parsed.Bytes)),
		"half of it":          string(block("PRIVATE KEY", parsed.Bytes[:len(parsed.Bytes)/2])),
		"raw":                 string(parsed.Bytes),
		"as a block's name":   "-----BEGIN " + body + "-----\n-----END " + body + "-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trust.ParseKey([]byte(text))
			if err == nil {
				t.Fatal("was accepted")
			}
			if quote := commonPart(err.Error(), body); len(quote) > 7 {
				t.Errorf("error %q quotes %q of the key", err, quote)
			}
		})
	}
}

// commonPart returns the longest text that a and b share.
func commonPart(a, b string) string {
	longest := ""
	for i := range a {
		for n := len(longest) + 1; i+n <= len(a) && strings.Contains(b, a[i:i+n]); n++ {
			longest = a[i : i+n]
		}
	}
	return longest
}

func TestMarshalledKeysParseBack(t *testing.T) {
	for _, keyType := range []trust.KeyType{trust.ECDSAP256, trust.ECDSAP384, trust.RSA2048} {
		key := catest.Key(t, keyType, "marshal")
		for name, marshal := range map[string]func(crypto.Signer) ([]byte, error){
			"MarshalKey": trust.MarshalKey, "MarshalLegacyKey": trust.MarshalLegacyKey,
		} {
			t.Run(string(keyType)+" "+name, func(t *testing.T) {
				text, err := marshal(key)
				if err != nil {
					t.Fatal(err)
				}
				back, err := trust.ParseKey(text)
				if err != nil || !trust.SamePublicKey(back.Public(), key.Public()) {
					t.Errorf("a different key came back, error %v", err)
				}
			})
		}
	}
}

// TestKeyEncodings: PKCS#8 is what W-4 asks for; the older types are what
// Citadel 1.4 wrote.
func TestKeyEncodings(t *testing.T) {
	for keyType, legacy := range map[trust.KeyType]string{trust.ECDSAP256: "EC PRIVATE KEY", trust.RSA2048: "RSA PRIVATE KEY"} {
		key := catest.Key(t, keyType, "encoding")
		modern := mustDER(t)(trust.MarshalKey(key))
		old := mustDER(t)(trust.MarshalLegacyKey(key))
		if got, _ := pem.Decode(modern); got.Type != "PRIVATE KEY" {
			t.Errorf("MarshalKey of %s writes %q", keyType, got.Type)
		}
		if got, _ := pem.Decode(old); got.Type != legacy {
			t.Errorf("MarshalLegacyKey of %s writes %q", keyType, got.Type)
		}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.MarshalLegacyKey(ed); err == nil {
		t.Error("MarshalLegacyKey encodes an Ed25519 key")
	}
}

// modulus returns an odd number of that many bits, as an RSA key would have.
func modulus(bits uint) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return n.Add(n, big.NewInt(1))
}

func TestCheckPublicKeyRefusesWhatNoCertificateMayCarry(t *testing.T) { // C-8
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	even := new(big.Int).Sub(modulus(2048), big.NewInt(1))
	for name, c := range map[string]struct {
		key  crypto.PublicKey
		want string
	}{
		"RSA 1024":         {&rsa.PublicKey{N: modulus(1024), E: 65537}, "1024 bits is too weak"},
		"RSA 2047":         {&rsa.PublicKey{N: modulus(2047), E: 65537}, "2047 bits is too weak"},
		"RSA 8193":         {&rsa.PublicKey{N: modulus(8193), E: 65537}, "8193 bits is too large"},
		"RSA 16384":        {&rsa.PublicKey{N: modulus(16384), E: 65537}, "16384 bits is too large"},
		"exponent 1":       {&rsa.PublicKey{N: modulus(2048), E: 1}, "exponent 1 "},
		"exponent 3":       {&rsa.PublicKey{N: modulus(2048), E: 3}, "exponent 3 "},
		"an even exponent": {&rsa.PublicKey{N: modulus(2048), E: 65538}, "exponent 65538 "},
		"an even modulus":  {&rsa.PublicKey{N: even, E: 65537}, "modulus is even"},
		"P-224":            {p224.Public(), "P-224 is not supported"},
		"Ed25519":          {ed, "ed25519.PublicKey is not supported"},
		"no key":           {nil, "is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			err := trust.CheckPublicKey(c.key)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestCheckPublicKeyAccepts(t *testing.T) {
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.PublicKey{
		"P-256":    catest.Key(t, trust.ECDSAP256, "accepted").Public(),
		"P-384":    catest.Key(t, trust.ECDSAP384, "accepted").Public(),
		"P-521":    p521.Public(),
		"RSA 2048": &rsa.PublicKey{N: modulus(2048), E: 65537},
		"RSA 8192": &rsa.PublicKey{N: modulus(8192), E: 65537},
	} {
		if err := trust.CheckPublicKey(key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseKeyType(t *testing.T) {
	for _, keyType := range trust.KeyTypes {
		if got, err := trust.ParseKeyType(strings.ToUpper(string(keyType))); err != nil || got != keyType {
			t.Errorf("%s reads as %q, error %v", keyType, got, err)
		}
	}
	for _, wrong := range []string{"", "rsa", "rsa-1024", "ed25519", "ecdsa-p224"} {
		if _, err := trust.ParseKeyType(wrong); err == nil {
			t.Errorf("%q is taken as a key type", wrong)
		}
	}
}

func TestZeroKeyTypeGeneratesNothing(t *testing.T) {
	if key, err := trust.KeyType("").Generate(); err == nil {
		t.Errorf("generated a %T", key)
	}
}

func TestGeneratedKeysPassOurOwnCheck(t *testing.T) {
	for _, keyType := range []trust.KeyType{trust.ECDSAP256, trust.ECDSAP384, trust.RSA2048, trust.RSA3072} {
		if err := trust.CheckPublicKey(catest.Key(t, keyType, "generated").Public()); err != nil {
			t.Errorf("%s: %v", keyType, err)
		}
	}
}

func TestSamePublicKey(t *testing.T) {
	a, b := catest.Key(t, trust.ECDSAP256, "a").Public(), catest.Key(t, trust.ECDSAP256, "b").Public()
	r := catest.Key(t, trust.RSA2048, "a").Public()
	for name, c := range map[string]struct {
		a, b crypto.PublicKey
		want bool
	}{
		"itself": {a, a, true}, "another": {a, b, false}, "another algorithm": {a, r, false}, "nothing": {nil, nil, false},
	} {
		if got := trust.SamePublicKey(c.a, c.b); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestKeyTypeIs(t *testing.T) {
	for _, made := range []trust.KeyType{trust.ECDSAP256, trust.ECDSAP384, trust.RSA2048} {
		key, err := made.Generate()
		if err != nil {
			t.Fatal(err)
		}
		for _, asked := range trust.KeyTypes {
			if asked.Is(key.Public()) != (asked == made) {
				t.Errorf("a key of %s is %s: %t", made, asked, asked.Is(key.Public()))
			}
		}
	}
	if trust.ECDSAP256.Is(nil) {
		t.Error("no key is one")
	}
}
