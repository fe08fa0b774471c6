package trust_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

var workload = spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")

// operator is a CA of three levels, in pieces that bear an operator's names.
type operator struct {
	root, policy, issuing *catest.Issuer
	pieces                trust.Pieces
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{root: catest.Root(t, now, catest.Spec{Name: "root"})}
	o.policy = o.root.Intermediate(t, now, catest.Spec{Name: "policy"})
	o.issuing = o.policy.Intermediate(t, now, catest.Spec{Name: "issuing"})
	o.pieces = o.issuing.Pieces(t)
	return o
}

func join(issuers ...*catest.Issuer) []byte {
	var out []byte
	for _, i := range issuers {
		out = append(out, i.PEM()...)
	}
	return out
}

func noAuthority(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }
func noCertSign(c *x509.Certificate)  { c.KeyUsage = x509.KeyUsageCRLSign }
func expired(c *x509.Certificate)     { c.NotAfter = now.Add(-time.Minute) }
func bySHA1(c *x509.Certificate)      { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }
func notYetValid(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }

// The roles that messages give to the pieces, and the names of catest.
const (
	certPiece  = "signing certificate ca-cert.pem: "
	keyPiece   = "signing key ca-key.pem: "
	chainPiece = "certificate chain cert-chain.pem: "
	rootsPiece = "root certificates root-cert.pem: "
)

// mistake is what an operator does wrong, and how the message must begin and
// go on.
type mistake struct {
	name        string
	make        func(*testing.T, *operator)
	piece, text string
}

// resign makes the issuing CA anew below the policy CA, with an edit.
func (o *operator) resign(t *testing.T, edit func(*x509.Certificate)) {
	t.Helper()
	o.pieces = o.policy.Intermediate(t, now, catest.Spec{Name: "issuing", Edit: edit}).Pieces(t)
}

// restack makes the whole CA anew, with an edit of the root and of the policy CA.
func (o *operator) restack(t *testing.T, root, policy func(*x509.Certificate)) {
	t.Helper()
	o.root = catest.Root(t, now, catest.Spec{Name: "root", Edit: root})
	o.policy = o.root.Intermediate(t, now, catest.Spec{Name: "policy", Edit: policy})
	o.issuing = o.policy.Intermediate(t, now, catest.Spec{Name: "issuing"})
	o.pieces = o.issuing.Pieces(t)
}

var missingPieces = []mistake{
	{"no signing certificate", func(_ *testing.T, o *operator) { o.pieces.Cert.PEM = nil }, certPiece, "missing or empty"},
	{"no key", func(_ *testing.T, o *operator) { o.pieces.Key.PEM = nil }, keyPiece, "missing or empty"},
	{"no chain, though it is needed", func(_ *testing.T, o *operator) { o.pieces.Chain.PEM = nil }, rootsPiece, "does not reach the root"},
	{"no roots", func(_ *testing.T, o *operator) { o.pieces.Roots.PEM = []byte{} }, rootsPiece, "missing or empty"},
	{"a signing certificate of blanks", func(_ *testing.T, o *operator) { o.pieces.Cert.PEM = []byte("\n\n") }, certPiece, "no PEM certificate"},
	{"a key of blanks", func(_ *testing.T, o *operator) { o.pieces.Key.PEM = []byte("\n\n") }, keyPiece, "no PEM private key"},
	{"a chain of blanks", func(_ *testing.T, o *operator) { o.pieces.Chain.PEM = []byte("\n") }, chainPiece, "no PEM certificate"},
	{"roots of blanks", func(_ *testing.T, o *operator) { o.pieces.Roots.PEM = []byte("\n") }, rootsPiece, "no PEM certificate"},
}

