package caserver

import (
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"

	"citadel/ca/authn"
)

// limiter bounds the requests of each caller and those of all.
type limiter struct {
	limits  Limits
	working chan struct{}
	all     *rate.Limiter

	mu       sync.Mutex
	fresh    map[string]*rate.Limiter // guarded by mu: of callers seen since the last turn
	old      map[string]*rate.Limiter // guarded by mu: and in the turn before
	turnedAt time.Time                // guarded by mu
}

// A turn is how long an idle caller is remembered at least; by then its burst
// is whole again. maxCallers bounds memory: beyond it a turn ends early.
const maxCallers = 100_000

func newLimiter(l Limits) *limiter {
	all := rate.NewLimiter(rate.Inf, 0)
	if l.PerSecond > 0 {
		all = rate.NewLimiter(rate.Limit(l.PerSecond), int(max(l.PerSecond, 1)))
	}
	return &limiter{limits: l, working: make(chan struct{}, l.InFlight), all: all, fresh: map[string]*rate.Limiter{}}
}

func (l *limiter) turn() time.Duration {
	return time.Duration(float64(l.limits.PerCallerBurst)/l.limits.PerCaller*float64(time.Second)) + time.Second
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
	if wait := take(now, l.of(now, keyOf(id))); wait > 0 {
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
	own := l.of(now, keyOf(parent))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh[callerKey(id, "", leaf.SerialNumber.Text(16))] = own
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

func (l *limiter) of(now time.Time, key string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.turnedAt) > l.turn() || len(l.fresh) >= maxCallers {
		l.fresh, l.old, l.turnedAt = make(map[string]*rate.Limiter), l.fresh, now
	}
	own := l.fresh[key]
	if own == nil {
		if own = l.old[key]; own == nil {
			own = rate.NewLimiter(rate.Limit(l.limits.PerCaller), l.limits.PerCallerBurst)
		}
		l.fresh[key] = own
	}
	return own
}
