package secretcontroller

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Somebody who undoes our repairs at once is not answered at full speed: from
// the third within calm on, each repair waits twice as long as the last. The
// more objects wait, the longer each does, so that all of them together are
// written about once in spacing; but none waits for longer than calm, for nobody
// may be left with a broken Secret for hours.
const (
	calm           = 10 * time.Minute
	freeRepairs    = 2
	firstPause     = time.Second
	longestPause   = 2 * time.Minute
	maxPauseDouble = 7 // 2^7 s is beyond longestPause
	spacing        = 2 * time.Second
)

// How often a quarrel is told: of any object, and of the same one.
const (
	taleEvery    = time.Minute
	quarrelEvery = 10 * time.Minute
)

func repair(why Reason) bool {
	switch why {
	case Missing, Due, OldRoots, Expired:
		return false
	}
	return true
}

// pause is what comes between two repairs of the same object, when so many have
// been made of it and so many objects wait for theirs.
func pause(repairs, undone int) time.Duration {
	crowd := min(time.Duration(undone-1)*spacing, calm)
	return min(max(firstPause<<min(repairs-freeRepairs, maxPauseDouble), crowd), max(longestPause, crowd))
}

// contention is how long a repair has to wait at now.
func (l *ledger) contention(k key, why Reason, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if !repair(why) || e.repairs < freeRepairs || !e.undone && now.Sub(e.wrote) > calm {
		return 0
	}
	e.undone, e.quarrel = true, true
	l.put(k, e)
	return max(0, pause(e.repairs, l.undone)-now.Sub(e.wrote))
}

// repaired counts a write as a repair if its reason makes it one.
func (l *ledger) repaired(k key, why Reason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	now := time.Now()
	switch {
	case !repair(why):
	case !e.undone && now.Sub(e.wrote) > calm:
		e.wrote, e.repairs, e.quarrel = now, 1, false
	default:
		e.wrote, e.repairs = now, e.repairs+1
	}
	e.undone = false
	l.put(k, e)
}

// contended tells whether somebody undoes our repairs, or did until lately.
func (e entry) contended(now time.Time) bool {
	return e.undone || e.quarrel && now.Sub(e.wrote) <= calm
}

// tell tells whether to speak of an object's quarrel now, and how many others
// wait for their repair.
func (l *ledger) tell(k key, now time.Time) (others int, tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if now.Sub(e.told) < quarrelEvery || now.Sub(l.tale) < taleEvery {
		return 0, false
	}
	l.tale, e.told = now, now
	l.put(k, e)
	return l.undone - 1, true
}

// tellOfQuarrel says that a repair waits because somebody undoes them: of each
// object rarely, and of all of them not much more often.
func (c *Controller) tellOfQuarrel(k key, now time.Time, o Observation, account *corev1.ObjectReference) {
	others, tell := c.ledge.tell(k, now)
	if !tell {
		return
	}
	o.Action = Paused
	o.Detail = fmt.Sprintf("another writer keeps changing it (%s): is there a second citadel, or another authority, that manages this namespace? "+
		"It is put right ever more slowly", clip(o.Detail, maxCause))
	if others > 0 {
		o.Detail += fmt.Sprintf(", as are %d others", others)
	}
	c.observe(now, o, account)
}
