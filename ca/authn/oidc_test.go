package authn

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	discovery = "/.well-known/openid-configuration"
	jwksPath  = "/keys"
)

// website is an issuer with a website.
type website struct {
	*issuer
	*httptest.Server
	// pages are answered instead of what the issuer publishes.
	pages map[string]http.HandlerFunc
	hits  map[string]int // one request at a time
}

func newWebsite(t testing.TB) *website {
	t.Helper()
	w := &website{issuer: newIssuer(t, "ES256"), pages: map[string]http.HandlerFunc{}, hits: map[string]int{}}
	w.Server = httptest.NewTLSServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.Close)
	w.name = w.URL
	return w
}

func (w *website) serve(rw http.ResponseWriter, r *http.Request) {
	w.hits[r.URL.Path]++
	page, changed := w.pages[r.URL.Path]
	switch {
	case changed:
		page(rw, r)
	case r.URL.Path == discovery:
		_ = json.NewEncoder(rw).Encode(map[string]string{"issuer": w.URL, "jwks_uri": w.URL + jwksPath})
	case r.URL.Path == jwksPath:
		_, text, _ := w.fetch(r.Context())
		_, _ = rw.Write(text)
	default:
		http.NotFound(rw, r)
	}
}

func (w *website) settings() OIDCTokens {
	roots := x509.NewCertPool()
	roots.AddCert(w.Certificate())
	return OIDCTokens{TrustDomain: domain, Issuer: w.URL, Audience: "citadel", Roots: roots}
}

