package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/singleflight"
)

// DefaultAudience is the audience of tokens that Istio's proxies mount.
const DefaultAudience = "istio-ca"

const (
	// reviewTimeout bounds one review.
	reviewTimeout = 5 * time.Second
	// refusedFor is how long a review's refusal is remembered (K-16).
	refusedFor = 5 * time.Second
	// reviewLag is for how long the API server itself remembers that it has
	// accepted a token: a review may be that late.
	reviewLag = 10 * time.Second
)

// legacyIssuer is the issuer of tokens in Secrets.
const legacyIssuer = "kubernetes/serviceaccount"

// Review asks the API server whether a token counts now (a TokenReview). An
// error means that there is no answer, and says nothing of the token.
type Review func(ctx context.Context, token string, audiences []string) (Reviewed, error)

// Reviewed is the API server's answer. The zero Reviewed refuses.
type Reviewed struct {
	Authenticated   bool
	User, UID       string
	Groups          []string
	Audiences       []string
	PodName, PodUID string // empty when the token is bound to no pod
}

// KubernetesTokens is how tokens of service accounts are judged.
type KubernetesTokens struct {
	TrustDomain spiffeid.TrustDomain
	// Audiences are those of tokens for us; DefaultAudience if there are none.
	Audiences []string
	// Keys are the API server's. Required; the caller runs them.
	Keys *Keys
	// Review is required.
	Review Review
	// ReviewTTL is for how long after its service account or pod has been deleted
	// a token may count. The API server takes up to ten seconds of it, the rest is
	// for how long its answer is used. Zero: it is asked at every call.
	ReviewTTL time.Duration
}

// KubernetesToken takes the token of a service account. It is verified offline
// first, so that nobody can make the API server work for a token that it never
// issued; then the API server says whether its service account and pod exist.
type KubernetesToken struct {
	settings KubernetesTokens
	offline  verifier
	answers  memory[error] // of reviews; nil: accepted
	reviews  singleflight.Group
}

// NewKubernetesToken returns the authenticator. It needs no network to start:
// until its keys have been fetched it is unavailable.
func NewKubernetesToken(s KubernetesTokens) (*KubernetesToken, error) {
	if len(s.Audiences) == 0 {
		s.Audiences = []string{DefaultAudience}
	}
	switch {
	case s.TrustDomain.IsZero():
		return nil, errors.New("tokens of Kubernetes need a trust domain")
	case s.Keys == nil || s.Review == nil:
		return nil, errors.New("tokens of Kubernetes need the API server's keys and reviews")
	case slices.Contains(s.Audiences, ""):
		return nil, errors.New("an audience of tokens is empty")
	case s.ReviewTTL < 0:
		return nil, fmt.Errorf("the TTL of token reviews is negative: %s", s.ReviewTTL)
	}
	a := &KubernetesToken{settings: s}
	a.offline = verifier{keys: s.Keys, audiences: s.Audiences, identify: a.identify}
	return a, nil
}

// Kind is of Authenticator.
func (*KubernetesToken) Kind() string { return "Kubernetes token" }

// Authenticate is of Authenticator. While the API server is down, tokens count
// that it has accepted within the TTL, and no others (K-17).
func (a *KubernetesToken) Authenticate(ctx context.Context, now time.Time, r Request) (Identity, error) {
	if r.Bearer == "" {
		return Identity{}, ErrNoProof
	}
	d := digest(sha256.Sum256([]byte(r.Bearer)))
	p, ok := a.offline.known(now, d)
	if !ok {
		if err := a.concerns(r.Bearer); err != nil {
			return Identity{}, err
		}
		var err error
		if p, err = a.offline.verify(ctx, now, r.Bearer); err != nil {
			return Identity{}, err
		}
	}
	if err := a.alive(ctx, now, d, r.Bearer, p); err != nil {
		return Identity{}, err
	}
	return p.identity, nil
}

// concerns is nil for a token that says it is of the API server's.
func (a *KubernetesToken) concerns(token string) error {
	g, ok := glanceAt(token)
	issuer := a.settings.Keys.Issuer()
	switch {
	case !ok:
		return ErrNoProof
	case g.Issuer == legacyIssuer:
		return errors.New("the token is one of a Secret, which has no end and no audience: mount a projected token for " + a.offline.forWhom())
	case issuer == "" && g.Kubernetes != nil:
		return &Unavailable{errNoKeys}
	case issuer == "" || g.Issuer != issuer:
		return ErrNoProof
	}
	return nil
}

