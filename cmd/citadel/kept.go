package main

import (
	"context"
	"errors"
	"time"

	"citadel/ca/kube"
)

// keptEvery is how often what is kept is compared with what is held.
const keptEvery = 15 * time.Second

// watchKept is loud for as long as the CA secret, or the directory of
// --state-dir, does not hold the root in use: signing goes on, and when no
// replica is left, the root is lost.
func (p *process) watchKept(ctx context.Context, root kept) {
	p.metrics.gauge("citadel_ca_secret_in_sync", "1 while the CA secret, or the folder of --state-dir, holds the root in use.", func() float64 {
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
			p.log.Error("the root in use is not where it is kept: signing goes on, but no restart brings it back; "+
				"restore it from a backup, or stop every replica to change to another root", "place", root.place, "err", err)
		}
	}
}
