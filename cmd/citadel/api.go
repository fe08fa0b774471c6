package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"citadel/ca"
	"citadel/ca/caserver"
)

const (
	// apiGrace is what calls under way have to end after a stop.
	apiGrace = 3 * time.Second
	// sweepEvery and keepTokens say when join tokens that expired are deleted.
	sweepEvery = 10 * time.Minute
	keepTokens = 24 * time.Hour
	// tidyEvery is how soon memory goes back that a rush of connections took and
	// needs no longer.
	tidyEvery = time.Minute
	// ownAccount is the service account of deploy/.
	ownAccount = "istio-citadel-service-account"
)

// serveAPI serves the CSR API until ctx ends. A port that is taken ends the
// process: half of it is not what anybody started.
func (p *process) serveAPI(ctx context.Context, s stores, authority *ca.Authority) error {
	proofs, err := p.newProofs(s)
	if err != nil {
		return err
	}
	policy := p.newPolicy(proofs)
	server, err := p.newAPI(proofs, authority, policy)
	if err != nil {
		return err
	}
	listener, err := p.listenAPI()
	if err != nil {
		return err
	}
	p.apiServed.Store(true)
	p.log.Info("CSR API", "address", listener.Addr().String(), "names", p.cfg.serverNames)
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range proofs.run {
		group.Go(func() error { run(ctx); return nil })
	}
	if policy != nil {
		group.Go(func() error { p.feedPolicy(ctx, s.policy, policy.Feed); return nil })
	}
	group.Go(func() error { return server.Serve(ctx, listener, apiGrace) })
	group.Go(func() error {
		every(ctx, time.Second, func() { server.SetServing(p.ready() == nil) })
		return nil
	})
	group.Go(func() error { every(ctx, sweepEvery, func() { p.sweepTokens(ctx, s) }); return nil })
	group.Go(func() error { every(ctx, refusedEvery, p.tellRefused); return nil })
	group.Go(func() error { every(ctx, tidyEvery, debug.FreeOSMemory); return nil })
	return group.Wait()
}

// every does something now and then again and again until ctx ends.
func every(ctx context.Context, wait time.Duration, do func()) {
	ticker := time.NewTicker(wait)
	defer ticker.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (p *process) newAPI(proofs *proofs, authority *ca.Authority, policy *caserver.PolicySettings) (*caserver.Server, error) {
	certificate, err := p.servingCertificate(authority)
	if err != nil {
		return nil, err
	}
	limits := caserver.Limits{PerCaller: p.cfg.callerRate, PerCallerBurst: p.cfg.callerBurst, PerSecond: p.cfg.allRate, InFlight: p.cfg.inFlight,
		Connections: p.cfg.eachConnections}
	if limits.PerCaller == 0 {
		limits.PerCaller = math.MaxFloat64
	}
	return caserver.New(caserver.Settings{
		Authority: authority, Authenticators: proofs.chain, RenewExpiredFor: p.cfg.renewExpired, MayImpersonate: proofs.mayImpersonate,
		Certificate: certificate, Limits: limits, Observe: p.observeCall, Refused: p.refuseOrigin, Ready: p.mayIssue,
		Policy: policy, Unary: p.metrics.api.grpc.UnaryServerInterceptor(),
	})
}

// servingCertificate is that of the flags' files, or one of our own authority.
// Either is tried now: a mistake must not wait for the first client.
func (p *process) servingCertificate(authority *ca.Authority) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if p.cfg.certFile != "" {
		files := &certificateFiles{cert: p.cfg.certFile, key: p.cfg.keyFile, tell: func(err error) {
			p.log.Error("the serving certificate's files changed, and are not used", "err", err)
		}}
		if err := files.load(); err != nil {
			return nil, fmt.Errorf("--grpc-cert-file: %w", err)
		}
		return files.ForHandshake, nil
	}
	id, err := spiffeid.FromPathf(p.cfg.td, "/ns/%s/sa/%s", p.cfg.namespace, ownAccount)
	if err != nil {
		return nil, fmt.Errorf("name the CSR API's server: %w", err)
	}
	own := &caserver.OwnCertificate{Authority: authority, ID: id, DNSNames: p.cfg.serverNames, Addresses: p.cfg.serverAddrs}
	if _, err := own.Certificate(time.Now()); err != nil {
		return nil, fmt.Errorf("make a certificate for the CSR API (its names come from --grpc-host-identities): %w", err)
	}
	return own.ForHandshake, nil
}

func (p *process) sweepTokens(ctx context.Context, s stores) {
	if err := s.sweep(ctx, time.Now(), keepTokens); err != nil && ctx.Err() == nil {
		p.log.Warn("join tokens that expired are not all deleted", "err", err)
	}
}

// observeCall counts a call, and logs one that failed. Those that did not have
// their audit records.
func (p *process) observeCall(c caserver.Call) {
	p.metrics.api.observe(c)
	if c.Err == nil {
		return
	}
	attrs := []any{"method", c.Method, "ref", c.Ref, "code", c.Code.String(), "peer", c.Address, "err", c.Err}
	if !c.Caller.IsZero() {
		attrs = append(attrs, "caller", c.Caller.String())
	}
	if c.Identity != c.Caller {
		attrs = append(attrs, "for", c.Identity.String())
	}
	switch c.Code {
	case codes.Internal, codes.Unavailable, codes.Unknown:
		p.log.Error("no certificate for a caller", attrs...)
	default:
		p.log.Warn("no certificate for a caller", attrs...)
	}
}