var swappedPieces = []mistake{
	{"the key where the certificate belongs", func(_ *testing.T, o *operator) { o.pieces.Cert.PEM = o.pieces.Key.PEM }, certPiece, "PRIVATE KEY"},
	{"the certificate where the key belongs", func(_ *testing.T, o *operator) { o.pieces.Key.PEM = o.pieces.Cert.PEM }, keyPiece, "holds a certificate"},
	{"a private key in the root file", func(_ *testing.T, o *operator) {
		o.pieces.Roots.PEM = append(bytes.Clone(o.pieces.Roots.PEM), o.pieces.Key.PEM...)
	}, rootsPiece, "PRIVATE KEY"},
	{"a private key in the chain file", func(_ *testing.T, o *operator) {
		o.pieces.Chain.PEM = append(bytes.Clone(o.pieces.Chain.PEM), o.pieces.Key.PEM...)
	}, chainPiece, "PRIVATE KEY"},
	{"another certificate's key", func(t *testing.T, o *operator) {
		o.pieces.Key.PEM = catest.KeyPEM(t, o.policy.Key)
	}, keyPiece, "the cert does not match the key: it is not the key of ca-cert.pem"},
	{"another algorithm's key", func(t *testing.T, o *operator) {
		o.pieces.Key.PEM = catest.KeyPEM(t, catest.Key(t, trust.RSA2048, "issuing"))
	}, keyPiece, "the cert does not match the key"},
	{"the root's certificate with the issuing key", func(_ *testing.T, o *operator) { o.pieces.Cert.PEM = o.root.PEM() }, keyPiece, "does not match"},
}

var wrongChains = []mistake{
	{"the chain in the wrong order", func(_ *testing.T, o *operator) {
		o.pieces.Chain.PEM = join(o.root, o.policy, o.issuing)
	}, chainPiece, "wrong order: CN=root,O=Operator did not sign CN=issuing,O=Operator"},
	{"the chain in the wrong order in the certificate's file", func(_ *testing.T, o *operator) {
		o.pieces.Cert.PEM, o.pieces.Chain.PEM = join(o.issuing, o.root, o.policy), nil
	}, certPiece, "wrong order"},
	{"a chain without the nearest issuer", func(_ *testing.T, o *operator) { o.pieces.Chain.PEM = o.root.PEM() }, chainPiece, "wrong order"},
	{"a stranger in the chain", func(t *testing.T, o *operator) {
		o.pieces.Chain.PEM = join(o.policy, catest.Root(t, now, catest.Spec{Name: "stranger"}))
	}, chainPiece, "CN=stranger,O=Operator did not sign CN=policy,O=Operator"},
	{"a chain to a root of the same name and another key", func(t *testing.T, o *operator) {
		other := catest.Root(t, now, catest.Spec{Name: "root", KeyType: trust.ECDSAP384})
		o.pieces.Roots.PEM = other.PEM()
	}, rootsPiece, "does not reach the root"},
	{"a chain that ends with a root that peers are not told of", func(t *testing.T, o *operator) {
		o.pieces.Chain.PEM = join(o.policy, o.root)
		o.pieces.Roots.PEM = catest.Root(t, now, catest.Spec{Name: "other"}).PEM()
	}, rootsPiece, "does not reach the root: no root here is or signed CN=root,O=Operator"},
	{"an intermediate among the roots in place of its root", func(_ *testing.T, o *operator) {
		o.pieces.Roots.PEM = o.policy.PEM()
	}, rootsPiece, "a root is signed by itself"},
	{"the signing certificate as its own root", func(_ *testing.T, o *operator) {
		o.pieces.Chain.PEM, o.pieces.Roots.PEM = nil, o.issuing.PEM()
	}, rootsPiece, "a root is signed by itself"},
	{"an issuing CA signed by a leaf", func(t *testing.T, o *operator) {
		leaf := o.root.Leaf(t, now, workload)
		o.pieces = leaf.Intermediate(t, now, catest.Spec{Name: "issuing"}).Pieces(t)
	}, chainPiece, "it is no CA"},
}

