package authn

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
)

// maxToken bounds what is looked at; tokens of Kubernetes have about 1 KiB.
const maxToken = 16 << 10

// leeway is how far the issuer's clock may be from ours.
const leeway = 30 * time.Second

// algorithms are those of RFC 7518 that need a public key and no padding of
// choice; never none, nor a MAC, for which that key would be the secret.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// claims are what a token says that is looked at.
type claims struct {
	jwt.Claims
	Kubernetes *kubernetesClaims `json:"kubernetes.io"`
}

// kubernetesClaims are those of a token that TokenRequest made.
type kubernetesClaims struct {
	Namespace      string       `json:"namespace"`
	ServiceAccount objectClaim  `json:"serviceaccount"`
	Pod            *objectClaim `json:"pod"`
}

type objectClaim struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// glance is what an unverified token says, to tell whose it would be.
type glance struct {
	Issuer     string          `json:"iss"`
	Kubernetes json.RawMessage `json:"kubernetes.io"`
}

// glanceAt is false for what is no signed token in compact form. Of each token
// there is one spelling only: base64 without slack.
func glanceAt(token string) (g glance, ok bool) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 || strings.ContainsAny(token, "\r\n") {
		return glance{}, false
	}
	var payload []byte
	for i, part := range parts {
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return glance{}, false
		}
		if i == 1 {
			payload = decoded
		}
	}
	return g, json.Unmarshal(payload, &g) == nil
}

// verifier verifies tokens of one issuer offline, and remembers those that it
// has verified until they end.
type verifier struct {
	keys      *Keys
	audiences []string
	// identify makes of a verified token whom it names.
	identify func(claims) (Identity, error)
	proven   memory[proof]
}

// proof is a verified token, without it.
type proof struct {
	claims   claims
	identity Identity
	key      keyRef
}

func (p proof) expires() time.Time { return p.claims.Expiry.Time() }

// known returns the proof of a token that was verified before with a key that
// counts still.
func (v *verifier) known(now time.Time, d digest) (proof, bool) {
	p, ok := v.proven.get(now, d)
	if ok && !v.keys.published(p.key) {
		v.proven.forget(d)
		return proof{}, false
	}
	return p, ok
}

func (v *verifier) verify(ctx context.Context, now time.Time, token string) (proof, error) {
	parsed, err := parse(token)
	if err != nil {
		return proof{}, err
	}
	set, keys, err := v.keys.find(ctx, parsed.Headers[0].KeyID)
	if err != nil {
		return proof{}, err
	}
	c, k, err := signed(parsed, keys)
	if err != nil {
		return proof{}, err
	}
	if err := v.check(now, set.issuer, c.Claims); err != nil {
		return proof{}, err
	}
	id, err := v.identify(c)
	if err != nil {
		return proof{}, err
	}
	p := proof{claims: c, identity: id, key: keyRef{set.issuer, parsed.Headers[0].KeyID, k.print}}
	v.proven.put(now, sha256.Sum256([]byte(token)), p, p.expires())
	return p, nil
}

// parse reads a token's form. Nothing of what it says counts yet.
func parse(token string) (*jwt.JSONWebToken, error) {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if _, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
		return nil, fmt.Errorf("the token's signature algorithm is none of %v", algorithms)
	}
	if err != nil || len(parsed.Headers) != 1 {
		return nil, errors.New("the token is malformed") // the cause may quote it
	}
	for name := range parsed.Headers[0].ExtraHeaders {
		if name == "crit" || name == "b64" { // RFC 7515 4.1.11, RFC 7797 7
			return nil, fmt.Errorf("the token has a header %s, which is not supported", name)
		}
	}
	return parsed, nil
}

// signed returns what a token says and which key vouches for it.
func signed(parsed *jwt.JSONWebToken, keys []key) (claims, key, error) {
	for _, k := range keys {
		if k.alg != "" && string(k.alg) != parsed.Headers[0].Algorithm {
			continue
		}
		var c claims
		err := parsed.Claims(k.public, &c)
		switch {
		case err == nil:
			return c, k, nil
		case !errors.Is(err, jose.ErrCryptoFailure):
			return claims{}, key{}, errors.New("the token's claims are malformed")
		}
	}
	return claims{}, key{}, errors.New("the token's signature is wrong")
}

// check holds a token to issuer, audience and times (J-2).
func (v *verifier) check(now time.Time, issuer string, c jwt.Claims) error {
	switch {
	case c.Expiry == nil:
		return errors.New("the token has no end (exp): use one that TokenRequest or a projected volume gives")
	case len(c.Audience) == 0:
		return fmt.Errorf("the token has no audience (aud): use one for %s", v.forWhom())
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: v.audiences, Time: now}, leeway)
	switch {
	case errors.Is(err, jwt.ErrInvalidAudience):
		return fmt.Errorf("the token is not for us: its audience must be %s", v.forWhom())
	case errors.Is(err, jwt.ErrExpired):
		return fmt.Errorf("the token expired at %s: use a new one", c.Expiry.Time().UTC().Format(time.RFC3339))
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return errors.New("the token is not valid yet: compare the clocks")
	}
	return err
}

func (v *verifier) forWhom() string { return strings.Join(v.audiences, " or ") }

// subjectPrefix begins the names of service accounts (RBAC users).
const subjectPrefix = "system:serviceaccount:"

// account is a service account that a token's subject names.
type account struct{ namespace, name string }

func (a account) subject() string { return subjectPrefix + a.namespace + ":" + a.name }

// accountOf reads a subject of the form system:serviceaccount:NAMESPACE:NAME.
func accountOf(subject string) (account, bool) {
	rest, ok := strings.CutPrefix(subject, subjectPrefix)
	namespace, name, _ := strings.Cut(rest, ":")
	return account{namespace, name}, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// caller vouches for a service account.
func (a account) caller(td spiffeid.TrustDomain, method, evidence string) (ca.Caller, error) {
	id, err := ca.ServiceAccountID(td, a.namespace, a.name)
	if err != nil {
		return ca.Caller{}, errors.New("the token's service account has no SPIFFE ID")
	}
	return ca.NewCaller(id, method, evidence), nil
}

// evidenceOf names a verified token for the audit record. Who issues tokens
// chooses the jti: it is quoted, and cut.
func evidenceOf(c jwt.Claims) string {
	until := "until " + c.Expiry.Time().UTC().Format(time.RFC3339)
	if c.ID == "" {
		return until
	}
	return fmt.Sprintf("jti %.100q %s", c.ID, until)
}

// common is true when two lists share an entry.
func common(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
