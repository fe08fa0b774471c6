package authn

import (
	"testing"
	"time"
)

// TestRatesForgetTheIdle, but none that could still be over its rate.
func TestRatesForgetTheIdle(t *testing.T) {
	r, now := NewRates[int](1, 1), time.Unix(1_000_000, 0)
	for i := range 6 {
		if !r.Of(now, i).AllowN(now, 1) || r.Of(now.Add(900*time.Millisecond), i).AllowN(now.Add(900*time.Millisecond), 1) {
			t.Errorf("%d: not one in a second", i)
		}
		now = now.Add(time.Hour)
	}
	if n := len(r.fresh) + len(r.old); n > 2 {
		t.Errorf("%d are remembered", n)
	}
	r.Share(7, r.Of(now, 8))
	if !r.Of(now, 7).AllowN(now, 1) || r.Of(now, 8).AllowN(now, 1) {
		t.Error("two share no rate")
	}
	for i := range 2*maxRates + 10 {
		r.Of(now, i)
	}
	if n := len(r.fresh) + len(r.old); n > 2*maxRates {
		t.Errorf("%d are remembered at once", n)
	}
}
