package secretcontroller

import (
	"crypto/x509"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// issued is a certificate made at now for ttl, as ca makes them.
func issued(ttl time.Duration, serial *big.Int) *x509.Certificate {
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-trust.Backdate), NotAfter: now.Add(ttl)}
}

func randomSerial(r *rand.Rand) *big.Int {
	octets := make([]byte, 20)
	for i := range octets {
		octets[i] = byte(r.Uint32())
	}
	octets[0] = octets[0]&0x7f | 0x40
	return new(big.Int).SetBytes(octets)
}

func TestRenewAt(t *testing.T) { // compatibility 2.4
	const min, week = 10 * time.Minute, 168 * time.Hour
	for name, c := range map[string]struct {
		r    Rotation
		ttl  time.Duration
		want time.Duration // before the end
	}{
		"half of life":                       {Rotation{GraceRatio: 0.5, MinGrace: min}, 19 * time.Hour, 9*time.Hour + 30*time.Minute},
		"half of a long life":                {Rotation{GraceRatio: 0.5, MinGrace: min}, week, week / 2},
		"a fifth":                            {Rotation{GraceRatio: 0.2, MinGrace: min}, 10 * time.Hour, 2 * time.Hour},
		"the minimum counts":                 {Rotation{GraceRatio: 0.01, MinGrace: min}, 10 * time.Hour, min},
		"the minimum is half":                {Rotation{GraceRatio: 0.5, MinGrace: min}, 2 * min, min},
		"the minimum exceeds half":           {Rotation{GraceRatio: 0.1, MinGrace: min}, 15 * time.Minute, 450 * time.Second},
		"the minimum exceeds life":           {Rotation{GraceRatio: 0.5, MinGrace: min}, 5 * time.Minute, 150 * time.Second},
		"a minute: backdating is no life":    {Rotation{GraceRatio: 0.5, MinGrace: min}, time.Minute, 30 * time.Second},
		"five seconds":                       {Rotation{GraceRatio: 0.9, MinGrace: min}, 5 * time.Second, 4 * time.Second},
		"a second: at its end":               {Rotation{GraceRatio: 0.5, MinGrace: min}, time.Second, 0},
		"ratio 0: the minimum":               {Rotation{MinGrace: min}, 19 * time.Hour, min},
		"ratio 0, no minimum: at its end":    {Rotation{}, 19 * time.Hour, 0},
		"ratio 1: a tenth of life is left":   {Rotation{GraceRatio: 1, MinGrace: min}, 10 * time.Hour, 9 * time.Hour},
		"ratio 1 and all jitter":             {Rotation{GraceRatio: 1, Jitter: 1}, 10 * time.Hour, 9 * time.Hour},
		"a ratio above half beats a minimum": {Rotation{GraceRatio: 0.8, MinGrace: min}, 10 * time.Minute, 8 * time.Minute},
	} {
		leaf := issued(c.ttl, big.NewInt(1))
		if got := leaf.NotAfter.Sub(c.r.renewAt(leaf, leaf.NotAfter)); got != c.want {
			t.Errorf("%s: due %s before its end, want %s", name, got, c.want)
		}
	}
}

// TestRenewAtCountsTheIssuersEnd: life ends with the first issuer to end.
func TestRenewAtCountsTheIssuersEnd(t *testing.T) { // compatibility 9, complaint 5
	r := Rotation{GraceRatio: 0.5}
	leaf := issued(10*time.Hour, big.NewInt(1))
	if got := r.renewAt(leaf, now.Add(2*time.Hour)); !got.Equal(now.Add(time.Hour)) {
		t.Errorf("due at %s", got)
	}
}

// TestFreshIsNeverDue: whatever the flags say, a certificate has at least a
// tenth of its life and a second before it is due, and is due before grace
// begins, never after.
func TestFreshIsNeverDue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		ttl := time.Duration(1 + r.Int64N(int64(1000*time.Hour))).Truncate(time.Second)
		ttl = max(ttl, time.Second)
		rot := Rotation{GraceRatio: ratio(r), MinGrace: time.Duration(r.Int64N(int64(2 * ttl))), Jitter: ratio(r)}
		leaf := issued(ttl, randomSerial(r))
		due := rot.renewAt(leaf, leaf.NotAfter)
		earliest := now.Add(max(ttl/10, time.Second)).Add(-time.Microsecond)
		grace := max(time.Duration(rot.GraceRatio*float64(ttl)), min(rot.MinGrace, ttl/2))
		latest := leaf.NotAfter.Add(-grace).Add(time.Microsecond)
		if latest.Before(earliest) {
			latest = earliest.Add(2 * time.Microsecond)
		}
		if due.Before(earliest) || due.After(latest) {
			t.Fatalf("%+v with a TTL of %s: due after %s, want within [%s, %s]", rot, ttl, due.Sub(now), earliest.Sub(now), latest.Sub(now))
		}
	}
}

// ratio is in [0,1], and often one of its ends.
func ratio(r *rand.Rand) float64 {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1:
		return 1
	}
	return r.Float64()
}

