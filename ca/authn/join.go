package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
)

// JoinToken lets hosts join as a service account. It is what is stored: of its
// secret there is a hash alone.
type JoinToken struct {
	ID             string    `json:"id"`
	Hash           string    `json:"hash"` // SHA-256 of the secret, hexadecimal
	Namespace      string    `json:"namespace"`
	ServiceAccount string    `json:"serviceAccount"`
	Created        time.Time `json:"created"`
	Expires        time.Time `json:"expires"`
	Uses           int       `json:"uses"` // how many hosts may join, in all
	// Keys are the public keys that joined, SHA-256 in hexadecimal. A host whose
	// answer was lost may ask again with the key that it asked with.
	Keys []string `json:"keys,omitempty"`
}

// maxJoinUses bounds how many hosts one token lets in: each leaves its key in
// the token's record.
const maxJoinUses = 1000

// NewJoinToken makes a token, and the bearer text that proves it, which is
// stored nowhere.
func NewJoinToken(now time.Time, namespace, serviceAccount string, ttl time.Duration, uses int) (JoinToken, string, error) {
	switch {
	case ttl <= 0:
		return JoinToken{}, "", fmt.Errorf("a join token's life of %s must be above zero", ttl)
	case uses < 1 || uses > maxJoinUses:
		return JoinToken{}, "", fmt.Errorf("%d uses of a join token: it must be 1 to %d", uses, maxJoinUses)
	}
	var id [5]byte
	var secret [32]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	text := base64.RawURLEncoding.EncodeToString(secret[:])
	t := JoinToken{ID: hex.EncodeToString(id[:]), Hash: hashOf([]byte(text)), Namespace: namespace, ServiceAccount: serviceAccount,
		Created: now.UTC().Truncate(time.Second), Expires: now.Add(ttl).UTC().Truncate(time.Second), Uses: uses}
	return t, joinPrefix + t.ID + "." + text, nil
}

const joinPrefix = "citadel-join."

// joinText is the form of a bearer text; its parts are the ID and the secret.
var joinText = regexp.MustCompile(`^citadel-join\.([0-9a-f]{10})\.([A-Za-z0-9_-]{43})$`)

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// use decides whether a host that has the secret and asks with a key may join
// now, and counts it. It tells whether the token has changed.
func (t *JoinToken) use(now time.Time, secret, key string) (changed bool, err error) {
	switch {
	case subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hashOf([]byte(secret)))) != 1:
		return false, errWrongJoin
	case !now.Before(t.Expires):
		return false, fmt.Errorf("join token %s expired at %s: make another by citadelctl token create", t.ID, t.Expires.UTC().Format(time.RFC3339))
	case slices.Contains(t.Keys, key):
		return false, nil
	case len(t.Keys) >= t.Uses:
		return false, fmt.Errorf("join token %s has been used (%d of %d): make another by citadelctl token create", t.ID, len(t.Keys), t.Uses)
	}
	t.Keys = append(t.Keys, key)
	return true, nil
}

// errWrongJoin does not tell an unknown ID from a wrong secret.
var errWrongJoin = errors.New("the join token is not known here, or was revoked")

// ErrNoJoinToken says that a store has no token of an ID.
var ErrNoJoinToken = errors.New("there is no such join token")

// JoinTokens stores join tokens.
type JoinTokens interface {
	// Use has use look at the token of an ID and, where it says that it changed it,
	// stores it, as one step in respect of everybody else's. It returns use's error,
	// ErrNoJoinToken, or why the store failed.
	Use(ctx context.Context, id string, use func(*JoinToken) (changed bool, err error)) error
}

// Join takes join tokens.
type Join struct {
	TrustDomain spiffeid.TrustDomain
	Tokens      JoinTokens
	// Lookups bounds how often the store is asked, for anybody can send a text that
	// looks like a token.
	Lookups *Lookups
}

// Kind is of Authenticator.
func (Join) Kind() string { return "join token" }

// Authenticate is of Authenticator.
func (j Join) Authenticate(ctx context.Context, now time.Time, r Request) (Identity, error) {
	if !strings.HasPrefix(r.Bearer, joinPrefix) {
		return Identity{}, ErrNoProof
	}
	parts := joinText.FindStringSubmatch(r.Bearer)
	if parts == nil {
		return Identity{}, errors.New("the join token is damaged: copy the whole of it")
	}
	spki, err := ca.RequestedKey(r.CSR)
	if err != nil {
		return Identity{}, err
	}
	key := hashOf(spki)
	if !j.Lookups.allow(now, r.Origin) {
		return Identity{}, &Unavailable{errors.New("too many join tokens are being looked up")}
	}
	var caller ca.Caller
	refused := false
	err = j.Tokens.Use(ctx, parts[1], func(t *JoinToken) (bool, error) {
		changed, err := t.use(now, parts[2], key)
		if err == nil {
			caller, err = j.caller(*t, key)
		}
		if err == nil && changed {
			err = r.check(caller)
		}
		refused = err != nil
		return changed && !refused, err
	})
	switch {
	case errors.Is(err, ErrNoJoinToken):
		return Identity{}, errWrongJoin
	case refused:
		return Identity{Caller: caller}, err
	case err != nil:
		return Identity{}, &Unavailable{err}
	}
	return Identity{Caller: caller}, nil
}

// caller is whom a token lets join by a key that it counts.
func (j Join) caller(t JoinToken, key string) (ca.Caller, error) {
	id, err := ca.ServiceAccountID(j.TrustDomain, t.Namespace, t.ServiceAccount)
	if err != nil {
		return ca.Caller{}, err
	}
	return ca.NewCaller(id, j.Kind(), fmt.Sprintf("token %s, use %d of %d", t.ID, 1+slices.Index(t.Keys, key), t.Uses)), nil
}
