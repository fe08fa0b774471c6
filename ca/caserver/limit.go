package caserver

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"

	"citadel/ca/authn"
)

// limiter bounds the requests of each caller and those of all.
type limiter struct {
	limits  Limits
	working chan struct{}
	each    *authn.Rates[string]
	all     *rate.Limiter
}

func newLimiter(l Limits) *limiter {
	all := rate.NewLimiter(rate.Inf, 0)
	if l.PerSecond > 0 {
		all = rate.NewLimiter(rate.Limit(l.PerSecond), int(max(l.PerSecond, 1)))
	}
	return &limiter{limits: l, working: make(chan struct{}, l.InFlight), each: authn.NewRates[string](l.PerCaller, l.PerCallerBurst), all: all}
}

// enter takes a place among the requests that are worked on.
func (l *limiter) enter() (leave func(), err error) {
	select {
	case l.working <- struct{}{}:
		return func() { <-l.working }, nil
	default:
		return nil, &limitError{reason: fmt.Sprintf("%d requests are being worked on already", l.limits.InFlight), retry: time.Second}
	}
}

// allow counts a request against its caller's rate, and then that of all.
func (l *limiter) allow(now time.Time, id authn.Identity) error {
	if wait := take(now, l.each.Of(now, keyOf(id))); wait > 0 {
		return &limitError{reason: fmt.Sprintf("%s asks for more than %g certificates a second", id.Caller.ID(), l.limits.PerCaller), retry: wait}
	}
	if wait := take(now, l.all); wait > 0 {
		return &limitError{reason: fmt.Sprintf("more than %g certificates a second are asked for", l.limits.PerSecond), retry: wait}
	}
	return nil
}

// callerKey tells hosts and pods of one identity apart.
func callerKey(id spiffeid.ID, pod, serial string) string {
	return id.String() + " " + pod + " " + serial
}

func keyOf(id authn.Identity) string {
	return callerKey(id.Caller.ID(), id.Pod.UID, id.Caller.Certificate())
}

// inherit has a certificate just issued count against the rate of the caller
// that asked for it: else each were a caller of its own, and nobody limited.
func (l *limiter) inherit(now time.Time, parent authn.Identity, id spiffeid.ID, leaf *x509.Certificate) {
	l.each.Share(callerKey(id, "", leaf.SerialNumber.Text(16)), l.each.Of(now, keyOf(parent)))
}

// take counts one, or tells in how long there is one to take.
func take(now time.Time, l *rate.Limiter) time.Duration {
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
