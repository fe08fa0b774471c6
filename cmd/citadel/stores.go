package main

import (
	"context"
	"time"

	"k8s.io/client-go/kubernetes"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/kube"
	"citadel/ca/policyfeed"
	"citadel/ca/statedir"
	"citadel/ca/trust"
)

// stores is what outlives this process, and where that is kept: in a cluster,
// or in the directory of --state-dir.
type stores struct {
	signer     func(context.Context) (kept, error)
	bans       func(context.Context) (ca.BanList, error)
	bansHold   time.Duration // how long they are gone by when they cannot be read again
	joinTokens authn.JoinTokens
	// sweep deletes the join tokens that expired more than a time ago.
	sweep  func(ctx context.Context, now time.Time, keep time.Duration) error
	policy policySource
}

// kept is what an authority signs with, and where it is from.
type kept struct {
	*trust.Signer
	place string // empty: the files of flags
	// holds tells whether the place holds it still; nil: nobody looks.
	holds func(context.Context) error
}

// cluster keeps everything behind the API server.
func (p *process) cluster(client kubernetes.Interface) stores {
	tokens := kube.JoinTokens{Client: client, Namespace: p.cfg.namespace}
	return stores{
		signer:     func(ctx context.Context) (kept, error) { return p.cfg.loadSigner(ctx, client, p.log, p.rightClock) },
		bans:       func(ctx context.Context) (ca.BanList, error) { return kube.ReadBans(ctx, client, p.cfg.namespace) },
		bansHold:   bansHoldInCluster,
		joinTokens: tokens, sweep: tokens.Sweep, policy: p.clusterPolicy,
	}
}

// directory keeps everything in one.
func (p *process) directory(dir *statedir.Dir) stores {
	tokens := dir.JoinTokens()
	return stores{
		signer:     func(context.Context) (kept, error) { return p.cfg.loadFrom(dir, p.log) },
		bans:       dir.ReadBans,
		bansHold:   bansHoldInFolder,
		joinTokens: tokens, sweep: tokens.Sweep,
		policy: func(ctx context.Context, feed *policyfeed.Feed, tell func(error)) {
			dir.WatchPolicy(ctx, p.cfg.namespace, feed, tell)
		},
	}
}
