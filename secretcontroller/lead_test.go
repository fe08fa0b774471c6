package secretcontroller

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
)

// TestLeadEndsCleanly: also in the midst of failures. That no goroutine is
// left is what the bubble insists on.
func TestLeadEndsCleanly(t *testing.T) {
	for name, fault := range map[string]func(clienttesting.Action) error{
		"at rest":            nil,
		"writes fail":        failing("create", "secrets", -1, errBroken),
		"namespace goes":     failing("create", "secrets", -1, terminatingError()),
		"account unreadable": failing("get", "serviceaccounts", -1, errBroken),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.make(ancestors(t, plugged(t, time.Now()), "gone"))
				r.setFault(func(a clienttesting.Action) error {
					if fault == nil || a.Matches("list", a.GetResource().Resource) || a.Matches("watch", a.GetResource().Resource) {
						return nil
					}
					return fault(a)
				})
				stop := r.start()
				r.pass(3 * time.Second)
				began := time.Now()
				stop()
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("stopping took %s", took)
				}
				n := len(r.ours.Actions())
				r.pass(time.Hour)
				if more := len(r.ours.Actions()) - n; more != 0 {
					t.Errorf("%d calls after the end", more)
				}
				if s := r.c.Status(); s != (Status{}) {
					t.Errorf("status after the end: %+v", s)
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestLeadWaitsForWritesUnderWay: it returns when the last worker has, not
// before.
func TestLeadWaitsForWritesUnderWay(t *testing.T) { // K-9
	bubble(t, func(t *testing.T, r *rig) {
		s := r.settings()
		stop := r.run(s, func(ctx context.Context) (context.Context, context.CancelFunc, error) {
			time.Sleep(3 * time.Second) // a write that takes its time
			return ctx, func() {}, nil
		})
		began := time.Now() // a second after the start
		stop()
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("ended %s after it was told, with a write under way", took)
		}
	}, serviceAccount("default", "sleep"))
}

// TestLeadWithoutCaches: nothing is decided before every cache has had its
// first list (K-2).
func TestLeadWithoutCaches(t *testing.T) {
	for _, resource := range []string{"secrets", "serviceaccounts", "namespaces", "configmaps"} {
		t.Run(resource, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.setFault(failing("list", resource, -1, errBroken))
				r.start()
				r.pass(time.Minute)
				if n := r.writes(); n != 0 || r.c.Synced() {
					t.Errorf("%d writes, synced: %v", n, r.c.Synced())
				}
				r.setFault(nil)
				r.pass(5 * time.Minute) // an informer's longest wait is a minute
				r.right("default", "sleep")
			}, serviceAccount("default", "sleep"))
		})
	}
}

func TestLeadIsToldToEndBeforeItBegan(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		c, err := New(r.settings())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := c.Lead(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestFollowerWatchesAndDoesNotWrite, and takes over with all that it missed.
func TestFollowerWatchesAndDoesNotWrite(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		c, err := New(r.settings())
		if err != nil {
			t.Fatal(err)
		}
		r.c = c
		ctx, cancel := context.WithCancel(context.Background())
		defer r.pass(time.Second)
		defer cancel()
		go c.Watch(ctx)
		r.pass(time.Second)
		r.make(serviceAccount("default", "late"))
		r.pass(time.Hour)
		if n := r.writes(); n != 0 || !c.Synced() || c.Status().Leading {
			t.Errorf("a follower: %d writes, synced %v, status %+v", n, c.Synced(), c.Status())
		}
		for range 2 { // terms
			leading, resign := context.WithCancel(ctx)
			done := make(chan error)
			go func() { done <- c.Lead(leading, nil) }()
			r.pass(time.Second)
			r.right("default", "sleep")
			r.right("default", "late")
			resign()
			if err := <-done; err != nil {
				t.Error(err)
			}
			r.remove("default", "istio.late")
			r.pass(time.Minute)
			if list, err := r.people.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 1 {
				t.Errorf("written without leading: %v", err)
			}
		}
	}, serviceAccount("default", "sleep"))
}

// TestQueueProvesThatItMoves: with nothing to do, and when all fails.
func TestQueueProvesThatItMoves(t *testing.T) { // K-13
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.setFault(func(clienttesting.Action) error { return errBroken })
		r.pass(time.Hour)
		if s := r.c.Status(); time.Since(s.LastHeartbeat) > heartbeat {
			t.Errorf("last heartbeat %s ago", time.Since(s.LastHeartbeat))
		}
	}, serviceAccount("default", "sleep"))
}

// TestHeartbeatStopsWithTheQueue: workers that hang are seen.
func TestHeartbeatStopsWithTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		s := r.settings()
		s.Workers = 1
		release := make(chan struct{})
		stop := r.run(s, func(ctx context.Context) (context.Context, context.CancelFunc, error) {
			<-release
			return ctx, func() {}, nil
		})
		r.pass(10 * time.Minute)
		if s := r.c.Status(); time.Since(s.LastHeartbeat) < 9*time.Minute || s.QueueDepth == 0 {
			t.Errorf("status of a queue that hangs: %+v", s)
		}
		close(release)
		r.pass(heartbeat)
		if s := r.c.Status(); time.Since(s.LastHeartbeat) > heartbeat || s.QueueDepth != 0 {
			t.Errorf("status of a queue that moves again: %+v", s)
		}
		stop()
	}, serviceAccount("default", "sleep"))
}