// TestSharesAreEvenlySpread: of Secrets made together, each tenth of the jitter
// gets its tenth.
func TestSharesAreEvenlySpread(t *testing.T) { // compatibility 9, complaint 30
	const n, buckets = 20_000, 10
	r := rand.New(rand.NewPCG(3, 4))
	rot := Rotation{GraceRatio: 0.5, Jitter: 0.1, RootWindow: time.Hour}
	var renewals, rewrites [buckets]float64
	for range n {
		leaf := issued(100*time.Hour, randomSerial(r))
		early := now.Add(50 * time.Hour).Sub(rot.renewAt(leaf, leaf.NotAfter))
		late := rot.rootsDue(leaf, now).Sub(now)
		if early < 0 || early > 10*time.Hour || late < 0 || late >= time.Hour {
			t.Fatalf("renewed %s early, rewritten %s late", early, late)
		}
		renewals[min(buckets-1, int(early/time.Hour))]++
		rewrites[int(late/(6*time.Minute))]++
	}
	for name, counts := range map[string][buckets]float64{"renewals": renewals, "rewrites": rewrites} {
		if x := chiSquare(counts[:], n); x > 27.9 { // 9 degrees of freedom: one in a thousand
			t.Errorf("%s are spread as %v (χ² %.1f)", name, counts, x)
		}
	}
}

func chiSquare(counts []float64, n float64) float64 {
	expected := n / float64(len(counts))
	var x float64
	for _, c := range counts {
		x += math.Pow(c-expected, 2) / expected
	}
	return x
}

// TestDueTimesAreTheSameEverywhere: replicas and restarts agree.
func TestDueTimesAreTheSameEverywhere(t *testing.T) {
	rot := Rotation{GraceRatio: 0.5, Jitter: 0.2, RootWindow: time.Hour}
	leaf := issued(time.Hour, new(big.Int).SetBytes([]byte("twenty random octets")))
	if got, want := rot.renewAt(leaf, leaf.NotAfter), rot.renewAt(leaf, leaf.NotAfter); !got.Equal(want) {
		t.Error("two looks, two times")
	}
	if got := share([]byte("twenty random octets")); got != 0.8459583441863788 {
		t.Errorf("the share of this serial number was another before: now %v; replicas of two versions would disagree", got)
	}
	for seed, same := range map[string]bool{"a": true, "b": false} {
		if (share([]byte(seed)) == share([]byte("a"))) != same {
			t.Errorf("share of %q", seed)
		}
	}
}

func TestRootsDue(t *testing.T) {
	leaf := issued(time.Hour, big.NewInt(7))
	since := now.Add(-time.Minute)
	part := share(leaf.SerialNumber.Bytes())
	for window, want := range map[time.Duration]time.Duration{
		0: 0, time.Hour: time.Duration(part * float64(time.Hour)), 10 * time.Second: time.Duration(part * float64(10*time.Second)),
	} {
		if got := (Rotation{RootWindow: window}).rootsDue(leaf, since).Sub(since); got != want {
			t.Errorf("window %s: due after %s, want %s", window, got, want)
		}
	}
}

// TestJudgeAgainstTheNaiveRule compares the due time of real chains with a
// second reckoning of it, in seconds and from the flags' text alone.
func TestJudgeAgainstTheNaiveRule(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	for range 300 {
		born := now.Add(-time.Duration(r.IntN(100)) * time.Hour)
		ttl := time.Duration(1+r.IntN(200*3600)) * time.Second
		issuingEnd := now.Add(time.Duration(1+r.IntN(300*3600)) * time.Second)
		issuing := root.Intermediate(t, now, catest.Spec{Name: "issuing", Edit: lives(born.Add(-time.Hour), issuingEnd)})
		leaf := issuing.Leaf(t, now, sleepID, lives(born.Add(-trust.Backdate), born.Add(ttl)))
		want := pki{root: root}.wants()
		want.Roots = NewRoots(certs{root.Cert}, born)
		want.Rotation = Rotation{GraceRatio: ratio(r), MinGrace: time.Duration(r.IntN(3600)) * time.Second}

		end := math.Min(born.Add(ttl).Sub(now).Seconds(), issuingEnd.Sub(now).Seconds()) // from now
		reason, due := naive(born.Sub(now).Seconds(), end, want.Rotation)
		v := Judge(now, secretOf(t, leaf), want)
		if v.Reason != reason || (reason != Expired && math.Abs(v.RenewAt.Sub(now).Seconds()-due) > 0.001) {
			t.Errorf("%+v, made %s ago for %s, issuer ends in %s: found %q, due in %s; naively %q, due in %.3fs",
				want.Rotation, now.Sub(born), ttl, issuingEnd.Sub(now), v.Reason, v.RenewAt.Sub(now), reason, due)
		}
	}
}

// naive is the rule as an operator reads it: half of life (or what the flag
// says), at least the minimum before the end, but never more of the life than
// half for the minimum, nor than nine tenths at all, nor its first second. All
// in seconds from now.
func naive(born, end float64, r Rotation) (Reason, float64) {
	life := end - born
	before := r.GraceRatio * life
	if least := r.MinGrace.Seconds(); before < least {
		before = least
		if before > life/2 {
			before = math.Max(life/2, r.GraceRatio*life)
		}
	}
	due := end - math.Min(before, math.Min(0.9*life, life-1))
	switch {
	case end < 0:
		return Expired, 0
	case due <= 0:
		return Due, due
	}
	return Right, due
}
