package authn

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// tokens keeps join tokens in memory.
type tokens struct {
	mu  sync.Mutex
	all map[string]JoinToken // guarded by mu
	err error
}

func (s *tokens) Use(_ context.Context, id string, use func(*JoinToken) (bool, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, ok := s.all[id]
	switch {
	case s.err != nil:
		return s.err
	case !ok:
		return ErrNoJoinToken
	}
	changed, err := use(&token)
	if changed {
		s.all[id] = token
	}
	return err
}

type joinRig struct {
	now    time.Time
	store  *tokens
	join   Join
	token  JoinToken
	bearer string
}

func newJoinRig(t *testing.T, uses int) *joinRig {
	t.Helper()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	token, bearer, err := NewJoinToken(now, "vm", "web", time.Hour, uses)
	if err != nil {
		t.Fatal(err)
	}
	store := &tokens{all: map[string]JoinToken{token.ID: token}}
	return &joinRig{now: now, store: store, token: token, bearer: bearer,
		join: Join{TrustDomain: catest.TrustDomain, Tokens: store, Lookups: NewLookups(1_000_000)}}
}

func request(t *testing.T, key string) []byte {
	t.Helper()
	return catest.CSRPEM(catest.CSR(t, catest.Key(t, trust.ECDSAP256, key), func(c *x509.CertificateRequest) {}))
}

func (r *joinRig) try(t *testing.T, now time.Time, bearer, key string) error {
	t.Helper()
	id, err := r.join.Authenticate(t.Context(), now, Request{Bearer: bearer, CSR: request(t, key)})
	if err == nil && id.Caller.ID().String() != "spiffe://cluster.local/ns/vm/sa/web" {
		t.Errorf("joined as %s", id.Caller.ID())
	}
	return err
}

func TestJoinTokenOnce(t *testing.T) {
	r := newJoinRig(t, 1)
	if err := r.try(t, r.now, r.bearer, "a"); err != nil {
		t.Fatal(err)
	}
	if err := r.try(t, r.now, r.bearer, "a"); err != nil {
		t.Errorf("the same key again, whose answer was lost: %v", err)
	}
	if err := r.try(t, r.now, r.bearer, "b"); err == nil || !strings.Contains(err.Error(), "has been used (1 of 1)") {
		t.Errorf("a second key: %v", err)
	}
	if err := r.try(t, r.now.Add(time.Hour), r.bearer, "a"); err == nil || !strings.Contains(err.Error(), "expired at 2026-05-01T13:00:00Z") {
		t.Errorf("the same key after the token's end: %v", err)
	}
}

// TestJoinTokenInParallel: negative test 1.
func TestJoinTokenInParallel(t *testing.T) {
	r := newJoinRig(t, 1)
	var requests [][]byte
	for i := range 50 {
		requests = append(requests, request(t, fmt.Sprint(i)))
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for _, csr := range requests {
		all.Go(func() {
			if _, err := r.join.Authenticate(t.Context(), r.now, Request{Bearer: r.bearer, CSR: csr}); err == nil {
				mu.Lock()
				defer mu.Unlock()
				won++
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("%d joined", won)
	}
}

// TestOneRequestOneKey: what is counted is the key that is certified, however a
// request may be read, and only if the caller has it.
func TestOneRequestOneKey(t *testing.T) { // specifications 9.1, 9.3
	r := newJoinRig(t, 1)
	if err := r.try(t, r.now, r.bearer, "victim"); err != nil {
		t.Fatal(err)
	}
	within := catest.CSR(t, catest.Key(t, trust.ECDSAP256, "thief"), func(c *x509.CertificateRequest) {
		c.Subject.Organization = []string{"\n" + string(request(t, "victim"))}
	})
	stolen := bytes.Clone(catest.CSR(t, catest.Key(t, trust.ECDSAP256, "victim"), func(*x509.CertificateRequest) {}))
	stolen[len(stolen)-1] ^= 1 // of the victim the public key is known, and no signature
	for name, csr := range map[string][]byte{"another request inside": within, "another's key": stolen, "another's key, PEM": catest.CSRPEM(stolen)} {
		if _, err := r.join.Authenticate(t.Context(), r.now, Request{Bearer: r.bearer, CSR: csr}); err == nil {
			t.Errorf("%s: joined by a token that has been used", name)
		}
	}
	fresh := newJoinRig(t, 1)
	if _, err := fresh.join.Authenticate(t.Context(), fresh.now, Request{Bearer: fresh.bearer, CSR: stolen}); err == nil || len(fresh.store.all[fresh.token.ID].Keys) > 0 {
		t.Errorf("a key that the caller does not have was counted: %v", err)
	}
}

func TestJoinTokensThatAreRefused(t *testing.T) {
	r := newJoinRig(t, 1)
	id, secret := r.token.ID, strings.TrimPrefix(r.bearer, joinPrefix+r.token.ID+".")
	for name, c := range map[string]struct{ bearer, text string }{
		"other secret":         {joinPrefix + id + "." + strings.Repeat("A", 43), "is not known here"},
		"other ID":             {joinPrefix + "0123456789." + secret, "is not known here"},
		"cut off":              {r.bearer[:len(r.bearer)-1], "is damaged"},
		"with a path":          {joinPrefix + "../secrets." + secret, "is damaged"},
		"with a newline":       {r.bearer + "\n", "is damaged"},
		"the hash for secret":  {joinPrefix + id + "." + r.token.Hash[:43], "is not known here"},
		"nothing but a prefix": {joinPrefix, "is damaged"},
	} {
		err := r.try(t, r.now, c.bearer, "a")
		if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(r.store.all[id].Keys) != 0 {
		t.Error("a refused token was used up")
	}
	if err := r.try(t, r.now, "eyJhbGciOi", "a"); !errors.Is(err, ErrNoProof) {
		t.Errorf("another kind of token: %v", err)
	}
	if _, err := r.join.Authenticate(t.Context(), r.now, Request{Bearer: r.bearer, CSR: []byte("x")}); err == nil || !strings.Contains(err.Error(), "is neither PEM nor DER") {
		t.Errorf("no CSR: %v", err)
	}
}

func TestJoinTokenStoreThatFails(t *testing.T) {
	r := newJoinRig(t, 1)
	r.store.err = errors.New("conflict")
	if _, ok := errors.AsType[*Unavailable](r.try(t, r.now, r.bearer, "a")); !ok {
		t.Error("a failure of the store is not the caller's")
	}
	r.store.err = nil
}

// TestFloodOfJoinTokens: what one address makes up takes nobody else's lookups,
// and all addresses together have no more than there are.
func TestFloodOfJoinTokens(t *testing.T) {
	r := newJoinRig(t, 1)
	r.join.Lookups = NewLookups(8)
	csr := request(t, "a")
	try := func(bearer, origin string) error {
		_, err := r.join.Authenticate(t.Context(), r.now, Request{Bearer: bearer, CSR: csr, Origin: netip.MustParsePrefix(origin)})
		return err
	}
	madeUp := "citadel-join.0123456789." + strings.Repeat("A", 43)
	for i := range 100 {
		err := try(madeUp, "192.0.2.1/32")
		if _, bounded := errors.AsType[*Unavailable](err); bounded != (i >= 2) {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	if err := try(r.bearer, "192.0.2.2/32"); err != nil {
		t.Errorf("another address: %v", err)
	}
	for _, origin := range []string{"2001:db8::/64", "2001:db8:1::/64", "2001:db8:2::/64"} {
		_, _ = try(madeUp, origin), try(madeUp, origin)
	}
	if _, bounded := errors.AsType[*Unavailable](try(madeUp, "192.0.2.3/32")); !bounded {
		t.Error("all together are not bounded")
	}
	r.now = r.now.Add(time.Second)
	if err := try(r.bearer, "192.0.2.1/32"); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

// TestJoinTokenIsNotSpentInVain: who cannot have what he asks for has it still
// when he can, and a key that is counted needs no check.
func TestJoinTokenIsNotSpentInVain(t *testing.T) {
	r := newJoinRig(t, 1)
	banned := &ca.Error{Class: ca.Denied, Reason: "banned"}
	try := func(key string, err error) (Identity, []Outcome, error) {
		return Chain{r.join}.Authenticate(t.Context(), r.now, Request{Bearer: r.bearer, CSR: request(t, key), Check: func(ca.Caller) error { return err }})
	}
	id, tried, err := try("a", banned)
	if err != error(banned) || id.Caller.ID().Path() != "/ns/vm/sa/web" || len(tried) != 1 || tried[0].Err != nil {
		t.Errorf("%s, %v, %v", id.Caller.ID(), tried, err)
	}
	if keys := r.store.all[r.token.ID].Keys; len(keys) != 0 {
		t.Errorf("a use is counted: %v", keys)
	}
	if _, _, err := try("b", nil); err != nil {
		t.Error(err)
	}
	if _, _, err := try("b", banned); err != nil { // for Issue to refuse
		t.Error(err)
	}
}

func TestNoSecretIsStored(t *testing.T) {
	r := newJoinRig(t, 1)
	if secret := strings.TrimPrefix(r.bearer, joinPrefix+r.token.ID+"."); strings.Contains(fmt.Sprintf("%+v", r.token), secret) || len(secret) != 43 {
		t.Error("the secret is in the record")
	}
	for _, c := range []struct {
		ttl  time.Duration
		uses int
	}{{0, 1}, {-time.Hour, 1}, {time.Hour, 0}, {time.Hour, -1}, {time.Hour, maxJoinUses + 1}} {
		if _, _, err := NewJoinToken(r.now, "vm", "web", c.ttl, c.uses); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func FuzzJoinText(f *testing.F) {
	f.Add("citadel-join.0123456789." + strings.Repeat("A", 43))
	f.Add("citadel-join.")
	f.Add("citadel-join.0123456789.\x00")
	f.Fuzz(func(t *testing.T, text string) {
		store := &tokens{all: map[string]JoinToken{}}
		j := Join{TrustDomain: catest.TrustDomain, Tokens: store, Lookups: NewLookups(1_000_000)}
		if id, err := j.Authenticate(t.Context(), time.Unix(0, 0), Request{Bearer: text, CSR: []byte(text)}); err == nil {
			t.Errorf("%q joined as %s", text, id.Caller.ID())
		}
	})
}
