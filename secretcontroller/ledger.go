package secretcontroller

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ledger remembers what was found of each Secret, so that looking again at the
// same version costs nothing, and status can be told. It may be lost at any
// time.
type ledger struct {
	mu      sync.Mutex
	entries map[key]entry     // guarded by mu
	told    map[string]string // guarded by mu: what was told of a namespace last
}

type entry struct {
	version string    // resource version that the verdict is about
	account types.UID // service account that it was judged for
	verdict Verdict
	err     error
	failed  time.Time // last failure, and how many since the last success
	fails   int
	wrote   time.Time // last repair of ours
	repairs int       // repairs in quick succession
}

// recall returns what was last found for this service account.
func (l *ledger) recall(k key, account Account) (entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[k]
	if !ok || e.account != account.UID {
		return entry{}, false
	}
	return e, true
}

func (l *ledger) note(k key, secret *corev1.Secret, account Account, v Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	e.version, e.account, e.verdict, e.err, e.fails = secret.ResourceVersion, account.UID, v, nil, 0
	l.entries[k] = e
}

// wrote notes a write, and counts it as a repair unless it is what rotation
// and new service accounts call for.
func (l *ledger) wrote(k key, secret *corev1.Secret, account Account, v Verdict, why Reason) {
	l.note(k, secret, account, v)
	l.repaired(k, why)
}

// repaired counts a write as a repair if its reason makes it one.
func (l *ledger) repaired(k key, why Reason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	now := time.Now()
	switch {
	case !repair(why):
	case now.Sub(e.wrote) > calm:
		e.wrote, e.repairs = now, 1
	default:
		e.wrote, e.repairs = now, e.repairs+1
	}
	l.entries[k] = e
}

func (l *ledger) fail(k key, account Account, v Verdict, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if e.account != account.UID || blocked(err) {
		e.fails = 0
	}
	e.version, e.account, e.verdict, e.err = "", account.UID, v, err
	e.failed, e.fails = time.Now(), e.fails+1
	l.entries[k] = e
}

// forgive notes that what failed before is well.
func (l *ledger) forgive(k key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[k]; ok {
		e.err, e.fails = nil, 0
		l.entries[k] = e
	}
}

// penance is how long what failed has to wait at now, whatever wakes it: the
// queue's own waits end with any event.
func (l *ledger) penance(k key, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if e.fails == 0 {
		return 0
	}
	return min(firstRetry<<min(e.fails-1, maxRetryDouble), lastRetry) - now.Sub(e.failed)
}

func (l *ledger) forget(k key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, k)
}

func (l *ledger) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.entries)
	clear(l.told)
}

// news notes what there is to tell of a namespace, and whether that is new.
func (l *ledger) news(namespace, text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text == "" {
		delete(l.told, namespace)
		return false
	}
	known := l.told[namespace] == text
	l.told[namespace] = text
	return !known
}

// Somebody who undoes our repairs at once is not answered at full speed: from
// the third within calm on, each repair waits twice as long as the last.
const (
	calm           = 10 * time.Minute
	freeRepairs    = 2
	firstPause     = time.Second
	longestPause   = 2 * time.Minute
	maxPauseDouble = 7 // 2^7 s is beyond longestPause
	maxRetryDouble = 8 // 2^8 × firstRetry is beyond lastRetry
)

func repair(why Reason) bool {
	switch why {
	case Missing, Due, OldRoots, Expired:
		return false
	}
	return true
}

// contention is how long a repair has to wait at now.
func (l *ledger) contention(k key, why Reason, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[k]
	if !repair(why) || e.repairs < freeRepairs || now.Sub(e.wrote) > calm {
		return 0
	}
	pause := min(firstPause<<min(e.repairs-freeRepairs, maxPauseDouble), longestPause)
	return pause - now.Sub(e.wrote)
}

// Status is the controller's work in numbers.
type Status struct {
	// Leading tells whether this process writes; the rest is empty if not.
	Leading bool
	// Secrets counts those under management whose certificate could be read,
	// InError those that could not be brought right at the last attempt.
	Secrets, InError int
	// SoonestExpiry and SoonestRenewal are zero when there are no Secrets.
	SoonestExpiry, SoonestRenewal time.Time
	// QueueDepth counts objects that wait to be looked at.
	QueueDepth int
	// LastHeartbeat and LastSuccess are when the queue last moved, and when a
	// piece of work last ended well.
	LastHeartbeat, LastSuccess time.Time
}

// Status reports on the work at this moment.
func (c *Controller) Status() Status {
	t := c.term.Load()
	if t == nil {
		return Status{}
	}
	s := Status{Leading: true, QueueDepth: t.queue.Len(), LastHeartbeat: time.Unix(0, t.beat.Load())}
	if good := t.good.Load(); good > 0 {
		s.LastSuccess = time.Unix(0, good)
	}
	c.ledge.count(&s)
	return s
}

func (l *ledger) count(s *Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.err != nil {
			s.InError++
		}
		if e.verdict.NotAfter.IsZero() {
			continue
		}
		s.Secrets++
		if s.SoonestExpiry.IsZero() || e.verdict.NotAfter.Before(s.SoonestExpiry) {
			s.SoonestExpiry = e.verdict.NotAfter
		}
		if s.SoonestRenewal.IsZero() || e.verdict.RenewAt.Before(s.SoonestRenewal) {
			s.SoonestRenewal = e.verdict.RenewAt
		}
	}
}
