package secretcontroller

import (
	"crypto/x509"
	"hash/fnv"
	"math"
	"time"

	"citadel/ca/trust"
)

// Rotation says when a certificate that is still good is replaced.
type Rotation struct {
	// GraceRatio, in [0,1], is the part of a certificate's life before its end
	// in which it is replaced.
	GraceRatio float64
	// MinGrace is the least that grace may be; where it exceeds half of the
	// life, half of the life counts instead.
	MinGrace time.Duration
	// Jitter, in [0,1], is the part of the life by which renewals are drawn
	// forward, each by its own share, so that Secrets made together are not
	// renewed together.
	Jitter float64
	// RootWindow is the time over which rewrites after a change of roots are
	// spread. Zero: at once.
	RootWindow time.Duration
}

// DefaultRotation is the rotation of a controller that is told nothing else.
func DefaultRotation() Rotation {
	return Rotation{GraceRatio: 0.5, MinGrace: 10 * time.Minute, Jitter: 0.1, RootWindow: 5 * time.Minute}
}

// latestGrace keeps even a ratio of 1 from renewing without pause.
const latestGrace = 0.9

// renewAt is when a certificate that ends at end is due. The backdating of
// NotBefore is not a part of the life: nobody asked for it.
func (r Rotation) renewAt(leaf *x509.Certificate, end time.Time) time.Time {
	life := end.Sub(leaf.NotBefore)
	if life > trust.Backdate {
		life -= trust.Backdate
	}
	grace := max(scale(life, r.GraceRatio), min(r.MinGrace, life/2))
	early := scale(life, r.Jitter*share(leaf.SerialNumber.Bytes()))
	// Times are cut to whole seconds: of its last one no certificate can be sure,
	// and one just made must not be due.
	return end.Add(-min(grace+early, scale(life, latestGrace), max(life-time.Second, 0)))
}

// rootsDue is when a Secret that was right by the roots before these is
// rewritten, given since when these are in force.
func (r Rotation) rootsDue(leaf *x509.Certificate, since time.Time) time.Time {
	return since.Add(scale(r.RootWindow, share(leaf.SerialNumber.Bytes())))
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }

// share maps a seed to [0,1), evenly, and always to the same number, so that
// every replica and every restart comes to the same time.
func share(seed []byte) float64 {
	h := fnv.New64a()
	_, _ = h.Write(seed) // a hash never fails to write
	return float64(h.Sum64()>>11) / math.Exp2(53)
}
