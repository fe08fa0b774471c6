package main

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
	"k8s.io/client-go/kubernetes"

	"citadel/ca/authn"
	"citadel/ca/kube"
)

// joinLookups bounds how many join tokens a second are looked up: each costs
// the API server a read, and anybody can send one.
const joinLookups = 200

// proofs are the ways in which callers of the CSR API show who they are.
type proofs struct {
	chain          authn.Chain
	mayImpersonate func(context.Context, authn.Identity, spiffeid.ID) error // nil: nobody may
	run            []func(context.Context)                                  // what they need as long as the API is served
}

// newProofs makes them in the order in which they count.
func (p *process) newProofs(client kubernetes.Interface) (*proofs, error) {
	keys := authn.NewKeys(kube.TokenKeys(client), func(err error) { p.log.Warn("the API server's keys of tokens are not read", "err", err) })
	kubernetesToken, err := authn.NewKubernetesToken(authn.KubernetesTokens{TrustDomain: p.cfg.td, Audiences: p.cfg.tokenAudience,
		Keys: keys, Review: kube.Review(client), ReviewTTL: p.cfg.reviewTTL})
	if err != nil {
		return nil, fmt.Errorf("accept Kubernetes tokens: %w", err)
	}
	all := &proofs{chain: authn.Chain{
		authn.ClientCertificate{RenewExpiredFor: p.cfg.renewExpired},
		authn.Join{TrustDomain: p.cfg.td, Tokens: kube.JoinTokens{Client: client, Namespace: p.cfg.namespace},
			Lookups: rate.NewLimiter(joinLookups, joinLookups)},
		kubernetesToken,
	}, run: []func(context.Context){keys.Run}}
	if p.cfg.oidcIssuer != "" {
		oidc, err := authn.NewOIDCToken(authn.OIDCTokens{TrustDomain: p.cfg.td, Issuer: p.cfg.oidcIssuer, Audience: p.cfg.oidcAudience, JWKSURI: p.cfg.oidcKeys,
			Tell: func(err error) { p.log.Warn("the keys of --oidc-issuer are not read", "err", err) }})
		if err != nil {
			return nil, fmt.Errorf("--oidc-issuer: %w", err)
		}
		all.chain, all.run = append(all.chain, oidc), append(all.run, oidc.Run)
	}
	if len(p.cfg.trustedNodes) > 0 {
		nodes, err := kube.NewNodes(client, p.cfg.td, p.cfg.trustedNodes)
		if err != nil {
			return nil, fmt.Errorf("--trusted-node-accounts: %w", err)
		}
		all.mayImpersonate, all.run = nodes.MayImpersonate, append(all.run, nodes.Run)
	}
	return all, nil
}
