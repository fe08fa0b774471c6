package main

import (
	"context"
	"errors"
	"time"

	"citadel/ca/kube"
)

// keptEvery is how often what is kept is compared with what is held.
const keptEvery = 15 * time.Second

// watchKept is loud for as long as the Secret that the CA is from, or the
// directory of --state-dir, does not hold what signs: signing goes on, and when no
// replica is left, a self-signed root is lost.
func (p *process) watchKept(ctx context.Context, root kept) {
	p.metrics.gauge("citadel_ca_secret_in_sync", "1 while the Secret of the CA, or the folder of --state-dir, holds the signing certificate in use.", func() float64 {
		if p.rootLost.Load() {
			return 0
		}
		return 1
	})
	ticker := time.NewTicker(keptEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := root.holds(ctx)
		if errors.Is(err, kube.ErrNotKnown) {
			continue // neither well nor lost: what was known holds
		}
		p.rootLost.Store(err != nil)
		if err != nil && ctx.Err() == nil {
			p.log.Error("the signing certificate in use is no longer where it was loaded from: signing goes on with it, but no restart brings it back; "+
				"restore it from a backup, or, where it was changed on purpose, restart every replica", "place", root.place, "err", err)
		}
	}
}
