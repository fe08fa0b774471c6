package nodeagent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"citadel/ca/caclient"
	"citadel/ca/trust"
)

// takeRoots installs roots that the CA announced. Where the certificate that is
// held does not verify to them it is renewed first, and they come with it: its
// peers will not take it for long.
func (a *Agent) takeRoots(now time.Time, roots caclient.Roots) {
	if a.held == nil {
		return // they come with the certificate
	}
	held := *a.held
	leaf := held.SVID.Certificates[0]
	switch {
	case leaf.NotBefore.Add(trust.Backdate).Before(roots.RenewIssuedBefore):
		a.hurry(now)
	case roots.Signer != nil && leaf.CheckSignatureFrom(roots.Signer) != nil:
		a.hurry(now)
		a.observe(Event{What: "the CA signs with another key now; the certificate is renewed at once"})
	}
	if trust.SameRoots(held.Roots.X509Authorities(), roots.Certificates) {
		return
	}
	held.Roots = x509bundle.FromX509Authorities(held.SVID.ID.TrustDomain(), roots.Certificates)
	if err := verifies(minTime(now, leaf.NotAfter), held.SVID, held.Roots); err != nil {
		a.hurry(now)
		a.observe(Event{What: "the CA has other roots; the certificate is renewed at once", Err: err})
		return
	}
	if err := a.install(now, held); err != nil {
		a.hurry(now) // and so again until they are
		a.observe(Event{What: "new roots are not installed", Err: err})
		return
	}
	a.held = &held
	a.observe(Event{What: "roots changed"})
}

// watch hears of new roots, for as long as ctx lasts.
func (a *Agent) watch(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		cfg, ok := a.watchable()
		if ok {
			var heard atomic.Bool
			err := a.watchOnce(ctx, cfg, func(roots caclient.Roots) {
				heard.Store(true)
				select {
				case a.told <- roots:
				case <-ctx.Done():
				}
			})
			if heard.Load() {
				failures = 0
			}
			if e, isOurs := errors.AsType[*caclient.Error](err); isOurs && e.Kind == caclient.Broken {
				failures += 10 // a CA that knows no such call: ask seldom
			}
		}
		failures++
		select {
		case <-time.After(retryIn(failures, 0)):
		case <-ctx.Done():
		}
	}
}

// watchOnce watches until the connection ends, or what it was trusted by no
// longer counts: who has the key of a root that was removed must not go on
// telling of roots.
func (a *Agent) watchOnce(ctx context.Context, cfg caclient.Config, told func(caclient.Roots)) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-a.rewatch:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		cancel()
		<-ended
	}()
	return a.set.Watch(ctx, cfg, told)
}

// watchable is how to reach the CA without proof; roots are public.
func (a *Agent) watchable() (caclient.Config, bool) {
	select {
	case <-a.rewatch: // it is only beginning
	default:
	}
	set := a.watched.Load()
	if set == nil {
		return caclient.Config{}, false
	}
	return *set, true
}