var wrongCertificates = []mistake{
	{"a signing certificate that is no CA", func(t *testing.T, o *operator) { o.resign(t, noAuthority) }, certPiece, "not authorized to sign other certificates: it is no CA"},
	{"a signing certificate without keyCertSign", func(t *testing.T, o *operator) { o.resign(t, noCertSign) }, certPiece, "not authorized to sign other certificates: its key usage lacks keyCertSign"},
	{"an expired signing certificate", func(t *testing.T, o *operator) { o.resign(t, expired) }, certPiece, "expired at 2026-07-14T12:33:56Z, now is 2026-07-14T12:34:56Z"},
	{"a signing certificate not yet valid", func(t *testing.T, o *operator) { o.resign(t, notYetValid) }, certPiece, "not valid before 2026-07-14T12:35:56Z"},
	{"an intermediate that is no CA", func(t *testing.T, o *operator) { o.restack(t, nil, noAuthority) }, chainPiece, "it is no CA"},
	{"an intermediate without keyCertSign", func(t *testing.T, o *operator) { o.restack(t, nil, noCertSign) }, chainPiece, "keyCertSign"},
	{"an expired intermediate", func(t *testing.T, o *operator) { o.restack(t, nil, expired) }, chainPiece, "CN=policy,O=Operator: expired at"},
	{"an intermediate not yet valid", func(t *testing.T, o *operator) { o.restack(t, nil, notYetValid) }, chainPiece, "CN=policy,O=Operator: is not valid before"},
	{"a root that is no CA", func(t *testing.T, o *operator) {
		o.pieces.Roots.PEM = join(o.root, o.root.Leaf(t, now, workload))
	}, rootsPiece, "certificate 2 (spiffe://cluster.local/ns/default/sa/sleep): it is no CA"},
	{"a root without keyCertSign", func(t *testing.T, o *operator) { o.restack(t, noCertSign, nil) }, rootsPiece, "certificate 1 (CN=root,O=Operator): its key usage lacks keyCertSign"},
	{"an expired root", func(t *testing.T, o *operator) { o.restack(t, expired, nil) }, rootsPiece, "expired at"},
	{"a root not yet valid", func(t *testing.T, o *operator) { o.restack(t, notYetValid, nil) }, rootsPiece, "is not valid before"},
	{"a signing certificate signed by SHA-1", func(t *testing.T, o *operator) { o.resign(t, bySHA1) }, certPiece, "CN=issuing,O=Operator: it is signed by ECDSA-SHA1, an algorithm that is not accepted"},
	{"an intermediate signed by SHA-1", func(t *testing.T, o *operator) { o.restack(t, nil, bySHA1) }, chainPiece, "CN=policy,O=Operator: it is signed by ECDSA-SHA1, an algorithm that is not accepted"},
	{"an intermediate signed by SHA-1, its root in the chain", func(t *testing.T, o *operator) {
		o.restack(t, nil, bySHA1)
		o.pieces.Chain.PEM = join(o.policy, o.root)
	}, chainPiece, "CN=policy,O=Operator: it is signed by ECDSA-SHA1"},
	{"an expired root at the end of the chain", func(t *testing.T, o *operator) {
		o.restack(t, expired, nil)
		o.pieces.Chain.PEM = join(o.policy, o.root)
	}, chainPiece, "CN=root,O=Operator: expired at"},
}

func TestNewSignerNamesTheFaultyPiece(t *testing.T) {
	for group, mistakes := range map[string][]mistake{
		"missing": missingPieces, "swapped": swappedPieces, "chain": wrongChains, "certificate": wrongCertificates,
	} {
		for _, m := range mistakes {
			t.Run(group+"/"+m.name, func(t *testing.T) {
				o := newOperator(t)
				m.make(t, o)
				_, err := trust.NewSigner(now, o.pieces)
				if err == nil || !strings.HasPrefix(err.Error(), m.piece) || !strings.Contains(err.Error(), m.text) {
					t.Errorf("error %v,\nwant one that begins %q and has %q", err, m.piece, m.text)
				}
			})
		}
	}
}

