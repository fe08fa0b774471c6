package authn

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// apiServer reviews tokens of pod web-0.
type apiServer struct {
	asked atomic.Int64
	// answer may change what the API server says.
	answer func(context.Context, *Reviewed) error
}

func (s *apiServer) review(ctx context.Context, _ string, audiences []string) (Reviewed, error) {
	s.asked.Add(1)
	r := Reviewed{Authenticated: true, User: "system:serviceaccount:shop:web", UID: "uid-of-web",
		Groups:    []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"},
		Audiences: audiences, PodName: "web-0", PodUID: "uid-of-web-0"}
	if s.answer != nil {
		return r, s.answer(ctx, &r)
	}
	return r, nil
}

func deleted(_ context.Context, r *Reviewed) error {
	*r = Reviewed{}
	return nil
}

// kubernetesRig is an authenticator, its API server and its issuer of tokens.
type kubernetesRig struct {
	*KubernetesToken
	issuer *issuer
	server *apiServer
}

func newKubernetesRig(t testing.TB, ttl time.Duration, kids ...string) kubernetesRig {
	t.Helper()
	r := kubernetesRig{issuer: newIssuer(t, kids...), server: &apiServer{}}
	var err error
	r.KubernetesToken, err = NewKubernetesToken(KubernetesTokens{TrustDomain: domain, Keys: r.issuer.keys(t), Review: r.server.review, ReviewTTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r kubernetesRig) try(t testing.TB, now time.Time, token string) error {
	t.Helper()
	_, err := r.Authenticate(t.Context(), now, Request{Bearer: token})
	return err
}

// asks checks how often the API server has been asked.
func (r kubernetesRig) asks(t testing.TB, want int64) {
	t.Helper()
	if got := r.server.asked.Load(); got != want {
		t.Errorf("the API server was asked %d times, want %d", got, want)
	}
}

func TestKubernetesToken(t *testing.T) {
	now := time.Now()
	kids := []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}
	r := newKubernetesRig(t, time.Minute, kids...)
	for _, kid := range kids {
		for range 2 { // verified, then remembered
			id, err := r.Authenticate(t.Context(), now, Request{Bearer: sign(t, kid, podToken(now, nil))})
			if err != nil {
				t.Fatalf("%s: %v", kid, err)
			}
			if want := (Pod{"shop", "web-0", "uid-of-web-0", "web"}); id.Pod != want {
				t.Errorf("%s: pod %v", kid, id.Pod)
			}
			until := now.Add(time.Hour).UTC().Format(time.RFC3339)
			if got := fmt.Sprint(id.Caller); !strings.Contains(got, `Kubernetes token token of pod web-0 (uid uid-of-web-0), jti "0f-1" until `+until) ||
				id.Caller.ID().String() != "spiffe://cluster.local/ns/shop/sa/web" {
				t.Errorf("%s: caller %s", kid, got)
			}
		}
	}
	r.server.answer = func(_ context.Context, r *Reviewed) error { r.PodName, r.PodUID = "", ""; return nil }
	unbound := podToken(now, map[string]any{"jti": nil, "kubernetes.io": map[string]any{
		"namespace": "shop", "serviceaccount": map[string]any{"name": "web", "uid": "uid-of-web"}}})
	id, err := r.Authenticate(t.Context(), now, Request{Bearer: sign(t, "ES256", unbound)})
	if err != nil || id.Pod != (Pod{}) || !strings.Contains(fmt.Sprint(id.Caller), "token of no pod, until ") {
		t.Errorf("bound to no pod: %v, %v", id, err)
	}
}

// forged makes a token by hand; sign may be nil.
func forged(header, payload string, sign func(string) []byte) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	var signature []byte
	if sign != nil {
		signature = sign(text)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestTokensThatAreRefused offline, so that the API server never hears of them
// (specifications, negative test 24).
func TestTokensThatAreRefused(t *testing.T) {
	now := time.Now()
	r := newKubernetesRig(t, time.Minute, "RS256", "ES256", "RS384")
	with := func(edits map[string]any) string { return sign(t, "ES256", podToken(now, edits)) }
	kubernetesWith := func(claims map[string]any) string { return with(map[string]any{"kubernetes.io": claims}) }
	header := func(name jose.HeaderKey, value any) string {
		return sign(t, "ES256", podToken(now, nil), map[jose.HeaderKey]any{name: value})
	}
	good := with(nil)
	parts := strings.Split(good, ".")
	der, err := x509.MarshalPKIXPublicKey(signingKey(t, "RS256").Public())
	if err != nil {
		t.Fatal(err)
	}
	mac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: der, KeyID: "RS256"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rs512, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS512, Key: jose.JSONWebKey{Key: signingKey(t, "RS384"), KeyID: "RS384"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload := func() string { b, _ := base64.RawURLEncoding.DecodeString(parts[1]); return string(b) }()
	for name, c := range map[string]struct{ token, err string }{
		"no end":                 {with(map[string]any{"exp": nil}), "the token has no end (exp)"},
		"no audience":            {with(map[string]any{"aud": nil}), "the token has no audience (aud): use one for istio-ca"},
		"empty audience":         {with(map[string]any{"aud": []string{}}), "the token has no audience (aud)"},
		"another's audience":     {with(map[string]any{"aud": []string{testIssuer, "vault"}}), "the token is not for us: its audience must be istio-ca"},
		"audience as a pattern":  {with(map[string]any{"aud": "istio-c*"}), "the token is not for us"},
		"expired":                {with(map[string]any{"exp": now.Add(-time.Minute).Unix()}), "the token expired at "},
		"not yet valid":          {with(map[string]any{"nbf": now.Add(time.Minute).Unix()}), "the token is not valid yet: compare the clocks"},
		"issued in the future":   {with(map[string]any{"iat": now.Add(time.Minute).Unix()}), "the token is not valid yet: compare the clocks"},
		"end beyond time":        {with(map[string]any{"exp": 1e300}), "the token's claims are malformed"},
		"end in words":           {with(map[string]any{"exp": "tomorrow"}), "the token's claims are malformed"},
		"alg none":               {forged(`{"alg":"none","kid":"ES256"}`, payload, nil), "the token's signature algorithm is none of [RS256 RS384 RS512 ES256 ES384 ES512]"},
		"no alg":                 {forged(`{"kid":"ES256"}`, payload, nil), "the token's signature algorithm is none of"},
		"the key as a secret":    {compact(t, mac, podToken(now, nil)), "the token's signature algorithm is none of"},
		"no signature":           {parts[0] + "." + parts[1] + ".", "the token's signature is wrong"},
		"another's signature":    {parts[0] + "." + parts[1] + "." + strings.Split(with(map[string]any{"jti": "x"}), ".")[2], "the token's signature is wrong"},
		"another algorithm":      {forged(`{"alg":"ES384","kid":"ES256"}`, payload, nil), "the token's signature is wrong"},
		"an algorithm not named": {compact(t, rs512, podToken(now, nil)), "the token's signature is wrong"},
		"an unknown key":         {sign(t, "ES256-2", podToken(now, nil)), "the token's key is not known, and new keys could not be fetched: they were fetched a moment ago"},
		"a critical header":      {header("crit", []string{"exp"}), "the token has a header crit, which is not supported"},
		"a payload not encoded":  {header("b64", true), "the token has a header b64, which is not supported"},
		"its own key":            {sign(t, "ES256-2", podToken(now, nil), map[jose.HeaderKey]any{"kid": "ES256", "jwk": jose.JSONWebKey{Key: signingKey(t, "ES256-2").Public()}}), "the token's signature is wrong"},
		"a header twice":         {forged(`{"alg":"ES256","alg":"none","kid":"ES256"}`, payload, nil), "the token is malformed"},
		"another subject":        {with(map[string]any{"sub": "system:serviceaccount:shop:admin"}), "the token's subject is not the service account that it names"},
		"no subject":             {with(map[string]any{"sub": nil}), "the token's subject is not the service account that it names"},
		"a user":                 {with(map[string]any{"sub": "system:admin"}), "the token's subject is not the service account that it names"},
		"no service account":     {with(map[string]any{"kubernetes.io": nil}), "the token names no service account of Kubernetes"},
		"another namespace": {kubernetesWith(map[string]any{"namespace": "bank", "serviceaccount": map[string]any{"name": "web", "uid": "u"}}),
			"the token's subject is not the service account that it names"},
		"no UID":            {kubernetesWith(map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "web"}}), "the token names no service account of Kubernetes"},
		"a pod without UID": {kubernetesWith(map[string]any{"namespace": "shop", "pod": map[string]any{"name": "web-0"}, "serviceaccount": map[string]any{"name": "web", "uid": "u"}}), "the token names a pod without name or UID"},
		"a name beyond SPIFFE": {with(map[string]any{"sub": "system:serviceaccount:shop:w/b", "kubernetes.io": map[string]any{
			"namespace": "shop", "serviceaccount": map[string]any{"name": "w/b", "uid": "u"}}}), "the token's service account has no SPIFFE ID"},
		"one of a Secret": {with(map[string]any{"iss": legacyIssuer, "aud": nil, "exp": nil}), "the token is one of a Secret, which has no end and no audience: mount a projected token for istio-ca"},
	} {
		err := r.try(t, now, c.token)
		if err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
			continue
		}
		for _, part := range strings.Split(c.token, ".") {
			if len(part) > 8 && strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error holds a part of the token: %v", name, err)
			}
		}
	}
	if _, err := r.offline.verify(t.Context(), now, with(map[string]any{"iss": "https://accounts.example.org"})); err == nil {
		t.Error("what a glance at a token has shown is not held against what is verified")
	}
	r.asks(t, 0)
}

