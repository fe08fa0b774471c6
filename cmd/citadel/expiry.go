package main

import (
	"context"
	"log/slog"
	"time"

	"citadel/ca"
	"citadel/ca/trust"
)

const (
	// expirySoon is how long before its end a root or signer is spoken of.
	expirySoon = 30 * 24 * time.Hour
	// expiryEvery is how often.
	expiryEvery = 6 * time.Hour
)

// warnOfExpiry never lets an authority end in silence.
func warnOfExpiry(ctx context.Context, log *slog.Logger, a *ca.Authority) {
	ticker := time.NewTicker(expiryEvery)
	defer ticker.Stop()
	for {
		for name, end := range endings(a) {
			if left := time.Until(end); left < expirySoon {
				log.Warn("certificate of the authority expires soon: replace it", "certificate", name,
					"notAfter", end.UTC(), "left", left.Round(time.Minute).String()) // a number would be nanoseconds
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// endings is when the signer's path and each root end.
func endings(a *ca.Authority) map[string]time.Time {
	signer := a.Signer()
	out := map[string]time.Time{trust.Name(signer.Cert()) + " or an issuer of it": signer.NotAfter()}
	for _, root := range signer.Roots() {
		out[trust.Name(root)] = root.NotAfter
	}
	return out
}