func (w *website) token(t testing.TB, now time.Time, edits map[string]any) string {
	t.Helper()
	c := podToken(now, map[string]any{"iss": w.URL, "aud": "citadel", "sub": "system:serviceaccount:vm:db", "nbf": nil, "kubernetes.io": nil})
	for k, v := range edits {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return sign(t, "ES256", c)
}

func newOIDC(t testing.TB, s OIDCTokens) *OIDCToken {
	t.Helper()
	a, err := NewOIDCToken(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOIDCToken(t *testing.T) {
	now := time.Now()
	w := newWebsite(t)
	a := newOIDC(t, w.settings())
	token := w.token(t, now, nil)
	try := func(token string) (Identity, error) {
		return a.Authenticate(t.Context(), now, Request{Bearer: token})
	}
	if _, err := try(token); !isUnavailable(err) {
		t.Errorf("before there are keys: %v", err)
	}
	if err := a.offline.keys.refresh(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		id, err := try(token)
		if err != nil || id.Pod != (Pod{}) || id.Caller.ID().String() != "spiffe://cluster.local/ns/vm/sa/db" {
			t.Fatalf("%v, %v", id, err)
		}
		if want := "OIDC token token of " + w.URL + `, jti "0f-1" until `; !strings.Contains(fmt.Sprint(id.Caller), want) {
			t.Errorf("caller %v, want %q", id.Caller, want)
		}
	}
	id, err := try(w.token(t, now, map[string]any{"jti": strings.Repeat("\n", 1000)}))
	if err != nil || len(fmt.Sprint(id.Caller)) > 600 || strings.Contains(fmt.Sprint(id.Caller), "\n") {
		t.Errorf("evidence with a long jti: %v, %v", id, err)
	}
	const form = "the token's subject is not of the form system:serviceaccount:NAMESPACE:NAME"
	for name, c := range map[string]struct{ token, err string }{
		"none":                {"", ErrNoProof.Error()},
		"another issuer's":    {w.token(t, now, map[string]any{"iss": testIssuer}), ErrNoProof.Error()},
		"for others":          {w.token(t, now, map[string]any{"aud": "istio-ca"}), "the token is not for us: its audience must be citadel"},
		"no audience":         {w.token(t, now, map[string]any{"aud": nil}), "the token has no audience (aud): use one for citadel"},
		"no end":              {w.token(t, now, map[string]any{"exp": nil}), "the token has no end (exp)"},
		"expired":             {w.token(t, now, map[string]any{"exp": now.Add(-time.Hour).Unix()}), "the token expired at "},
		"a person":            {w.token(t, now, map[string]any{"sub": "alice@example.org"}), form},
		"no subject":          {w.token(t, now, map[string]any{"sub": nil}), form},
		"no name":             {w.token(t, now, map[string]any{"sub": "system:serviceaccount:vm:"}), form},
		"no namespace":        {w.token(t, now, map[string]any{"sub": "system:serviceaccount::db"}), form},
		"more than a name":    {w.token(t, now, map[string]any{"sub": "system:serviceaccount:vm:db:x"}), form},
		"a path":              {w.token(t, now, map[string]any{"sub": "system:serviceaccount:vm:../x"}), "the token's service account has no SPIFFE ID"},
		"a name of dots":      {w.token(t, now, map[string]any{"sub": "system:serviceaccount:..:db"}), "the token's service account has no SPIFFE ID"},
		"signed by another's": {sign(t, "ES256-2", map[string]any{"iss": w.URL}), "the token's key is not known"},
	} {
		if _, err := try(c.token); err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
	w.retire()
	if err := a.offline.keys.refresh(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := try(token); err == nil {
		t.Error("a token outlives its key")
	}
}

// TestOIDCFetch: what an issuer's website may answer (specifications, negative
// test 6).
func TestOIDCFetch(t *testing.T) {
	elsewhere := newWebsite(t)
	document := func(issuer, uri string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(rw).Encode(map[string]string{"issuer": issuer, "jwks_uri": uri})
		}
	}
	for name, c := range map[string]struct {
		change func(*website, *OIDCTokens)
		err    string
	}{
		"by discovery":    {func(*website, *OIDCTokens) {}, ""},
		"keys by setting": {func(w *website, s *OIDCTokens) { s.JWKSURI = w.URL + jwksPath; w.pages[discovery] = http.NotFound }, ""},
		"a redirect within the host": {func(w *website, _ *OIDCTokens) {
			w.pages[discovery] = document(w.URL, w.URL+"/old")
			w.pages["/old"] = http.RedirectHandler(jwksPath, http.StatusFound).ServeHTTP
		}, ""},
		"a redirect to another host": {func(w *website, _ *OIDCTokens) {
			w.pages[jwksPath] = http.RedirectHandler(elsewhere.URL+jwksPath, http.StatusFound).ServeHTTP
		}, "it redirects to another host, which is not followed"},
		"discovery redirected": {func(w *website, _ *OIDCTokens) {
			w.pages[discovery] = http.RedirectHandler(elsewhere.URL+discovery, http.StatusMovedPermanently).ServeHTTP
		}, "it redirects to another host, which is not followed"},
		"a redirect to plain HTTP": {func(w *website, _ *OIDCTokens) {
			w.pages[jwksPath] = http.RedirectHandler("http://"+w.Listener.Addr().String()+jwksPath, http.StatusFound).ServeHTTP
		}, "it redirects to another host, which is not followed"},
		"redirects without end": {func(w *website, _ *OIDCTokens) {
			w.pages[jwksPath] = http.RedirectHandler(jwksPath, http.StatusFound).ServeHTTP
		}, "it redirects more than 3 times"},
		"another issuer's document": {func(w *website, _ *OIDCTokens) { w.pages[discovery] = document("https://example.org", w.URL+jwksPath) }, `its document is of the issuer "https://example.org"`},
		"the issuer with a slash":   {func(w *website, _ *OIDCTokens) { w.pages[discovery] = document(w.URL+"/", w.URL+jwksPath) }, "its document is of the issuer"},
		"keys by plain HTTP":        {func(w *website, _ *OIDCTokens) { w.pages[discovery] = document(w.URL, "http://example.org/keys") }, "its jwks_uri is not HTTPS"},
		"keys in a file":            {func(w *website, _ *OIDCTokens) { w.pages[discovery] = document(w.URL, "file:///etc/passwd") }, "its jwks_uri is no URL"},
		"keys nowhere":              {func(w *website, _ *OIDCTokens) { w.pages[discovery] = document(w.URL, "") }, "its jwks_uri is no URL"},
		"not found":                 {func(w *website, _ *OIDCTokens) { w.pages[jwksPath] = http.NotFound }, "404 Not Found"},
		"without end": {func(w *website, _ *OIDCTokens) {
			w.pages[jwksPath] = func(rw http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := rw.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
			}
		}, "the answer is larger than 262144 bytes"},
		"headers without end": {func(w *website, _ *OIDCTokens) {
			w.pages[jwksPath] = func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("X", strings.Repeat("x", 1<<17)) }
		}, "server response headers exceeded"},
		"words": {func(w *website, _ *OIDCTokens) {
			w.pages[jwksPath] = func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") }
		}, "read the key set"},
		"an unknown root": {func(_ *website, s *OIDCTokens) { s.Roots = x509.NewCertPool() }, "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWebsite(t)
			s := w.settings()
			c.change(w, &s)
			a := newOIDC(t, s)
			err := a.offline.keys.refresh(t.Context(), true)
			switch {
			case c.err == "" && (err != nil || a.offline.keys.Issuer() != w.URL):
				t.Error(err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
	if len(elsewhere.hits) > 0 {
		t.Errorf("another host was asked: %v", elsewhere.hits)
	}
}

// TestOIDCServerThatHangs is left when the attempt's time is up.
func TestOIDCServerThatHangs(t *testing.T) {
	w := newWebsite(t)
	asked := make(chan struct{})
	w.pages[discovery] = func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}
	s := w.settings()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, _, err := s.fetcher()(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if c := webClient(nil); c.Timeout != webTimeout {
		t.Errorf("time limit %s", c.Timeout)
	}
}

func TestOIDCSettings(t *testing.T) {
	good := OIDCTokens{TrustDomain: domain, Issuer: "https://issuer.example.org/realm", Audience: "citadel"}
	newOIDC(t, good)
	for text, edit := range map[string]func(*OIDCTokens){
		"need a trust domain":          func(s *OIDCTokens) { s.TrustDomain = OIDCTokens{}.TrustDomain },
		"need an audience":             func(s *OIDCTokens) { s.Audience = "" },
		`OIDC issuer "": is no URL`:    func(s *OIDCTokens) { s.Issuer = "" },
		`OIDC issuer "http://a": is n`: func(s *OIDCTokens) { s.Issuer = "http://a" },
		`OIDC issuer "https://u@a"`:    func(s *OIDCTokens) { s.Issuer = "https://u@a" },
		`JWKS URI "http://a": is not`:  func(s *OIDCTokens) { s.JWKSURI = "http://a" },
		`JWKS URI "::": is no URL`:     func(s *OIDCTokens) { s.JWKSURI = "::" },
	} {
		s := good
		edit(&s)
		if _, err := NewOIDCToken(s); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
