package kube

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

const (
	duration      = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 1100 * time.Millisecond // no part of the deadline: no two timers end at once
)

var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

// court is where replicas contend for the lease: a fake API server whose
// updates conflict as real ones do.
type court struct {
	t       *testing.T
	mu      sync.Mutex
	tracker clienttesting.ObjectTracker // guarded by mu
	version int                         // guarded by mu
	working map[string]int              // guarded by mu: how often each replica works now
	terms   map[string]int              // guarded by mu: how often each has begun to
}

func newCourt(t *testing.T) *court {
	return &court{t: t, tracker: fake.NewSimpleClientset().Tracker(), working: map[string]int{}, terms: map[string]int{}}
}

// client is one replica's way to the API server; line, if set, decides on each
// call: it may take its time, and fail it.
func (c *court) client(line func(verb string) error) *fake.Clientset {
	client := fake.NewSimpleClientset()
	client.PrependReactor("*", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if line != nil {
			if err := line(a.GetVerb()); err != nil {
				return true, nil, err
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if u, ok := a.(clienttesting.UpdateActionImpl); ok {
			return c.update(u)
		}
		return clienttesting.ObjectReaction(c.tracker)(a)
	})
	return client
}

func (c *court) update(a clienttesting.UpdateActionImpl) (bool, runtime.Object, error) {
	next := a.Object.DeepCopyObject().(*coordinationv1.Lease)
	have, err := c.tracker.Get(leases, next.Namespace, next.Name)
	if err != nil {
		return true, nil, err
	}
	if have.(*coordinationv1.Lease).ResourceVersion != next.ResourceVersion {
		return true, nil, apierrors.NewConflict(leases.GroupResource(), next.Name, errBroken)
	}
	c.version++
	next.ResourceVersion = strconv.Itoa(c.version)
	return true, next, c.tracker.Update(leases, next, next.Namespace)
}

func (c *court) holder() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	obj, err := c.tracker.Get(leases, storage, LeaseName)
	if err != nil || obj.(*coordinationv1.Lease).Spec.HolderIdentity == nil {
		return ""
	}
	return *obj.(*coordinationv1.Lease).Spec.HolderIdentity
}

func (c *court) begins(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.working[name]++
	c.terms[name]++
}

func (c *court) ends(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.working[name]--
}

func (c *court) worked(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.terms[name]
}

// replica is one process of several.
type replica struct {
	*court
	name  string
	lease Lease
	err   error
	done  chan struct{}
	stop  context.CancelFunc
}

// join starts a replica whose work is to wait for its end, and after that for
// linger.
func (c *court) join(name string, line func(verb string) error, work func(context.Context, Guard)) *replica {
	r := &replica{court: c, name: name, done: make(chan struct{})}
	r.lease = Lease{Client: c.client(line), Namespace: storage, Identity: name, Duration: duration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.done)
		r.err = r.lease.Hold(ctx, func(ctx context.Context, guard Guard) {
			c.begins(name)
			defer c.ends(name)
			work(ctx, guard)
		})
	}()
	c.t.Cleanup(func() { cancel(); <-r.done })
	return r
}

func untilDone(ctx context.Context, _ Guard) { <-ctx.Done() }

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestOneReplicaWorks(t *testing.T) { // K-9
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		c.join("a", nil, untilDone)
		pass(time.Second)
		c.join("b", nil, untilDone)
		c.join("c", nil, untilDone)
		pass(time.Hour)
		if c.holder() != "a" || c.worked("a") != 1 || c.worked("b")+c.worked("c") != 0 {
			t.Errorf("%s holds the lease; terms %v", c.holder(), c.terms)
		}
	})
}

// TestLeaseIsGivenBackAfterTheWork, not before; and then the next takes it at
// once.
func TestLeaseIsGivenBackAfterTheWork(t *testing.T) { // K-9
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		const last = 7 * time.Second // write under way
		a := c.join("a", nil, func(ctx context.Context, _ Guard) { <-ctx.Done(); time.Sleep(last) })
		pass(time.Second)
		c.join("b", nil, untilDone)
		pass(time.Minute)
		told := time.Now()
		a.stop()
		pass(last - time.Millisecond)
		if c.holder() != "a" || c.worked("b") != 0 {
			t.Errorf("%s holds the lease while a's work goes on", c.holder())
		}
		<-a.done
		if took := time.Since(told); took != last || a.err != nil {
			t.Errorf("ended after %s with %v", took, a.err)
		}
		pass(3 * retryPeriod)
		if c.holder() != "b" || c.worked("b") != 1 {
			t.Errorf("%q holds the lease after it was given back", c.holder())
		}
	})
}