// TestNamespaceLabels take effect both ways, without deleting what workloads
// use.
func TestNamespaceLabels(t *testing.T) { // compatibility 2.3
	bubble(t, func(t *testing.T, r *rig) {
		r.make(namespace("web", map[string]string{OverrideLabel: "false"}), serviceAccount("web", "sleep"))
		set := func(labels map[string]string) {
			t.Helper()
			if _, err := r.people.CoreV1().Namespaces().Update(t.Context(), namespace("web", labels), metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			r.pass(time.Second)
		}
		r.start()
		if list, _ := r.people.CoreV1().Secrets("web").List(t.Context(), metav1.ListOptions{}); len(list.Items) > 0 {
			t.Fatal("an unmanaged namespace got a Secret")
		}
		set(nil)
		r.right("web", "sleep")

		set(map[string]string{EnvLabel: "another"})
		s := r.secret("web", "istio.sleep")
		s.Data = map[string][]byte{"x": nil}
		r.update(s)
		r.take()
		r.pass(2 * time.Hour)
		r.quiet()
		if got := r.c.Status().Secrets; got != 0 {
			t.Errorf("%d Secrets under management", got)
		}

		set(map[string]string{EnvLabel: "istio-system"})
		r.right("web", "sleep")
	})
}

// TestListedNamespaces are managed whatever their labels say, and no other is
// looked at.
func TestListedNamespaces(t *testing.T) { // compatibility 2.3 rule 1, and its defect ORC
	bubble(t, func(t *testing.T, r *rig) {
		r.make(namespace("web", map[string]string{OverrideLabel: "false"}), serviceAccount("web", "sleep"), serviceAccount("default", "sleep"))
		r.start(func(s *Settings) { s.Scope = Scope{Listed: []string{"web"}, StorageNamespace: "istio-system"} })
		r.right("web", "sleep")
		r.take()
		r.pass(31 * time.Minute)
		r.expect(Replaced, Due)
		if n := r.calls("list", "namespaces"); n > 0 {
			t.Error("namespaces were listed, which needs rights on the whole cluster (#17309)")
		}
		for _, a := range r.ours.Actions() {
			if ns := a.GetNamespace(); ns != "web" && ns != "istio-system" {
				t.Errorf("%s %s in namespace %q", a.GetVerb(), a.GetResource().Resource, ns)
			}
		}
	})
}

// TestNamespaceOnItsWayOut is no longer managed.
func TestNamespaceOnItsWayOut(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ns := namespace("web", nil)
		at := metav1.Now()
		ns.DeletionTimestamp = &at
		r.make(ns, serviceAccount("web", "sleep"))
		r.start()
		r.pass(time.Minute)
		for _, a := range r.ours.Actions() {
			if a.GetNamespace() == "web" {
				t.Errorf("%s %s", a.GetVerb(), a.GetResource().Resource)
			}
		}
	})
}

// TestNothingIsLeftOfATerm: the bubble would panic.
func TestNothingIsLeftOfATerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term := newTerm(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var worked atomic.Int64
		for i := range 3 {
			term.queue.Add(key{kind: accountKey, name: string('a' + rune(i))})
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			term.run(ctx, 4, func(context.Context, key) (time.Duration, error) { worked.Add(1); return time.Minute, nil })
		}()
		synctest.Wait()
		cancel()
		<-done
		time.Sleep(time.Hour)
		if worked.Load() != 3 {
			t.Errorf("worked on %d keys", worked.Load())
		}
	})
}

// TestRootsAreKept in every managed namespace, and like the Secrets.
func TestRootsAreKept(t *testing.T) { // compatibility 3.7
	bubble(t, func(t *testing.T, r *rig) {
		authority := plugged(t, time.Now())
		r.make(namespace("kube-public", nil), namespace("unmanaged", map[string]string{OverrideLabel: "false"}))
		r.make(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: RootsConfigMap, Labels: map[string]string{"team": "a"}},
			Data: map[string]string{"extra": "x", RootsKey: "old"}})
		r.start(func(s *Settings) { s.Authority = authority })
		roots := string(authority.Signer().RootsPEM())
		for ns, want := range map[string]bool{"default": true, "istio-system": true, "kube-public": false, "unmanaged": false} {
			cm, err := r.people.CoreV1().ConfigMaps(ns).Get(t.Context(), RootsConfigMap, metav1.GetOptions{})
			if (err == nil) != want {
				t.Errorf("%s: %v", ns, err)
			} else if want && (cm.Data["root-cert.pem"] != roots || cm.Labels["istio.io/config"] != "true") {
				t.Errorf("%s holds %v, labels %v", ns, cm.Data, cm.Labels)
			}
		}
		cm := r.configMap("default", RootsConfigMap)
		if cm.Data["extra"] != "x" || cm.Labels["team"] != "a" {
			t.Errorf("others' part is lost: %v, %v", cm.Data, cm.Labels)
		}
		cm.Data, cm.Labels = nil, nil
		r.putConfigMap(cm)
		r.untouched(func() { r.pass(time.Second) })
		if cm = r.configMap("default", RootsConfigMap); cm.Data[RootsKey] != roots || cm.Labels[RootsConfigMapLabel] != "true" {
			t.Errorf("emptied, it holds %v", cm.Data)
		}
		n := r.writes()
		r.pass(time.Hour)
		if more := r.writes() - n; more != 0 {
			t.Errorf("%d writes with all as it must be", more)
		}
	})
}

func (r *rig) configMap(namespace, name string) *corev1.ConfigMap {
	r.t.Helper()
	cm, err := r.people.CoreV1().ConfigMaps(namespace).Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return cm
}

func (r *rig) putConfigMap(cm *corev1.ConfigMap) {
	r.t.Helper()
	if _, err := r.people.CoreV1().ConfigMaps(cm.Namespace).Update(r.t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}
