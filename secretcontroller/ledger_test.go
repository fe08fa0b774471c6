package secretcontroller

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var errBroken = errors.New("broken")

func newLedger() *ledger { return &ledger{entries: map[key]entry{}, told: map[string]string{}} }

func version(v string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ResourceVersion: v}}
}

// TestContentionSchedule: who undoes our repairs is answered at once twice,
// and then ever more slowly, up to two minutes apart.
func TestContentionSchedule(t *testing.T) {
	k := key{accountKey, "web", "sleep"}
	for repairs, want := range map[int]time.Duration{
		0: 0, 1: 0, 2: time.Second, 3: 2 * time.Second, 4: 4 * time.Second, 7: 32 * time.Second, 8: 64 * time.Second,
		9: 2 * time.Minute, 10: 2 * time.Minute, 1000: 2 * time.Minute,
	} {
		l := newLedger()
		l.entries[k] = entry{wrote: now, repairs: repairs}
		if got := l.contention(k, BadKey, now); got != want {
			t.Errorf("after %d repairs the next waits %s, want %s", repairs, got, want)
		}
		if got := l.contention(k, BadKey, now.Add(want)); got > 0 {
			t.Errorf("after %d repairs and the wait the next waits %s more", repairs, got)
		}
		if got := l.contention(k, BadKey, now.Add(want/2)); got > want/2 {
			t.Errorf("after %d repairs and half of the wait the next waits %s more", repairs, got)
		}
		if got := l.contention(k, BadKey, now.Add(calm+1)); got != 0 {
			t.Errorf("after %d repairs and some calm the next waits %s", repairs, got)
		}
	}
}

// TestOnlyRepairsContend: what the clock calls for is no quarrel.
func TestOnlyRepairsContend(t *testing.T) {
	k := key{accountKey, "web", "sleep"}
	l := newLedger()
	l.entries[k] = entry{wrote: now, repairs: 5}
	for _, why := range []Reason{Due, OldRoots, Expired} {
		if got := l.contention(k, why, now); got != 0 {
			t.Errorf("%q waits %s", why, got)
		}
	}
	for _, why := range []Reason{Vanished, WrongType, WrongAccount, WrongOwner, BadKey, BadChain, WrongName, BadRoots, NotYetValid} {
		if got := l.contention(k, why, now); got != 8*time.Second {
			t.Errorf("%q waits %s", why, got)
		}
	}
	if got := l.contention(key{accountKey, "web", "other"}, BadKey, now); got != 0 {
		t.Errorf("another's quarrel makes this one wait %s", got)
	}
}

func TestLedgerCountsRepairs(t *testing.T) {
	k := key{accountKey, "web", "sleep"}
	for name, c := range map[string]struct {
		why   []Reason
		apart time.Duration
		want  int
	}{
		"in quick succession": {[]Reason{BadKey, Vanished, BadRoots}, time.Minute, 3},
		"at leisure":          {[]Reason{BadKey, BadKey, BadKey}, calm + 1, 1},
		"rotations":           {[]Reason{Due, OldRoots, Expired}, time.Second, 0},
		"rotation between":    {[]Reason{BadKey, Due, BadKey}, time.Second, 2},
		"a new account's":     {[]Reason{Missing}, time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger()
				for _, why := range c.why {
					l.wrote(k, version("1"), account, Verdict{}, why)
					time.Sleep(c.apart)
				}
				if got := l.entries[k].repairs; got != c.want {
					t.Errorf("counted %d repairs, want %d", got, c.want)
				}
			})
		})
	}
}

func TestLedgerRecalls(t *testing.T) {
	k := key{accountKey, "web", "sleep"}
	l := newLedger()
	v := Verdict{NotAfter: now, RenewAt: now}
	if _, known := l.recall(k, account); known {
		t.Error("an empty ledger knows something")
	}
	l.note(k, version("7"), account, v)
	if e, known := l.recall(k, account); !known || e.version != "7" || e.verdict != v {
		t.Errorf("recalled %+v, %v", e, known)
	}
	later := account
	later.UID = "later"
	if e, known := l.recall(k, later); known {
		t.Errorf("what was found for an earlier account of the name counts for this one: %+v", e)
	}
	l.fail(k, account, Verdict{Reason: Due}, errBroken)
	if e, _ := l.recall(k, account); e.version != "" || !errors.Is(e.err, errBroken) {
		t.Errorf("after a failure: %+v", e)
	}
	l.note(k, version("8"), account, v)
	if e, _ := l.recall(k, account); e.err != nil {
		t.Errorf("after a success: %v", e.err)
	}
	l.forget(k)
	if _, known := l.recall(k, account); known {
		t.Error("forgotten and known")
	}
}

func TestLedgerCounts(t *testing.T) {
	l := newLedger()
	note := func(name string, end, due time.Duration) {
		l.note(key{accountKey, "web", name}, version("1"), account, Verdict{NotAfter: now.Add(end), RenewAt: now.Add(due)})
	}
	note("a", 3*time.Hour, time.Hour)
	note("b", 2*time.Hour, 90*time.Minute)
	note("c", 5*time.Hour, 2*time.Hour)
	l.fail(key{accountKey, "web", "new"}, account, Verdict{Reason: Missing}, errBroken)
	l.fail(key{accountKey, "web", "c"}, account, Verdict{Reason: Due, NotAfter: now.Add(5 * time.Hour), RenewAt: now.Add(2 * time.Hour)}, errBroken)
	var s Status
	l.count(&s, now)
	if s.Secrets != 3 || s.InError != 2 || !s.SoonestExpiry.Equal(now.Add(2*time.Hour)) || !s.SoonestRenewal.Equal(now.Add(time.Hour)) {
		t.Errorf("counted %+v", s)
	}
	l.clear()
	var empty Status
	if l.count(&empty, now); empty != (Status{}) {
		t.Errorf("an empty ledger counts %+v", empty)
	}
}