func TestHoldEndsBeforeItIsWon(t *testing.T) {
	for name, line := range map[string]func(string) error{
		"another leads":       nil,
		"no connection":       func(string) error { return errBroken },
		"forbidden to update": func(verb string) error { return map[string]error{"update": errBroken, "create": errBroken}[verb] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCourt(t)
				c.join("a", nil, untilDone)
				pass(time.Second)
				b := c.join("b", line, untilDone)
				pass(time.Minute)
				told := time.Now()
				b.stop()
				<-b.done
				if took := time.Since(told); took > time.Second || b.err != nil || c.worked("b") != 0 {
					t.Errorf("ended after %s with %v, worked %d times", took, b.err, c.worked("b"))
				}
			})
		})
	}
}

// TestGuardCountsFromTheBeginningOfARenewal: others count from when they see
// it, which may be right then, however late the answer comes.
func TestGuardCountsFromTheBeginningOfARenewal(t *testing.T) { // K-9
	synctest.Test(t, func(t *testing.T) {
		const slow = 3 * time.Second
		c := newCourt(t)
		var mu sync.Mutex
		var begun time.Time // guarded by mu
		checks := 0
		line := func(verb string) error {
			at := time.Now()
			if time.Sleep(slow); verb == "update" || verb == "create" {
				mu.Lock()
				defer mu.Unlock()
				begun = at
			}
			return nil
		}
		c.join("a", line, func(ctx context.Context, guard Guard) {
			for ctx.Err() == nil {
				mu.Lock()
				want := begun.Add(renewDeadline)
				mu.Unlock()
				write, cancel, err := guard(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if got, ok := write.Deadline(); !ok || !got.Equal(want) {
					t.Errorf("a write may last until %s, want %s", got, want)
				}
				cancel()
				checks++
				pause(ctx, 777*time.Millisecond)
			}
		})
		pass(time.Minute)
		if checks < 50 {
			t.Errorf("%d checks", checks)
		}
	})
}

// TestGuardRefusesInTime: a replica cut off stops writing before another may
// begin, ends its work, and works again when it can.
func TestGuardRefusesInTime(t *testing.T) { // K-9
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		var mu sync.Mutex
		var cut bool                         // guarded by mu
		var allowed, refused, next time.Time // guarded by mu
		line := func(string) error {
			mu.Lock()
			defer mu.Unlock()
			if cut {
				return errBroken
			}
			return nil
		}
		c.join("a", line, func(ctx context.Context, guard Guard) {
			for ctx.Err() == nil {
				write, cancel, err := guard(ctx)
				mu.Lock()
				if deadline := time.Time(allowed); err == nil {
					if d, _ := write.Deadline(); d.After(deadline) {
						allowed = d
					}
					cancel()
				} else if refused = time.Now(); !errors.Is(err, context.Canceled) {
					t.Errorf("refused with %v", err)
				}
				mu.Unlock()
				pause(ctx, 100*time.Millisecond)
			}
		})
		pass(time.Minute)
		c.join("b", nil, func(ctx context.Context, _ Guard) {
			mu.Lock()
			next = time.Now()
			mu.Unlock()
			<-ctx.Done()
		})
		pass(time.Minute)
		mu.Lock()
		cut = true
		mu.Unlock()
		cutAt := time.Now()
		pass(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if allowed.Sub(cutAt) > renewDeadline || refused.Before(allowed) {
			t.Errorf("cut off, a might write for %s, and was refused after %s", allowed.Sub(cutAt), refused.Sub(cutAt))
		}
		if next.Sub(allowed) < duration-renewDeadline-retryPeriod {
			t.Errorf("b began %s after a's last write had to end", next.Sub(allowed))
		}
		if c.holder() != "b" || c.working["a"] != 0 {
			t.Errorf("%s holds the lease, a works %d times", c.holder(), c.working["a"])
		}
	})
}

// TestCutOffAndBack: the next term is a new one.
func TestCutOffAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		from := time.Now().Add(time.Minute)
		line := func(string) error {
			if at := time.Now(); at.After(from) && at.Before(from.Add(time.Minute)) {
				return errBroken
			}
			return nil
		}
		var guards []Guard
		c.join("a", line, func(ctx context.Context, guard Guard) {
			guards = append(guards, guard)
			<-ctx.Done()
		})
		pass(3 * time.Minute)
		if len(guards) != 2 || c.working["a"] != 1 {
			t.Fatalf("%d terms", len(guards))
		}
		if _, _, err := guards[0](t.Context()); err == nil {
			t.Error("the first term's guard allows a write in the second")
		}
		if _, cancel, err := guards[1](t.Context()); err != nil {
			t.Error(err)
		} else {
			cancel()
		}
	})
}

