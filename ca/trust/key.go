package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// KeyType names an algorithm and size of a private key. The zero value names
// none, and generates none.
type KeyType string

// The key types that Citadel makes. P-256 is the default everywhere: it costs
// a few microseconds where RSA costs tens of milliseconds.
const (
	ECDSAP256 KeyType = "ecdsa-p256"
	ECDSAP384 KeyType = "ecdsa-p384"
	RSA2048   KeyType = "rsa-2048"
	RSA3072   KeyType = "rsa-3072"
	RSA4096   KeyType = "rsa-4096"
)

// KeyTypes lists the key types that ParseKeyType accepts.
var KeyTypes = []KeyType{ECDSAP256, ECDSAP384, RSA2048, RSA3072, RSA4096}

// ParseKeyType reads the name of a key type, as flags carry it.
func ParseKeyType(s string) (KeyType, error) {
	if t := KeyType(strings.ToLower(s)); slices.Contains(KeyTypes, t) {
		return t, nil
	}
	return "", fmt.Errorf("unknown key type %q: use one of %v", s, KeyTypes)
}

// Generate makes a new private key of this type.
func (t KeyType) Generate() (crypto.Signer, error) {
	switch t {
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("generate a key of unknown type %q", t)
}

// Bounds of RSA moduli, in bits. Below the lower one keys are weak; above the
// upper one a single check of a signature costs more than a caller may ask.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// CheckPublicKey refuses keys that no certificate of ours may carry: RSA
// outside 2048 to 8192 bits or with an exponent below 65537, curves other than
// P-256, P-384 and P-521, and every other algorithm (C-8).
func CheckPublicKey(pub crypto.PublicKey) error {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		return checkRSA(key)
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("ECDSA curve %s is not supported: use P-256, P-384 or P-521", key.Curve.Params().Name)
	}
	return fmt.Errorf("public key of type %T is not supported: use ECDSA P-256 or RSA 2048", pub)
}

// checkCost refuses RSA keys with which one check of a signature takes so long
// that whoever planted the certificate holds us up. Weak ones are let through
// here: what they are good for is decided elsewhere.
func checkCost(pub crypto.PublicKey) error {
	if key, ok := pub.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
		return fmt.Errorf("RSA key of %d bits is too large: use at most %d", key.N.BitLen(), maxRSABits)
	}
	return nil
}

func checkRSA(key *rsa.PublicKey) error {
	switch bits := key.N.BitLen(); {
	case bits < minRSABits:
		return fmt.Errorf("RSA key of %d bits is too weak: use at least %d", bits, minRSABits)
	case bits > maxRSABits:
		return fmt.Errorf("RSA key of %d bits is too large: use at most %d", bits, maxRSABits)
	case key.N.Bit(0) == 0:
		return errors.New("RSA modulus is even")
	case key.E < 65537 || key.E%2 == 0:
		return fmt.Errorf("RSA public exponent %d is not supported: use 65537", key.E)
	}
	return nil
}

// SamePublicKey tells whether two public keys are one.
func SamePublicKey(a, b crypto.PublicKey) bool {
	eq, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && eq.Equal(b)
}

// MarshalKey encodes a private key as PKCS#8 PEM ("PRIVATE KEY"), the only
// encoding that go-spiffe and the SPIFFE Workload API read.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key as PKCS#8: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// MarshalLegacyKey encodes a private key as Citadel up to 1.4 did: PKCS#1 for
// RSA ("RSA PRIVATE KEY"), SEC 1 for ECDSA ("EC PRIVATE KEY").
func MarshalLegacyKey(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("encode private key as SEC 1: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
	}
	return nil, fmt.Errorf("no encoding but PKCS#8 for a private key of type %T", key)
}

// ParseKey reads the one private key of a PEM text, of any of the three
// unencrypted encodings. Its errors never quote the text.
func ParseKey(text []byte) (crypto.Signer, error) {
	var found crypto.Signer
	for {
		block, rest, err := NextBlock(text)
		if err != nil {
			return nil, fmt.Errorf("is damaged: %w", err)
		}
		if block == nil {
			break
		}
		text = rest
		if block.Type == "EC PARAMETERS" {
			continue // openssl writes one before an EC PRIVATE KEY
		}
		key, err := parseKeyBlock(block)
		if err != nil {
			return nil, err
		}
		if found != nil {
			return nil, errors.New("holds more than one private key")
		}
		found = key
	}
	if found == nil {
		return nil, errors.New("holds no PEM private key")
	}
	return found, nil
}

// maxKeyBytes is above an RSA-8192 key in PKCS#8. A larger text is refused
// before it is parsed: parsing computes with what it reads.
const maxKeyBytes = 8 << 10

func parseKeyBlock(block *pem.Block) (crypto.Signer, error) {
	if len(block.Bytes) > maxKeyBytes {
		return nil, fmt.Errorf("private key is larger than %d bytes", maxKeyBytes)
	}
	if block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, errors.New("private key is encrypted: store it decrypted")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "CERTIFICATE":
		return nil, errors.New("holds a certificate where a private key belongs")
	default: // its type is not quoted: a mangled key may stand there
		return nil, errors.New("holds a PEM block of another kind where a private key belongs")
	}
	if err != nil {
		return nil, fmt.Errorf("private key does not parse: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T cannot sign", key)
	}
	return signer, nil
}

// Is tells whether a public key is of this type.
func (t KeyType) Is(pub crypto.PublicKey) bool {
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		return t == ECDSAP256 && key.Curve == elliptic.P256() || t == ECDSAP384 && key.Curve == elliptic.P384()
	case *rsa.PublicKey:
		return t == KeyType(fmt.Sprintf("rsa-%d", key.N.BitLen()))
	}
	return false
}
