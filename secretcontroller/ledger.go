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
	entries map[key]entry     // guarded by mu; changed by put and drop alone
	told    map[string]string // guarded by mu: what was told of a namespace last
	undone  int               // guarded by mu: entries that are undone
	tale    time.Time         // guarded by mu: when a quarrel was told of last
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
	undone  bool      // somebody undid the last one, and the next waits for its turn
	quarrel bool      // that has happened in this succession
	told    time.Time // when it was told last
}

// put stores an entry. The caller holds the lock.
func (l *ledger) put(k key, e entry) {
	l.drop(k)
	if e.undone {
		l.undone++
	}
	l.entries[k] = e
}

// drop removes an entry. The caller holds the lock.
func (l *ledger) drop(k key) {
	if l.entries[k].undone {
		l.undone--
	}
	delete(l.entries, k)
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
	e.undone = false
	l.put(k, e)
}

// wrote notes a write, and counts it as a repair unless it is what rotation
// and new service accounts call for.
func (l *ledger) wrote(k key, secret *corev1.Secret, account Account, v Verdict, why Reason) {
	l.repaired(k, why)
	l.note(k, secret, account, v)
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
	l.put(k, e)
}

// forgive notes that what failed before is well.
func (l *ledger) forgive(k key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[k]; ok {
		e.err, e.fails, e.undone = nil, 0, false
		l.put(k, e)
	}
}

const maxRetryDouble = 8 // 2^8 × firstRetry is beyond lastRetry

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
	l.drop(k)
}

func (l *ledger) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.entries)
	clear(l.told)
	l.undone, l.tale = 0, time.Time{}
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

// Status is the controller's work in numbers.
type Status struct {
	// Leading tells whether this process writes; the rest is empty if not.
	Leading bool
	// Secrets counts those under management whose certificate could be read,
	// InError those that could not be brought right at the last attempt.
	Secrets, InError int
	// Contended counts those that another writer keeps changing.
	Contended int
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
	c.ledge.count(&s, time.Now())
	return s
}

func (l *ledger) count(s *Status, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, e := range l.entries {
		if e.err != nil {
			s.InError++
		}
		if k.kind == accountKey && e.contended(now) {
			s.Contended++
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