// identify makes of a verified token whom it names.
func (a *KubernetesToken) identify(c claims) (Identity, error) {
	k := c.Kubernetes
	if k == nil || k.ServiceAccount.UID == "" {
		return Identity{}, errors.New("the token names no service account of Kubernetes")
	}
	of, ok := accountOf(c.Subject)
	if !ok || of != (account{k.Namespace, k.ServiceAccount.Name}) {
		return Identity{}, errors.New("the token's subject is not the service account that it names")
	}
	evidence := "token of no pod, "
	var pod Pod
	if k.Pod != nil {
		if k.Pod.Name == "" || k.Pod.UID == "" {
			return Identity{}, errors.New("the token names a pod without name or UID")
		}
		pod = Pod{Namespace: of.namespace, Name: k.Pod.Name, UID: k.Pod.UID, ServiceAccount: of.name}
		evidence = fmt.Sprintf("token of pod %s (uid %s), ", pod.Name, pod.UID)
	}
	caller, err := of.caller(a.settings.TrustDomain, a.Kind(), evidence+evidenceOf(c.Claims))
	return Identity{Caller: caller, Pod: pod}, err
}

// alive is nil when the API server has said so lately enough.
func (a *KubernetesToken) alive(ctx context.Context, now time.Time, d digest, token string, p proof) error {
	if a.settings.ReviewTTL == 0 {
		return a.ask(ctx, token, p)
	}
	if answer, ok := a.answers.get(now, d); ok {
		return answer
	}
	review := a.reviews.DoChan(string(d[:]), func() (any, error) {
		if answer, ok := a.answers.get(now, d); ok { // of a review that has just ended
			return nil, answer
		}
		// The review is for all who wait for it: it does not end with who began it.
		err := a.ask(context.WithoutCancel(ctx), token, p)
		if _, none := errors.AsType[*Unavailable](err); none {
			return nil, err
		}
		until := now.Add(a.settings.ReviewTTL - reviewLag)
		if err != nil {
			until = now.Add(refusedFor)
		}
		if end := p.expires(); end.Before(until) {
			until = end
		}
		a.answers.put(now, d, err, until)
		return nil, err
	})
	select {
	case done := <-review:
		return done.Err
	case <-ctx.Done():
		return &Unavailable{fmt.Errorf("wait for the token's review: %w", context.Cause(ctx))}
	}
}

// ask has the API server review a token.
func (a *KubernetesToken) ask(ctx context.Context, token string, p proof) error {
	ctx, cancel := context.WithTimeoutCause(ctx, reviewTimeout, fmt.Errorf("there was no answer in %s", reviewTimeout))
	defer cancel()
	reviewed, err := a.settings.Review(ctx, token, a.settings.Audiences)
	if err != nil {
		return &Unavailable{fmt.Errorf("have the API server review the token: %w", err)}
	}
	return a.agree(p.claims, reviewed)
}

// agree holds the API server's answer and what the token says against each
// other: neither counts alone.
func (a *KubernetesToken) agree(c claims, r Reviewed) error {
	var pod objectClaim
	if c.Kubernetes.Pod != nil {
		pod = *c.Kubernetes.Pod
	}
	of, isAccount := accountOf(r.User)
	differs := ""
	switch {
	case !r.Authenticated:
		return errors.New("the API server does not accept the token (any more): its service account or pod may have been deleted")
	case !common(r.Audiences, a.settings.Audiences):
		differs = "the audience"
	case !isAccount || !slices.Contains(r.Groups, "system:serviceaccounts"):
		differs = "that it is of a service account"
	case of.subject() != c.Subject || r.UID != c.Kubernetes.ServiceAccount.UID:
		differs = "the service account"
	case r.PodName != pod.Name || r.PodUID != pod.UID:
		differs = "the pod"
	default:
		return nil
	}
	return fmt.Errorf("the API server's review and the token do not agree on %s", differs)
}
