package authn

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates gives each of many its own rate, and forgets who has been idle for so
// long that it makes no difference. It is safe for concurrent use.
type Rates[K comparable] struct {
	limit rate.Limit
	burst int

	mu       sync.Mutex
	fresh    map[K]*rate.Limiter // guarded by mu: of those seen since the last turn
	old      map[K]*rate.Limiter // guarded by mu: and in the turn before
	turnedAt time.Time           // guarded by mu
}

// maxRates bounds memory: beyond it a turn ends early.
const maxRates = 100_000

// NewRates lets each do so much a second, and burst, which is 1 at least, at
// once.
func NewRates[K comparable](perSecond float64, burst int) *Rates[K] {
	return &Rates[K]{limit: rate.Limit(perSecond), burst: burst, fresh: map[K]*rate.Limiter{}}
}

// turn is how long one that is idle is remembered at least: its burst is whole
// again by then.
func (r *Rates[K]) turn() time.Duration {
	return time.Duration(float64(r.burst)/float64(r.limit)*float64(time.Second)) + time.Second
}

// Of is the rate of one.
func (r *Rates[K]) Of(now time.Time, key K) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.turnedAt) > r.turn() || len(r.fresh) >= maxRates {
		r.fresh, r.old, r.turnedAt = make(map[K]*rate.Limiter), r.fresh, now
	}
	own := r.fresh[key]
	if own == nil {
		if own = r.old[key]; own == nil {
			own = rate.NewLimiter(r.limit, r.burst)
		}
		r.fresh[key] = own
	}
	return own
}

// Share has one count against another's rate from now on.
func (r *Rates[K]) Share(key K, own *rate.Limiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fresh[key] = own
}

// Lookups bounds how often a store is asked about proofs that anybody can make
// up: by each origin, which cannot take more than a quarter, and by all.
type Lookups struct {
	each *Rates[netip.Prefix]
	all  *rate.Limiter
}

// NewLookups allows so many a second.
func NewLookups(perSecond int) *Lookups {
	each := max(perSecond/4, 1)
	return &Lookups{each: NewRates[netip.Prefix](float64(each), each), all: rate.NewLimiter(rate.Limit(perSecond), perSecond)}
}

// allow counts one.
func (l *Lookups) allow(now time.Time, origin netip.Prefix) bool {
	return l.each.Of(now, origin).AllowN(now, 1) && l.all.AllowN(now, 1)
}