// TestTokensOfOthers are left to other authenticators.
func TestTokensOfOthers(t *testing.T) {
	now := time.Now()
	r := newKubernetesRig(t, time.Minute, "ES256")
	good := sign(t, "ES256", podToken(now, nil))
	for name, token := range map[string]string{
		"none":                      "",
		"a join token":              "citadel-join.0123456789.abc",
		"words":                     "a.b.c",
		"five parts":                good + "..",
		"another issuer's":          sign(t, "ES256", podToken(now, map[string]any{"iss": "https://accounts.example.org"})),
		"the issuer, spelt anew":    sign(t, "ES256", podToken(now, map[string]any{"iss": testIssuer + "/"})),
		"no issuer's":               sign(t, "ES256", podToken(now, map[string]any{"iss": nil})),
		"longer than any":           sign(t, "ES256", podToken(now, map[string]any{"x": strings.Repeat("x", maxToken)})),
		"a list":                    forged(`{"alg":"ES256"}`, `[]`, nil),
		"with a space":              " " + good,
		"with a line end":           good + "\n",
		"with slack bits at an end": slack(good),
	} {
		if err := r.try(t, now, token); !errors.Is(err, ErrNoProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.asks(t, 0)
}

// slack is another spelling of the last character's bits.
func slack(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + alphabet[last^1:last^1+1]
}

// TestClocksMayDiffer by half a minute.
func TestClocksMayDiffer(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := newKubernetesRig(t, time.Minute, "ES256")
	for after, ok := range map[time.Duration]bool{-leeway: true, -leeway - time.Second: false, time.Hour + leeway: true, time.Hour + leeway + time.Second: false} {
		token := sign(t, "ES256", podToken(now, map[string]any{"jti": after.String()})) // one that is not known yet
		if err := r.try(t, now.Add(after), token); (err == nil) != ok {
			t.Errorf("%s after it was issued: %v", after, err)
		}
	}
}

// TestKeysNotYetFetched: what may be the API server's has to come again;
// everything else is not held up by it.
func TestKeysNotYetFetched(t *testing.T) {
	now := time.Now()
	r := kubernetesRig{issuer: newIssuer(t, "ES256"), server: &apiServer{}}
	keys := NewKeys(r.issuer.fetch, nil)
	var err error
	if r.KubernetesToken, err = NewKubernetesToken(KubernetesTokens{TrustDomain: domain, Keys: keys, Review: r.server.review}); err != nil {
		t.Fatal(err)
	}
	ours := sign(t, "ES256", podToken(now, nil))
	if err := r.try(t, now, ours); !isUnavailable(err) {
		t.Errorf("a token of Kubernetes: %v", err)
	}
	if err := r.try(t, now, sign(t, "ES256", podToken(now, map[string]any{"kubernetes.io": nil}))); !errors.Is(err, ErrNoProof) {
		t.Errorf("a token of others: %v", err)
	}
	if err := r.try(t, now, sign(t, "ES256", podToken(now, map[string]any{"iss": legacyIssuer, "kubernetes.io": nil}))); err == nil || errors.Is(err, ErrNoProof) || isUnavailable(err) {
		t.Errorf("a token of a Secret: %v", err)
	}
	if err := keys.refresh(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := r.try(t, now, ours); err != nil {
		t.Errorf("once there are keys: %v", err)
	}
}

// TestReviewAndTokenDisagree: neither counts alone.
func TestReviewAndTokenDisagree(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		change func(*Reviewed)
		text   string
	}{
		"refused":              {func(r *Reviewed) { r.Authenticated = false }, "the API server does not accept the token (any more): its service account or pod may have been deleted"},
		"nothing":              {func(r *Reviewed) { *r = Reviewed{} }, "the API server does not accept the token"},
		"no audience":          {func(r *Reviewed) { r.Audiences = nil }, "do not agree on the audience"},
		"another audience":     {func(r *Reviewed) { r.Audiences = []string{"vault"} }, "do not agree on the audience"},
		"no group":             {func(r *Reviewed) { r.Groups = []string{"system:authenticated"} }, "do not agree on that it is of a service account"},
		"a user":               {func(r *Reviewed) { r.User = "system:admin" }, "do not agree on that it is of a service account"},
		"a longer name":        {func(r *Reviewed) { r.User += ":x" }, "do not agree on that it is of a service account"},
		"another account":      {func(r *Reviewed) { r.User = "system:serviceaccount:shop:admin" }, "do not agree on the service account"},
		"an account made anew": {func(r *Reviewed) { r.UID = "new" }, "do not agree on the service account"},
		"another pod":          {func(r *Reviewed) { r.PodName = "web-1" }, "do not agree on the pod"},
		"a pod made anew":      {func(r *Reviewed) { r.PodUID = "new" }, "do not agree on the pod"},
		"no pod":               {func(r *Reviewed) { r.PodName, r.PodUID = "", "" }, "do not agree on the pod"},
	} {
		r := newKubernetesRig(t, time.Minute, "ES256")
		r.server.answer = func(_ context.Context, r *Reviewed) error { c.change(r); return nil }
		if err := r.try(t, now, sign(t, "ES256", podToken(now, nil))); err == nil || !strings.Contains(err.Error(), c.text) || isUnavailable(err) {
			t.Errorf("%s: %v", name, err)
		}
		r.asks(t, 1)
	}
}

// TestReviewsAreJoined: a hundred calls with one token are one review, and who
// began it may go away.
func TestReviewsAreJoined(t *testing.T) {
	signingKey(t, "ES256")
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		r := newKubernetesRig(t, time.Minute, "ES256")
		answer := make(chan struct{})
		r.server.answer = func(ctx context.Context, _ *Reviewed) error {
			select {
			case <-answer:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		token := sign(t, "ES256", podToken(now, nil))
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := r.Authenticate(ctx, now, Request{Bearer: token}); !isUnavailable(err) || !errors.Is(err, context.Canceled) {
				t.Errorf("the call that was cancelled: %v", err)
			}
		})
		synctest.Wait()
		for range 100 {
			all.Go(func() {
				if err := r.try(t, now, token); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(answer)
		all.Wait()
		r.asks(t, 1)
	})
}

// TestReviewTTL: the API server is asked once for each token and TTL, less the
// ten seconds that it may be late itself; what has been deleted is refused
// then at the latest. Zero asks at every call.
func TestReviewTTL(t *testing.T) {
	now := time.Now()
	r := newKubernetesRig(t, time.Minute, "ES256")
	token := sign(t, "ES256", podToken(now, nil))
	for range 10 {
		if err := r.try(t, now, token); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.try(t, now.Add(time.Minute-reviewLag-1), token); err != nil {
		t.Fatal(err)
	}
	r.asks(t, 1)
	r.server.answer = deleted
	if err := r.try(t, now.Add(time.Minute-reviewLag-1), token); err != nil {
		t.Error(err)
	}
	if err := r.try(t, now.Add(time.Minute-reviewLag), token); err == nil {
		t.Error("the token counts after the TTL, although its service account was deleted")
	}
	r.asks(t, 2)

	for ttl, want := range map[time.Duration]int64{0: 10, reviewLag: 10, reviewLag + time.Second: 1} {
		r := newKubernetesRig(t, ttl, "ES256")
		for range 10 {
			if err := r.try(t, now, token); err != nil {
				t.Fatal(err)
			}
		}
		r.asks(t, want)
	}
}

// TestRefusalsAreBrief: a refusal is remembered for five seconds.
func TestRefusalsAreBrief(t *testing.T) {
	now := time.Now()
	r := newKubernetesRig(t, time.Minute, "ES256")
	token := sign(t, "ES256", podToken(now, nil))
	r.server.answer = deleted
	for range 10 {
		if err := r.try(t, now, token); err == nil {
			t.Fatal("a refused token counts")
		}
	}
	r.server.answer = nil
	if err := r.try(t, now.Add(refusedFor-1), token); err == nil {
		t.Error("the refusal is forgotten at once")
	}
	r.asks(t, 1)
	if err := r.try(t, now.Add(refusedFor), token); err != nil {
		t.Error(err)
	}
	r.asks(t, 2)

	always := newKubernetesRig(t, 0, "ES256")
	always.server.answer = deleted
	if err := always.try(t, now, token); err == nil {
		t.Error("a refused token counts")
	}
	always.server.answer = nil
	if err := always.try(t, now, token); err != nil {
		t.Errorf("a refusal is remembered although the API server is to be asked always: %v", err)
	}
}

// TestAPIServerDown (K-17): tokens accepted lately count until their time is
// up; that the others cannot be judged is not remembered.
func TestAPIServerDown(t *testing.T) {
	now := time.Now()
	r := newKubernetesRig(t, time.Minute, "ES256")
	token := sign(t, "ES256", podToken(now, nil))
	if err := r.try(t, now, token); err != nil {
		t.Fatal(err)
	}
	r.server.answer = func(context.Context, *Reviewed) error { return errors.New("503: no endpoints") }
	if err := r.try(t, now.Add(30*time.Second), token); err != nil {
		t.Errorf("accepted half a minute ago: %v", err)
	}
	for range 3 {
		err := r.try(t, now.Add(time.Minute), token)
		if !isUnavailable(err) || err.Error() != "have the API server review the token: 503: no endpoints" {
			t.Errorf("%v", err)
		}
	}
	r.asks(t, 4)
	r.server.answer = nil
	if err := r.try(t, now.Add(time.Minute), token); err != nil {
		t.Errorf("once it is back: %v", err)
	}
}

// TestAPIServerThatHangs: a review is given up, for all who wait.
func TestAPIServerThatHangs(t *testing.T) {
	signingKey(t, "ES256")
	synctest.Test(t, func(t *testing.T) {
		for _, ttl := range []time.Duration{0, time.Minute} {
			r := newKubernetesRig(t, ttl, "ES256")
			r.server.answer = func(ctx context.Context, _ *Reviewed) error { <-ctx.Done(); return context.Cause(ctx) }
			began := time.Now()
			err := r.try(t, began, sign(t, "ES256", podToken(began, nil)))
			if took := time.Since(began); took != reviewTimeout || !isUnavailable(err) || !strings.HasSuffix(err.Error(), "there was no answer in 5s") {
				t.Errorf("%v after %s", err, took)
			}
		}
	})
}

// TestNothingOutlivesTheToken: neither that it was verified nor its review.
func TestNothingOutlivesTheToken(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := newKubernetesRig(t, time.Hour, "ES256")
	token := sign(t, "ES256", podToken(now, map[string]any{"exp": now.Add(10 * time.Minute).Unix()}))
	for after, asks := range map[time.Duration]int64{0: 1, 10*time.Minute - 1: 1} {
		if err := r.try(t, now.Add(after), token); err != nil {
			t.Fatal(err)
		}
		r.asks(t, asks)
	}
	for n := range 3 { // within the leeway
		if err := r.try(t, now.Add(10*time.Minute), token); err != nil {
			t.Fatal(err)
		}
		r.asks(t, int64(2+n))
	}
	if err := r.try(t, now.Add(11*time.Minute), token); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after its end: %v", err)
	}
}

// TestWithdrawnKey: a token that was verified before does not outlive the key
// that vouched for it.
func TestWithdrawnKey(t *testing.T) {
	now := time.Now()
	for name, change := range map[string]func(*issuer){
		"withdrawn":           (*issuer).retire,
		"replaced":            func(i *issuer) { i.retire(); i.publishAs(t, "ES256-2", "ES256") },
		"of another issuer's": func(i *issuer) { i.name = "https://elsewhere" },
	} {
		r := newKubernetesRig(t, time.Minute, "ES256")
		token := sign(t, "ES256", podToken(now, nil))
		if err := r.try(t, now, token); err != nil {
			t.Fatal(err)
		}
		if err := r.settings.Keys.refresh(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := r.try(t, now, token); err != nil {
			t.Errorf("%s: before: %v", name, err)
		}
		change(r.issuer)
		if err := r.settings.Keys.refresh(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := r.try(t, now, token); err == nil {
			t.Errorf("%s: the token counts still", name)
		}
	}
}

func TestKubernetesTokensNeed(t *testing.T) {
	keys, server := NewKeys(newIssuer(t).fetch, nil), &apiServer{}
	for text, s := range map[string]KubernetesTokens{
		"a trust domain":     {Keys: keys, Review: server.review},
		"keys and reviews":   {TrustDomain: domain, Keys: keys},
		"is empty":           {TrustDomain: domain, Keys: keys, Review: server.review, Audiences: []string{"a", ""}},
		"is negative: -1m0s": {TrustDomain: domain, Keys: keys, Review: server.review, ReviewTTL: -time.Minute},
	} {
		if _, err := NewKubernetesToken(s); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzToken: no text is taken but tokens that the issuer signed, and none
// brings the parser down.
func FuzzToken(f *testing.F) {
	now := time.Unix(2e9, 0)
	r := newKubernetesRig(f, time.Minute, "ES256", "RS256")
	good := map[string]bool{}
	for _, kid := range []string{"ES256", "RS256"} {
		token := sign(f, kid, podToken(now, nil))
		good[token] = true
		f.Add(token)
		f.Add(slack(token))
		f.Add(sign(f, kid, podToken(now, map[string]any{"exp": nil})))
		f.Add(sign(f, kid, podToken(now, map[string]any{"aud": "x"})))
		f.Add(sign(f, kid, podToken(now, nil), map[jose.HeaderKey]any{"crit": []string{"b64"}, "b64": false}))
	}
	f.Add(forged(`{"alg":"none"}`, `{"iss":"`+testIssuer+`"}`, nil))
	f.Add(forged(`{"alg":"HS256","kid":"RS256"}`, `{"iss":"`+testIssuer+`","kubernetes.io":{}}`, nil))
	f.Add(forged(`{"alg":"ES256","kid":"ES256","jwk":{"kty":"oct","k":"AA"}}`, `{"iss":"`+testIssuer+`"}`, nil))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		id, err := r.Authenticate(t.Context(), now, Request{Bearer: token})
		if err == nil && !good[token] {
			t.Errorf("%q is taken for %s", token, id.Caller.ID())
		}
		if err != nil && good[token] {
			t.Errorf("a good token is refused: %v", err)
		}
		if err != nil && id != (Identity{}) {
			t.Errorf("%v, and an identity: %v", err, id)
		}
	})
}

// BenchmarkKubernetesToken: a token that was seen before, and a new one.
func BenchmarkKubernetesToken(b *testing.B) {
	now := time.Now()
	for _, kid := range []string{"RS256", "ES256"} {
		r := newKubernetesRig(b, time.Minute, kid)
		request := Request{Bearer: sign(b, kid, podToken(now, nil))}
		run := func(name string, before func()) {
			b.Run(kid+" "+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					before()
					if _, err := r.Authenticate(b.Context(), now, request); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("known", func() {})
		run("new", func() {
			clear(r.offline.proven.entries)
			clear(r.answers.entries)
		})
	}
}