// TestReleaseSparesTheNext: a replica that lost the lease long ago and gives it
// back late must not give back another's.
func TestReleaseSparesTheNext(t *testing.T) { // K-9, specifications 9.15
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		cut := time.Now().Add(time.Minute)
		healed := cut.Add(20 * time.Second)
		line := func(string) error {
			switch at := time.Now(); {
			case at.Before(cut), !at.Before(healed):
				return nil
			case at.Before(cut.Add(renewDeadline + 450*time.Millisecond)): // a network that refuses while a tries to renew,
				return errBroken
			default: // and hangs when it gives up
				time.Sleep(time.Until(healed))
				return nil
			}
		}
		a := c.join("a", line, untilDone)
		pass(30 * time.Second)
		c.join("b", nil, untilDone)
		time.Sleep(time.Until(healed.Add(-time.Millisecond)))
		if synctest.Wait(); c.holder() != "b" {
			t.Fatalf("%q holds the lease: the test's times are off", c.holder())
		}
		pass(2 * time.Millisecond)
		if c.holder() != "b" {
			t.Errorf("%q holds the lease that was b's: a third replica may take it while b writes", c.holder())
		}
		pass(time.Minute)
		if c.worked("b") != 1 || c.working["b"] != 1 {
			t.Errorf("b worked %d times, works %d times", c.worked("b"), c.working["b"])
		}
		a.stop()
	})
}

// TestNeverTwoWriters: under failures without pattern, no two replicas may
// write at once.
func TestNeverTwoWriters(t *testing.T) { // K-9
	for seed := range 5 {
		synctest.Test(t, func(t *testing.T) {
			c := newCourt(t)
			var mu sync.Mutex
			until := map[string]time.Time{} // guarded by mu: how long each may write
			for i, name := range []string{"a", "b", "c"} {
				state := uint32(seed*3+i)*2654435761 + 1
				line := func(string) error { // answers, fails, or is slow, for some calls in a row
					state = state*1664525 + 1013904223
					switch time.Now().Unix() / 40 % 3 {
					case int64(i):
						return errBroken
					default:
						time.Sleep(time.Duration(state%1500) * time.Millisecond)
						return nil
					}
				}
				c.join(name, line, func(ctx context.Context, guard Guard) {
					for ctx.Err() == nil {
						if write, cancel, err := guard(ctx); err == nil {
							mu.Lock()
							for other, end := range until {
								if other != name && time.Now().Before(end) {
									t.Errorf("%s writes, and %s may until %s from now", name, other, time.Until(end))
								}
							}
							until[name], _ = write.Deadline()
							mu.Unlock()
							cancel()
						}
						pause(ctx, 300*time.Millisecond)
					}
					mu.Lock()
					defer mu.Unlock()
					delete(until, name) // its work has ended
				})
			}
			pass(20 * time.Minute)
			if c.worked("a")+c.worked("b")+c.worked("c") < 3 {
				t.Errorf("terms %v", c.terms)
			}
		})
	}
}

func TestHoldTellsWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		var heard []string
		lease := Lease{Client: c.client(nil), Namespace: storage, Identity: "a", Duration: duration, RenewDeadline: renewDeadline,
			RetryPeriod: retryPeriod, Changed: func(leader string) { heard = append(heard, leader) }}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- lease.Hold(ctx, untilDone) }()
		pass(time.Minute)
		cancel()
		if err := <-done; err != nil || len(heard) != 1 || heard[0] != "a" {
			t.Errorf("heard %q, ended with %v", heard, err)
		}
		lease2, err := c.client(nil).CoordinationV1().Leases(storage).Get(t.Context(), "istio-citadel", metav1.GetOptions{})
		if err != nil || lease2.Spec.HolderIdentity == nil || *lease2.Spec.HolderIdentity != "" {
			t.Errorf("the lease after its release: %+v (%v)", lease2.Spec, err)
		}
	})
}

func TestHoldRefusesTimesThatCannotBe(t *testing.T) {
	for name, edit := range map[string]func(*Lease){
		"deadline beyond duration": func(l *Lease) { l.RenewDeadline = l.Duration },
		"retry beyond deadline":    func(l *Lease) { l.RetryPeriod = l.RenewDeadline },
		"no duration":              func(l *Lease) { l.Duration, l.RenewDeadline, l.RetryPeriod = 0, 0, 0 },
	} {
		l := Lease{Client: newStore(), Namespace: storage, Identity: "a", Duration: duration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod}
		edit(&l)
		err := l.Hold(t.Context(), func(context.Context, Guard) { t.Errorf("%s: work ran", name) })
		if err == nil || !strings.Contains(err.Error(), "Lease istio-system/istio-citadel") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
