package main

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"

	"citadel/ca/authn"
	"citadel/ca/caserver"
	"citadel/ca/kube"
	"citadel/ca/policyfeed"
)

// policySource feeds what decides about mTLS, until ctx ends.
type policySource func(ctx context.Context, feed *policyfeed.Feed, tell func(error))

// clusterPolicy watches the API server.
func (p *process) clusterPolicy(ctx context.Context, feed *policyfeed.Feed, tell func(error)) {
	kube.Policy{Client: p.cfg.client, Custom: p.cfg.custom, Namespace: p.cfg.namespace, Feed: feed, Tell: tell}.Run(ctx)
}

// newPolicy makes the policy service's settings; nil where it is not served.
func (p *process) newPolicy(proofs *proofs) *caserver.PolicySettings {
	if !p.cfg.policy {
		return nil
	}
	feed := policyfeed.New(p.cfg.generation)
	p.watchPolicyMetrics(feed)
	return &caserver.PolicySettings{Feed: feed, Authenticators: proofs.ofWorkloads(), Readers: p.cfg.readers, Observe: p.observePolicy}
}

// ofWorkloads are the proofs of who has an identity: a join token is for getting
// one, and an expired certificate for getting another.
func (all *proofs) ofWorkloads() authn.Chain {
	var chain authn.Chain
	for _, a := range all.chain {
		switch a.(type) {
		case authn.Join:
		case authn.ClientCertificate:
			chain = append(chain, authn.ClientCertificate{})
		default:
			chain = append(chain, a)
		}
	}
	return chain
}

// feedPolicy runs the source, and logs when there is something to answer from,
// and what is new to be known of the mesh config.
func (p *process) feedPolicy(ctx context.Context, source policySource, feed *policyfeed.Feed) {
	p.log.Info("policy is being read", "generation", p.cfg.generation.String(), "readers", p.cfg.policyReaders)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		source(ctx, feed, func(err error) { p.log.Warn("policy", "err", err) })
	}()
	before := feed.State()
	for ctx.Err() == nil {
		select {
		case <-before.Changed:
		case <-ctx.Done():
			continue
		}
		state := feed.State()
		if before.Snapshot == nil && state.Snapshot != nil {
			p.tellServed(state)
		}
		if p.cfg.stateDir != "" { // in a cluster, admission tells, and the metric
			p.tellNew(before, state)
		}
		told := before.MeshWarnings()
		for _, w := range state.MeshWarnings() {
			if !slices.Contains(told, w) {
				p.log.Warn("policy", "warning", w.Message)
			}
		}
		before = state
	}
	<-ended
}

// tellNew logs which objects no longer count.
func (p *process) tellNew(before, state *policyfeed.State) {
	told := before.Problems()
	for _, u := range state.Unread { // which the source tells itself
		told = append(told, u.String())
	}
	for _, text := range state.Problems() {
		if !slices.Contains(told, text) {
			p.log.Warn("policy: an object does not count", "err", text)
		}
	}
}

// tellServed logs that there is something to answer from.
func (p *process) tellServed(state *policyfeed.State) {
	p.log.Info("policy is served", "version", state.Version, "generation", state.Snapshot.Generation().String(), "objects", len(state.Items()), "problems", len(state.Problems()))
	if got := state.Snapshot.TrustDomain(); got != p.cfg.td.Name() {
		p.log.Warn("the mesh config says another trust domain than this citadel: by it, agents expect servers that there are not. Say it as trustDomain in the mesh config: ConfigMap istio, key mesh", "mesh", got, "trustDomain", p.cfg.td.Name())
	}
}

// watchPolicyMetrics shows the state of now.
func (p *process) watchPolicyMetrics(feed *policyfeed.Feed) {
	p.metrics.gauge("citadel_policy_objects", "Objects that decide about mTLS.", func() float64 { return float64(len(feed.State().Items())) })
	p.metrics.gauge("citadel_policy_problems", "Objects that do not count, for they cannot be read or are not valid, kinds that are not heard of, a mesh config that was deleted, and keys of it that are not known.", func() float64 {
		state := feed.State()
		return float64(len(state.Problems()) + len(state.MeshWarnings()))
	})
	p.metrics.gauge("citadel_policy_known", "1 once what decides about mTLS has been read, and agents are told.", func() float64 {
		if feed.State().Snapshot == nil {
			return 0
		}
		return 1
	})
}

// observePolicy logs calls of the policy service that failed.
func (p *process) observePolicy(c caserver.Call) {
	if c.Err == nil {
		return
	}
	attrs := []any{"method", c.Method, "ref", c.Ref, "code", c.Code.String(), "peer", c.Address, "err", c.Err}
	if !c.Caller.IsZero() {
		attrs = append(attrs, "caller", c.Caller.String())
	}
	if c.Code == codes.Internal {
		p.log.Error("no policy for a caller", attrs...)
		return
	}
	p.log.Warn("no policy for a caller", attrs...)
}
