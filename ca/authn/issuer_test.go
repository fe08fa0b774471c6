package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

var domain = spiffeid.RequireTrustDomainFromString("cluster.local")

const testIssuer = "https://kubernetes.default.svc.cluster.local"

// issuer signs tokens, and publishes its keys.
type issuer struct {
	name string
	mu   sync.Mutex
	jwks jose.JSONWebKeySet // guarded by mu
	down error              // guarded by mu
	asks int                // guarded by mu
	// hang, when set, is waited for by each fetch.
	hang chan struct{}
}

func newIssuer(t testing.TB, kids ...string) *issuer {
	i := &issuer{name: testIssuer}
	for _, kid := range kids {
		i.publish(t, kid)
	}
	return i
}

// publish adds a key of a name.
func (i *issuer) publish(t testing.TB, kid string) {
	t.Helper()
	i.publishAs(t, kid, kid)
}

// publishAs adds a key under another's name.
func (i *issuer) publishAs(t testing.TB, key, kid string) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.jwks.Keys = append(i.jwks.Keys, jose.JSONWebKey{Key: signingKey(t, key).Public(), KeyID: kid, Use: "sig", Algorithm: string(algorithmOf(key))})
}

func (i *issuer) retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.jwks.Keys = []jose.JSONWebKey{}
}

func (i *issuer) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = err
}

func (i *issuer) fetched() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asks
}

func (i *issuer) fetch(ctx context.Context) (string, []byte, error) {
	i.mu.Lock()
	i.asks++
	text, err := json.Marshal(i.jwks)
	err = errors.Join(err, i.down)
	i.mu.Unlock()
	if i.hang != nil {
		select {
		case <-i.hang:
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		}
	}
	return i.name, text, err
}

// keys have been fetched once.
func (i *issuer) keys(t testing.TB) *Keys {
	t.Helper()
	k := NewKeys(i.fetch, nil)
	if err := k.refresh(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	return k
}

// algorithmOf makes key names say what the key is: "RS256", or "RS256-2".
func algorithmOf(kid string) jose.SignatureAlgorithm { return jose.SignatureAlgorithm(kid[:5]) }

func signingKey(t testing.TB, kid string) crypto.Signer {
	t.Helper()
	switch algorithmOf(kid) {
	case jose.ES256:
		return catest.Key(t, trust.ECDSAP256, "token-issuer-"+kid)
	case jose.ES384:
		return catest.Key(t, trust.ECDSAP384, "token-issuer-"+kid)
	case jose.ES512:
		return p521()
	}
	return catest.Key(t, trust.RSA2048, "token-issuer-"+kid)
}

// p521 is a curve that no key of ours has.
var p521 = sync.OnceValue(func() crypto.Signer {
	key, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader) // nil fails the test that uses it
	return key
})

// sign makes a token with any further headers.
func sign(t testing.TB, kid string, claims map[string]any, headers ...map[jose.HeaderKey]any) string {
	t.Helper()
	opts := (&jose.SignerOptions{})
	for _, h := range headers {
		for name, value := range h {
			opts.WithHeader(name, value)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithmOf(kid), Key: jose.JSONWebKey{Key: signingKey(t, kid), KeyID: kid}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return compact(t, signer, claims)
}

func compact(t testing.TB, signer jose.Signer, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// podToken is what a projected volume gives to pod web-0, but for edits; a nil
// value leaves a claim out.
func podToken(now time.Time, edits map[string]any) map[string]any {
	c := map[string]any{
		"iss": testIssuer, "aud": []string{"istio-ca"}, "sub": "system:serviceaccount:shop:web", "jti": "0f-1",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace":      "shop",
			"pod":            map[string]any{"name": "web-0", "uid": "uid-of-web-0"},
			"serviceaccount": map[string]any{"name": "web", "uid": "uid-of-web"},
		},
	}
	maps.Copy(c, edits)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}
