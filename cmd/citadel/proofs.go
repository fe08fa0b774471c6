package main

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/authn"
	"citadel/ca/kube"
)

// joinLookups bounds how many join tokens a second are looked up: each costs
// the API server a read, and anybody can send one. One address can have a quarter.
const joinLookups = 200

// proofs are the ways in which callers of the CSR API show who they are.
type proofs struct {
	chain          authn.Chain
	mayImpersonate func(context.Context, authn.Identity, spiffeid.ID) error // nil: nobody may
	run            []func(context.Context)                                  // what they need as long as the API is served
}

// newProofs makes them in the order in which they count.
func (p *process) newProofs(s stores) (*proofs, error) {
	all := &proofs{chain: authn.Chain{
		authn.ClientCertificate{RenewExpiredFor: p.cfg.renewExpired},
		authn.Join{TrustDomain: p.cfg.td, Tokens: s.joinTokens, Lookups: authn.NewLookups(joinLookups)},
	}}
	for _, add := range []func(*proofs) error{p.addKubernetesTokens, p.addOIDCTokens, p.addNodeProxies} {
		if err := add(all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// addKubernetesTokens of the API server, where there is one.
func (p *process) addKubernetesTokens(all *proofs) error {
	client := p.cfg.client
	if client == nil {
		return nil
	}
	keys := authn.NewKeys(kube.TokenKeys(client), func(err error) { p.log.Warn("the API server's keys of tokens are not read", "err", err) })
	tokens, err := authn.NewKubernetesToken(authn.KubernetesTokens{TrustDomain: p.cfg.td, Audiences: p.cfg.tokenAudience,
		Keys: keys, Review: kube.Review(client), ReviewTTL: p.cfg.reviewTTL})
	if err != nil {
		return fmt.Errorf("accept Kubernetes tokens: %w", err)
	}
	all.chain, all.run = append(all.chain, tokens), append(all.run, keys.Run)
	return nil
}

// addOIDCTokens of --oidc-issuer.
func (p *process) addOIDCTokens(all *proofs) error {
	if p.cfg.oidcIssuer == "" {
		return nil
	}
	tokens, err := authn.NewOIDCToken(authn.OIDCTokens{TrustDomain: p.cfg.td, Issuer: p.cfg.oidcIssuer, Audience: p.cfg.oidcAudience, JWKSURI: p.cfg.oidcKeys,
		Tell: func(err error) { p.log.Warn("the keys of --oidc-issuer are not read", "err", err) }})
	if err != nil {
		return fmt.Errorf("--oidc-issuer: %w", err)
	}
	all.chain, all.run = append(all.chain, tokens), append(all.run, tokens.Run)
	return nil
}

// addNodeProxies lets those of --trusted-node-accounts ask for others.
func (p *process) addNodeProxies(all *proofs) error {
	if len(p.cfg.trustedNodes) == 0 {
		return nil
	}
	nodes, err := kube.NewNodes(p.cfg.client, p.cfg.td, p.cfg.trustedNodes)
	if err != nil {
		return fmt.Errorf("--trusted-node-accounts: %w", err)
	}
	all.mayImpersonate, all.run = nodes.MayImpersonate, append(all.run, nodes.Run)
	return nil
}
