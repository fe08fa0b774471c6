package authn

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"golang.org/x/sync/singleflight"

	"citadel/ca/trust"
)

// MaxPublished bounds each document of an issuer's.
const MaxPublished = 256 << 10

// maxKeys bounds how many keys one issuer has.
const maxKeys = 100

// When keys are fetched.
const (
	refreshEvery = 5 * time.Minute
	firstRetry   = time.Second
	lastRetry    = 15 * time.Second
	// askEvery is the least time between two attempts, whatever keys tokens name:
	// anybody can make up names.
	askEvery     = 5 * time.Second
	fetchTimeout = 15 * time.Second
)

// Fetch reads what an issuer publishes: its name and its keys, as a JWK Set
// (RFC 7517). It reads no more than MaxPublished of each document.
type Fetch func(ctx context.Context) (issuer string, jwks []byte, err error)

// Keys are the public keys of one issuer of tokens, as it published them last.
// They stay when they cannot be fetched anew.
type Keys struct {
	fetch   Fetch
	tell    func(error)
	current atomic.Pointer[keySet] // nil before the first success
	joined  singleflight.Group     // of attempts: one at a time
	mu      sync.Mutex
	began   time.Time // the last attempt; guarded by mu
}

// NewKeys returns keys that are fetched once Run runs. Tell hears why an
// attempt failed; it may be nil.
func NewKeys(fetch Fetch, tell func(error)) *Keys {
	if tell == nil {
		tell = func(error) {}
	}
	return &Keys{fetch: fetch, tell: tell}
}

// Run fetches the keys now and every five minutes until ctx ends, and sooner
// after a failure.
func (k *Keys) Run(ctx context.Context) {
	wait := firstRetry
	for ctx.Err() == nil {
		next := refreshEvery
		switch err := k.refresh(ctx, true); {
		case err == nil:
			wait = firstRetry
		default:
			if ctx.Err() == nil && !errors.Is(err, errLately) {
				k.tell(fmt.Errorf("fetch the keys of tokens: %w", err))
			}
			next, wait = wait, min(2*wait, lastRetry)
		}
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
}

// Issuer is who signs with the keys; empty until they have been fetched.
func (k *Keys) Issuer() string {
	if set := k.current.Load(); set != nil {
		return set.issuer
	}
	return ""
}

var (
	errLately = errors.New("they were fetched a moment ago")
	errNoKeys = errors.New("the issuer's keys have not been fetched yet")
)

// refresh makes an attempt or joins the one under way. One that is not due
// keeps its distance from the last.
func (k *Keys) refresh(ctx context.Context, due bool) error {
	attempt := k.joined.DoChan("", func() (any, error) {
		if !k.begin(due) {
			return nil, errLately
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		issuer, jwks, err := k.fetch(ctx)
		if err != nil {
			return nil, err
		}
		set, err := parseKeySet(issuer, jwks)
		if err != nil {
			return nil, err
		}
		k.current.Store(set)
		return nil, nil
	})
	select {
	case done := <-attempt:
		return done.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *Keys) begin(due bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if !due && now.Sub(k.began) < askEvery {
		return false
	}
	k.began = now
	return true
}

// find returns the keys of a name. One that is not known may be new: the keys
// are fetched again, if that is not too soon.
func (k *Keys) find(ctx context.Context, kid string) (*keySet, []key, error) {
	set := k.current.Load()
	if set == nil {
		return nil, nil, &Unavailable{errNoKeys}
	}
	if found := set.keys[kid]; len(found) > 0 {
		return set, found, nil
	}
	err := k.refresh(ctx, false)
	set = k.current.Load()
	found := set.keys[kid]
	switch {
	case len(found) > 0:
		return set, found, nil
	case err != nil:
		return nil, nil, &Unavailable{fmt.Errorf("the token's key is not known, and new keys could not be fetched: %w", err)}
	}
	return nil, nil, errors.New("the token is signed by a key that its issuer does not publish")
}

// published tells whether a key is one of the issuer's still.
func (k *Keys) published(ref keyRef) bool {
	set := k.current.Load()
	if set == nil || set.issuer != ref.issuer {
		return false
	}
	for _, key := range set.keys[ref.kid] {
		if key.print == ref.print {
			return true
		}
	}
	return false
}

// keySet is what an issuer published at one time. It is not changed.
type keySet struct {
	issuer string
	keys   map[string][]key // by name; it has two keys where the issuer is careless
}

type key struct {
	public crypto.PublicKey
	alg    jose.SignatureAlgorithm // empty: any that suits the key
	print  thumbprint
}

// thumbprint is that of RFC 7638, by SHA-256.
type thumbprint [32]byte

// keyRef names a key for as long as its issuer publishes it.
type keyRef struct {
	issuer, kid string
	print       thumbprint
}

// parseKeySet takes the keys that signatures are verified with, and leaves out
// those of other kinds and uses, which an issuer may publish as well.
func parseKeySet(issuer string, jwks []byte) (*keySet, error) {
	if len(jwks) > MaxPublished {
		return nil, fmt.Errorf("the key set is larger than %d bytes", MaxPublished)
	}
	var document struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &document); err != nil {
		return nil, fmt.Errorf("read the key set: %w", err)
	}
	switch {
	case issuer == "":
		return nil, errors.New("the issuer has no name")
	case document.Keys == nil:
		return nil, errors.New("the key set has no member keys")
	case len(*document.Keys) > maxKeys:
		return nil, fmt.Errorf("the key set has %d keys, more than %d", len(*document.Keys), maxKeys)
	}
	set := &keySet{issuer: issuer, keys: map[string][]key{}}
	for _, text := range *document.Keys {
		if kid, key, ok := parseKey(text); ok {
			set.keys[kid] = append(set.keys[kid], key)
		}
	}
	return set, nil
}

func parseKey(text []byte) (string, key, bool) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(text, &jwk); err != nil || jwk.Use != "" && jwk.Use != "sig" || !jwk.IsPublic() {
		return "", key{}, false
	}
	if err := trust.CheckPublicKey(jwk.Key); err != nil { // symmetric and private keys too
		return "", key{}, false
	}
	print, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil || len(print) != len(thumbprint{}) {
		return "", key{}, false
	}
	return jwk.KeyID, key{public: jwk.Key, alg: jose.SignatureAlgorithm(jwk.Algorithm), print: thumbprint(print)}, true
}

// ParseDiscovery reads an issuer's discovery document: its name, and where its
// keys are (OpenID Connect Discovery 1.0, 3).
func ParseDiscovery(text []byte) (issuer, jwksURI string, err error) {
	if len(text) > MaxPublished {
		return "", "", fmt.Errorf("the discovery document is larger than %d bytes", MaxPublished)
	}
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return "", "", fmt.Errorf("read the discovery document: %w", err)
	}
	if document.Issuer == "" {
		return "", "", errors.New("the discovery document names no issuer")
	}
	return document.Issuer, document.JWKSURI, nil
}
