package ca

import (
	"fmt"
	"time"

	"citadel/ca/trust"
)

// validity is a certificate's life, decided.
type validity struct{ notBefore, notAfter time.Time }

// validity decides the life of a certificate made at now. A TTL above the
// maximum is refused, never clamped; one above what the signer has left is
// clamped to it (R-3, C-4), and a signer that is nearly at its end refuses.
func (a *Authority) validity(now time.Time, ttl time.Duration) (validity, error) {
	if ttl <= 0 {
		ttl = a.cfg.DefaultTTL
	}
	if ttl > a.cfg.MaxTTL {
		return validity{}, &Error{Class: TTLError,
			Reason: fmt.Sprintf("requested TTL %s is greater than the max allowed TTL %s", ttl, a.cfg.MaxTTL)}
	}
	ttl = max(ttl, time.Second) // times are whole seconds: less could be born expired (C-5)
	signer := a.cfg.Signer
	end := signer.NotAfter()
	left := end.Sub(now)
	if left <= 0 {
		return validity{}, &Error{Class: CertGenError, Reason: "signing certificate has expired at " + end.UTC().Format(time.RFC3339)}
	}
	if left < min(ttl, MinimumLife) {
		return validity{}, &Error{Class: CertGenError,
			Reason: fmt.Sprintf("signing certificate expires at %s: the %s that it has left is too little to sign", end.UTC().Format(time.RFC3339), left.Round(time.Second))}
	}
	v := validity{notBefore: now.Add(-trust.Backdate), notAfter: now.Add(ttl)}
	if v.notAfter.After(end) {
		v.notAfter = end
	}
	if begin := signer.Cert().NotBefore; v.notBefore.Before(begin) {
		v.notBefore = begin
	}
	v.notBefore = v.notBefore.UTC().Truncate(time.Second)
	v.notAfter = v.notAfter.UTC().Truncate(time.Second)
	return v, nil
}
