package authn

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// OIDCTokens is how tokens of an OpenID Connect issuer are judged.
type OIDCTokens struct {
	TrustDomain spiffeid.TrustDomain
	// Issuer is an HTTPS URL, exactly as in iss.
	Issuer string
	// Audience is that of tokens for us.
	Audience string
	// JWKSURI is where the issuer's keys are; empty: where its discovery document
	// says.
	JWKSURI string
	// Roots are those that the issuer's server is verified with; nil: the
	// machine's.
	Roots *x509.CertPool
	// Tell hears why the issuer's keys could not be fetched. It may be nil.
	Tell func(error)
}

// OIDCToken takes a token whose subject is system:serviceaccount:NAMESPACE:NAME.
// Nobody is asked whether that service account exists: the issuer's word
// counts until the token ends. An API server's own tokens are for
// KubernetesToken.
type OIDCToken struct {
	settings OIDCTokens
	offline  verifier
}

// NewOIDCToken returns the authenticator. It needs no network to start: until
// Run has fetched the issuer's keys it is unavailable.
func NewOIDCToken(s OIDCTokens) (*OIDCToken, error) {
	switch {
	case s.TrustDomain.IsZero():
		return nil, errors.New("OIDC tokens need a trust domain")
	case s.Audience == "":
		return nil, errors.New("OIDC tokens need an audience")
	}
	if err := checkHTTPS(s.Issuer); err != nil {
		return nil, fmt.Errorf("OIDC issuer %q: %w", s.Issuer, err)
	}
	if s.JWKSURI != "" {
		if err := checkHTTPS(s.JWKSURI); err != nil {
			return nil, fmt.Errorf("JWKS URI %q: %w", s.JWKSURI, err)
		}
	}
	a := &OIDCToken{settings: s}
	a.offline = verifier{keys: NewKeys(s.fetcher(), s.Tell), audiences: []string{s.Audience}, identify: a.identify}
	return a, nil
}

// Run fetches the issuer's keys, again and again, until ctx ends.
func (a *OIDCToken) Run(ctx context.Context) { a.offline.keys.Run(ctx) }

// Kind is of Authenticator.
func (*OIDCToken) Kind() string { return "OIDC token" }

// Authenticate is of Authenticator.
func (a *OIDCToken) Authenticate(ctx context.Context, now time.Time, r Request) (Identity, error) {
	if r.Bearer == "" {
		return Identity{}, ErrNoProof
	}
	if p, ok := a.offline.known(now, sha256.Sum256([]byte(r.Bearer))); ok {
		return p.identity, nil
	}
	if g, ok := glanceAt(r.Bearer); !ok || g.Issuer != a.settings.Issuer {
		return Identity{}, ErrNoProof
	}
	p, err := a.offline.verify(ctx, now, r.Bearer)
	return p.identity, err
}

func (a *OIDCToken) identify(c claims) (Identity, error) {
	of, ok := accountOf(c.Subject)
	if !ok {
		return Identity{}, errors.New("the token's subject is not of the form system:serviceaccount:NAMESPACE:NAME")
	}
	caller, err := of.caller(a.settings.TrustDomain, a.Kind(), "token of "+a.settings.Issuer+", "+evidenceOf(c.Claims))
	return Identity{Caller: caller}, err
}

func checkHTTPS(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("is no URL of the form https://HOST/PATH")
	case u.Scheme != "https":
		return errors.New("is not HTTPS: whoever is on the way could put in keys")
	}
	return nil
}

// fetcher reads the discovery document and the keys.
func (s OIDCTokens) fetcher() Fetch {
	web := webClient(s.Roots)
	return func(ctx context.Context) (string, []byte, error) {
		keysAt := s.JWKSURI
		if keysAt == "" {
			text, err := download(ctx, web, strings.TrimSuffix(s.Issuer, "/")+"/.well-known/openid-configuration")
			if err != nil {
				return "", nil, fmt.Errorf("discover %s: %w", s.Issuer, err)
			}
			issuer, uri, err := ParseDiscovery(text)
			if err != nil {
				return "", nil, fmt.Errorf("discover %s: %w", s.Issuer, err)
			}
			if issuer != s.Issuer {
				return "", nil, fmt.Errorf("discover %s: its document is of the issuer %.200q", s.Issuer, issuer)
			}
			if err := checkHTTPS(uri); err != nil {
				return "", nil, fmt.Errorf("discover %s: its jwks_uri %w", s.Issuer, err)
			}
			keysAt = uri
		}
		jwks, err := download(ctx, web, keysAt)
		return s.Issuer, jwks, err
	}
}

// webTimeout bounds one request from connecting to the last byte.
const webTimeout = 6 * time.Second

// webClient follows redirects within one host only: an issuer does not choose
// where else in our network we ask.
func webClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: webTimeout,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: webTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    webTimeout,
			ResponseHeaderTimeout:  webTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true, // the next request is minutes away
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			const hops = 3
			switch {
			case next.URL.Scheme != "https" || next.URL.Host != via[0].URL.Host:
				return errors.New("it redirects to another host, which is not followed")
			case len(via) > hops:
				return fmt.Errorf("it redirects more than %d times", hops)
			}
			return nil
		},
	}
}

func download(ctx context.Context, web *http.Client, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := web.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", address, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, MaxPublished+1))
	if err == nil && len(text) > MaxPublished {
		err = fmt.Errorf("GET %s: the answer is larger than %d bytes", address, MaxPublished)
	}
	return text, err
}
