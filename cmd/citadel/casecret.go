package main

import (
	"context"
	"time"

	"k8s.io/client-go/kubernetes"

	"citadel/ca"
	"citadel/ca/kube"
)

// caSecretEvery is how often the CA secret is compared with what is held.
const caSecretEvery = 15 * time.Second

// watchCASecret is loud for as long as the CA secret does not hold the root in
// use: signing goes on, and when no replica is left, the root is lost.
func (p *process) watchCASecret(ctx context.Context, client kubernetes.Interface, authority *ca.Authority) {
	p.metrics.gauge("citadel_ca_secret_in_sync", "1 while the CA secret holds the root in use.", func() float64 {
		if p.caSecretOff.Load() {
			return 0
		}
		return 1
	})
	ticker := time.NewTicker(caSecretEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := kube.HoldsRoot(ctx, client, p.cfg.namespace, authority.Signer().Cert())
		p.caSecretOff.Store(err != nil)
		if err != nil && ctx.Err() == nil {
			p.log.Error("the CA secret does not hold the root in use: signing goes on, but no restart brings it back; "+
				"restore the Secret from a backup, or stop every replica to change to another root", "err", err)
		}
	}
}
