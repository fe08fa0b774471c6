package secretcontroller

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca"
	"citadel/ca/catest"
)

// TestQuarrelOverRoots: another authority that keeps a ConfigMap of the same
// name, as istiod does, is answered ever more slowly.
func TestQuarrelOverRoots(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		before := r.calls("update", "configmaps")
		for range 600 { // a minute, ten times a second
			cm, err := r.people.CoreV1().ConfigMaps("default").Get(t.Context(), RootsConfigMap, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if cm.Data[RootsKey] != "theirs" {
				cm.Data[RootsKey] = "theirs"
				if _, err := r.people.CoreV1().ConfigMaps("default").Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			r.pass(100 * time.Millisecond)
		}
		if n := r.calls("update", "configmaps") - before; n < 3 || n > 12 {
			t.Errorf("%d writes in a minute of quarrel", n)
		}
		r.pass(10 * time.Minute)
		cm, err := r.people.CoreV1().ConfigMaps("default").Get(t.Context(), RootsConfigMap, metav1.GetOptions{})
		if err != nil || cm.Data[RootsKey] == "theirs" {
			t.Errorf("given up: %v", err)
		}
	}, serviceAccount("default", "sleep"))
}

// rival runs a second controller of another root on the same API server, and
// returns its end.
func (r *rig) rival() (stop func()) {
	r.t.Helper()
	s := r.settings()
	s.Client, s.Observe = r.api.client(), func(Observation) {}
	s.Authority = catest.Authority(r.t, time.Now(), ca.Config{Signer: catest.Root(r.t, time.Now(), catest.Spec{Name: "the rival"}).Signer(r.t, time.Now())})
	c, err := New(s)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Watch(ctx) })
	running.Go(func() {
		if err := c.Lead(ctx, nil); err != nil {
			r.t.Errorf("the rival's leading ended with %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		r.pass(time.Second)
	})
	r.t.Cleanup(stop)
	return stop
}

// TestTwoCitadelsOverTheSameSecrets: two that manage the same namespaces with
// different roots write seldom, however many Secrets there are, and say what is
// the matter; when one goes the other sets all right.
func TestTwoCitadelsOverTheSameSecrets(t *testing.T) {
	const accounts, perMinute = 300, 45
	bubble(t, func(t *testing.T, r *rig) {
		for i := range accounts {
			r.make(serviceAccount("default", fmt.Sprintf("sa-%03d", i)))
		}
		r.start()
		stop := r.rival()
		r.pass(10 * time.Minute)
		r.take()
		before := r.calls("update", "secrets")
		r.pass(30 * time.Minute)
		if n := (r.calls("update", "secrets") - before) / 30; n < 1 || n > perMinute {
			t.Errorf("%d writes a minute in a quarrel over %d Secrets, want at most %d", n, accounts, perMinute)
		}
		told := 0
		for _, o := range r.take() {
			if o.Action == Paused {
				told++
				if !strings.Contains(o.Detail, "second citadel") || o.Object == "Secret" && !strings.Contains(o.Detail, "the rival") {
					t.Errorf("told %+v", o)
				}
			}
		}
		if told < 10 || told > 31 {
			t.Errorf("told %d times in half an hour", told)
		}
		if s := r.c.Status(); s.Contended < accounts/4 {
			t.Errorf("%d of %d Secrets are counted as contended", s.Contended, accounts)
		}
		stop()
		r.pass(40 * time.Minute)
		for i := range accounts {
			r.right("default", fmt.Sprintf("sa-%03d", i))
		}
		if s := r.c.Status(); s.Contended != 0 {
			t.Errorf("%d Secrets are counted as contended in peace", s.Contended)
		}
	})
}

// TestQuarrelIsTold: once at its beginning and then rarely, by an observation
// and an Event that name the Secret.
func TestQuarrelIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.take()
		var told []Observation
		for range 3000 {
			s := r.secret("default", "istio.sleep")
			if string(s.Data[RootsKey]) != "theirs" {
				s.Data[RootsKey] = []byte("theirs")
				r.update(s)
			}
			r.pass(100 * time.Millisecond)
		}
		for _, o := range r.take() {
			if o.Action == Paused {
				told = append(told, o)
			}
		}
		if len(told) != 1 || told[0].Name != "default/istio.sleep" || told[0].Reason != BadRoots {
			t.Fatalf("told %+v", told)
		}
		if s := r.c.Status(); s.Contended != 1 {
			t.Errorf("%d Secrets contended", s.Contended)
		}
		note := ""
		for len(r.events.Events) > 0 {
			if e := <-r.events.Events; strings.Contains(e, "SecretContended") {
				note += e
			}
		}
		if strings.Count(note, "default/istio.sleep") != 1 {
			t.Errorf("Events: %q", note)
		}
		r.pass(25 * time.Minute)
		if s := r.c.Status(); s.Contended != 0 {
			t.Errorf("%d Secrets contended in peace", s.Contended)
		}
	}, serviceAccount("default", "sleep"))
}

// TestPauseBoundsTheWhole: what waits together is written no more often than
// once in spacing, but a broken Secret does not wait for hours.
func TestPauseBoundsTheWhole(t *testing.T) {
	for undone, want := range map[int]time.Duration{1: firstPause, 2: spacing, 11: 10 * spacing, 301: calm, 10_001: calm} {
		if got := pause(freeRepairs, undone); got != want {
			t.Errorf("with %d undone the first pause is %s, want %s", undone, got, want)
		}
		if got := pause(1000, undone); got != max(want, longestPause) {
			t.Errorf("with %d undone the longest pause is %s, want %s", undone, got, max(want, longestPause))
		}
	}
}

// TestLedgerCountsTheUndone: what decides on everybody's pause is exact.
func TestLedgerCountsTheUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		a, b := key{accountKey, "web", "a"}, key{accountKey, "web", "b"}
		want := func(n int) {
			t.Helper()
			if l.undone != n {
				t.Errorf("%d undone, want %d", l.undone, n)
			}
		}
		for _, k := range []key{a, b} {
			for range freeRepairs {
				l.wrote(k, version("1"), account, Verdict{}, BadKey)
			}
			l.contention(k, BadKey, time.Now())
			l.contention(k, BadKey, time.Now())
		}
		want(2)
		l.fail(a, account, Verdict{}, errBroken)
		want(2)
		l.wrote(a, version("2"), account, Verdict{}, BadKey)
		want(1)
		l.contention(a, BadKey, time.Now())
		l.note(a, version("3"), account, Verdict{})
		want(1)
		l.forget(b)
		l.forget(b)
		want(0)
		l.contention(a, BadKey, time.Now())
		l.clear()
		want(0)
	})
}