func TestNewSignerRefusesWeakKeys(t *testing.T) { // C-8
	for want, text := range weakKeys(t) {
		pieces := newOperator(t).pieces
		pieces.Key.PEM = text
		if _, err := trust.NewSigner(now, pieces); err == nil || !strings.HasPrefix(err.Error(), keyPiece+want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestSigningCertificateIsGoodToItsLastSecond(t *testing.T) { // both ends count
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	for name, c := range map[string]struct {
		at   time.Time
		good bool
	}{
		"first second":       {root.Cert.NotBefore, true},
		"before the first":   {root.Cert.NotBefore.Add(-time.Nanosecond), false},
		"last second":        {root.Cert.NotAfter, true},
		"after the last one": {root.Cert.NotAfter.Add(time.Second), false},
	} {
		if _, err := trust.NewSigner(c.at, root.Pieces(t)); (err == nil) != c.good {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestNewSignerTakesTheShapesOperatorsHave checks the chain that leaves are
// sent with: signing certificate first, no root.
func TestNewSignerTakesTheShapesOperatorsHave(t *testing.T) {
	for name, c := range goodShapes {
		t.Run(name, func(t *testing.T) {
			o := newOperator(t)
			want := c(t, o)
			s, err := trust.NewSigner(now, o.pieces)
			if err != nil {
				t.Fatal(err)
			}
			checkChain(t, s, want)
		})
	}
}

func checkChain(t *testing.T, s *trust.Signer, want []*catest.Issuer) {
	t.Helper()
	if !slices.EqualFunc(s.Chain(), want, func(c *x509.Certificate, i *catest.Issuer) bool { return c.Equal(i.Cert) }) {
		t.Errorf("chain is %v, want %d certificates", names(s.Chain()), len(want))
	}
	if !bytes.Equal(s.ChainPEM(), join(want...)) {
		t.Error("ChainPEM is another chain")
	}
	if !bytes.Equal(s.RootsPEM(), trust.MarshalCertificates(s.Roots())) {
		t.Error("RootsPEM is other roots")
	}
}

func names(certs []*x509.Certificate) []string {
	var out []string
	for _, cert := range certs {
		out = append(out, trust.Name(cert))
	}
	return out
}

var goodShapes = map[string]func(*testing.T, *operator) []*catest.Issuer{
	"the root signs": func(t *testing.T, o *operator) []*catest.Issuer {
		o.pieces = o.root.Pieces(t)
		return nil
	},
	"the root signs, and is its own chain": func(t *testing.T, o *operator) []*catest.Issuer {
		o.pieces = o.root.Pieces(t)
		o.pieces.Chain.PEM = o.root.PEM()
		return nil
	},
	"an intermediate without a chain file": func(t *testing.T, o *operator) []*catest.Issuer {
		o.pieces = o.policy.Pieces(t)
		o.pieces.Chain.PEM = nil
		return []*catest.Issuer{o.policy}
	},
	"an intermediate, the chain file holds the root": func(t *testing.T, o *operator) []*catest.Issuer {
		o.pieces = o.policy.Pieces(t)
		o.pieces.Chain.PEM = o.root.PEM()
		return []*catest.Issuer{o.policy}
	},
	"three levels, the chain begins with the signing certificate": func(_ *testing.T, o *operator) []*catest.Issuer {
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"three levels, the chain is the issuers alone": func(_ *testing.T, o *operator) []*catest.Issuer {
		o.pieces.Chain.PEM = o.policy.PEM()
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"three levels, the chain ends with the root": func(_ *testing.T, o *operator) []*catest.Issuer {
		o.pieces.Chain.PEM = join(o.issuing, o.policy, o.root)
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"tls.crt: the chain follows the signing certificate": func(_ *testing.T, o *operator) []*catest.Issuer {
		o.pieces.Cert.PEM, o.pieces.Chain.PEM = join(o.issuing, o.policy), nil
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"tls.crt with the root": func(_ *testing.T, o *operator) []*catest.Issuer {
		o.pieces.Cert.PEM, o.pieces.Chain.PEM = join(o.issuing, o.policy, o.root), nil
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"the root bundle holds others too, before and after": func(t *testing.T, o *operator) []*catest.Issuer {
		other := catest.Root(t, now, catest.Spec{Name: "other"})
		o.pieces.Roots.PEM = join(other, o.root, other)
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"two roots of one name, the wrong one first (9.18)": func(t *testing.T, o *operator) []*catest.Issuer {
		other := catest.Root(t, now, catest.Spec{Name: "root", KeyType: trust.ECDSAP384})
		o.pieces.Roots.PEM = join(other, o.root)
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"the root was renewed with its key, and the old one has expired": func(t *testing.T, o *operator) []*catest.Issuer {
		old := catest.Root(t, now, catest.Spec{Name: "root", Edit: expired})
		o.pieces.Roots.PEM = join(old, o.root)
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"the old root signed the new one across, and peers are told of the new one alone": func(t *testing.T, o *operator) []*catest.Issuer {
		across := catest.Root(t, now, catest.Spec{Name: "old root"}).Intermediate(t, now, catest.Spec{Name: "root"})
		o.pieces.Chain.PEM = join(o.issuing, o.policy, across)
		return []*catest.Issuer{o.issuing, o.policy, across}
	},
	"the same, and peers are told of both": func(t *testing.T, o *operator) []*catest.Issuer {
		old := catest.Root(t, now, catest.Spec{Name: "old root"})
		across := old.Intermediate(t, now, catest.Spec{Name: "root"})
		o.pieces.Chain.PEM, o.pieces.Roots.PEM = join(o.issuing, o.policy, across), join(o.root, old)
		return []*catest.Issuer{o.issuing, o.policy, across}
	},
	"a root that signed itself by SHA-1, which nobody looks at": func(t *testing.T, o *operator) []*catest.Issuer {
		o.restack(t, bySHA1, nil)
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"an RSA CA below an ECDSA root": func(t *testing.T, o *operator) []*catest.Issuer {
		i := o.root.Intermediate(t, now, catest.Spec{Name: "issuing", KeyType: trust.RSA2048})
		o.pieces = i.Pieces(t)
		return []*catest.Issuer{i}
	},
	"an ECDSA CA below an RSA root": func(t *testing.T, o *operator) []*catest.Issuer {
		i := catest.Root(t, now, catest.Spec{Name: "root", KeyType: trust.RSA2048}).Intermediate(t, now, catest.Spec{Name: "issuing", KeyType: trust.ECDSAP384})
		o.pieces = i.Pieces(t)
		return []*catest.Issuer{i}
	},
	"a key as RSA PRIVATE KEY": func(t *testing.T, o *operator) []*catest.Issuer {
		i := o.root.Intermediate(t, now, catest.Spec{Name: "issuing", KeyType: trust.RSA2048})
		o.pieces = i.Pieces(t)
		o.pieces.Key.PEM = mustDER(t)(trust.MarshalLegacyKey(i.Key))
		return []*catest.Issuer{i}
	},
	"a key as EC PRIVATE KEY after EC PARAMETERS": func(t *testing.T, o *operator) []*catest.Issuer {
		o.pieces.Key.PEM = append(bytes.Clone(ecParameters), mustDER(t)(trust.MarshalLegacyKey(o.issuing.Key))...)
		return []*catest.Issuer{o.issuing, o.policy}
	},
	"no key usage extension at all": func(t *testing.T, o *operator) []*catest.Issuer {
		o.restack(t, func(c *x509.Certificate) { c.KeyUsage = 0 }, func(c *x509.Certificate) { c.KeyUsage = 0 })
		return []*catest.Issuer{o.issuing, o.policy}
	},
}

// TestSignerOfCitadel14 loads what Citadel 1.4 left in istio-ca-secret: RSA
// 2048 as PKCS#1, a 128-bit serial, O alone, keyCertSign alone, no SKI.
func TestSignerOfCitadel14(t *testing.T) {
	old := catest.Citadel14Root(t, now, catest.TrustDomain)
	c := old.Cert
	if len(c.SubjectKeyId) != 0 || c.KeyUsage != x509.KeyUsageCertSign || c.Subject.String() != "O=cluster.local" ||
		c.SerialNumber.BitLen() > 128 || !c.IsCA || c.MaxPathLen > 0 {
		t.Fatalf("catest makes no root of Citadel 1.4: %+v", c)
	}
	text := mustDER(t)(trust.MarshalLegacyKey(old.Key))
	if !bytes.HasPrefix(text, []byte("-----BEGIN RSA PRIVATE KEY-----")) {
		t.Fatalf("key is %.40q", text)
	}
	pieces := trust.Pieces{
		Cert:  trust.Piece{Name: "istio-ca-secret ca-cert.pem", PEM: old.PEM()},
		Key:   trust.Piece{Name: "istio-ca-secret ca-key.pem", PEM: text},
		Roots: trust.Piece{Name: "istio-ca-secret ca-cert.pem", PEM: old.PEM()},
	}
	s, err := trust.NewSigner(now, pieces)
	if err != nil {
		t.Fatal(err)
	}
	checkChain(t, s, nil)
}

// TestNotAfterIsTheEarliestOfThePath: no leaf may outlive any of its issuers (R-3, C-4).
func TestNotAfterIsTheEarliestOfThePath(t *testing.T) {
	early := func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }
	want := now.Add(time.Hour).Truncate(time.Second)
	for name, make := range map[string]func(*testing.T, *operator){
		"signing certificate": func(t *testing.T, o *operator) { o.resign(t, early) },
		"intermediate":        func(t *testing.T, o *operator) { o.restack(t, nil, early) },
		"root":                func(t *testing.T, o *operator) { o.restack(t, early, nil) },
		"root, in the chain": func(t *testing.T, o *operator) {
			o.restack(t, early, nil)
			o.pieces.Chain.PEM = join(o.policy, o.root)
		},
	} {
		o := newOperator(t)
		make(t, o)
		s, err := trust.NewSigner(now, o.pieces)
		if err != nil || !s.NotAfter().Equal(want) {
			t.Errorf("%s: error %v, or the end is not %s", name, err, want)
		}
	}
}

func TestWithRootsWidensACopy(t *testing.T) {
	o := newOperator(t)
	s := o.issuing.Signer(t, now)
	other := catest.Root(t, now, catest.Spec{Name: "other"})
	wider, err := s.WithRoots(trust.Piece{Name: "extra.pem", PEM: join(other, o.root)})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(wider.RootsPEM(), join(o.root, other)) || len(wider.Roots()) != 2 {
		t.Errorf("roots are %v, want its own and then the other", names(wider.Roots()))
	}
	if !bytes.Equal(s.RootsPEM(), join(o.root)) || len(s.Roots()) != 1 {
		t.Error("the signer itself has changed")
	}
	checkChain(t, wider, []*catest.Issuer{o.issuing, o.policy})
}

func TestWithRootsNamesTheFaultyPiece(t *testing.T) {
	o := newOperator(t)
	s := o.issuing.Signer(t, now)
	for name, text := range map[string][]byte{
		"nothing": nil, "garbage": []byte("x"), "a leaf": o.root.Leaf(t, now, workload).PEM(), "a private key": o.pieces.Key.PEM,
	} {
		if _, err := s.WithRoots(trust.Piece{Name: "extra.pem", PEM: text}); err == nil || !strings.HasPrefix(err.Error(), "root certificates extra.pem: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestSignerHandsOutCopiesOfItsLists(t *testing.T) {
	s := newOperator(t).issuing.Signer(t, now)
	chain, roots := s.Chain(), s.Roots()
	chain[0], roots[0] = nil, nil
	if s.Chain()[0] == nil || s.Roots()[0] == nil {
		t.Error("a caller can change the signer's chain or roots")
	}
}

func TestNameFallsBackToURIAndSerial(t *testing.T) {
	uri := catest.Root(t, now, catest.Spec{Name: "root"}).Leaf(t, now, workload).Cert
	for want, cert := range map[string]*x509.Certificate{
		"CN=x":            {Subject: pkix.Name{CommonName: "x"}, URIs: uri.URIs},
		workload.String(): uri,
		"serial ff":       {SerialNumber: big.NewInt(255)},
	} {
		if got := trust.Name(cert); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
