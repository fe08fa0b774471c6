package kube

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// heldLease is one that a replica renewed last a long time ago by our clock.
func heldLease(holder string) *coordinationv1.Lease {
	seconds, renewed := int32(15), metav1.NewMicroTime(time.Now().Add(-time.Hour))
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: storage, Name: LeaseName, ResourceVersion: "1"},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &renewed}}
}

// TestNoSecondRootWhileAnotherReplicaLeads: a CA secret that is lost does not
// come back as another by the next restart, while somebody still has the first.
func TestNoSecondRootWhileAnotherReplicaLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(heldLease("other"))
		renewing, stop := context.WithCancel(t.Context())
		go func() {
			for renewals := 1; renewing.Err() == nil; renewals++ {
				lease := heldLease("other")
				lease.ResourceVersion = strconv.Itoa(1 + renewals)
				if err := s.Tracker().Update(coordinationv1.SchemeGroupVersion.WithResource("leases"), lease, storage); err != nil {
					t.Error(err)
				}
				select {
				case <-time.After(2 * time.Second):
				case <-renewing.Done():
				}
			}
		}()
		time.AfterFunc(10*time.Minute, stop)
		begin := time.Now()
		signer, made, err := s.selfSigned().Load(t.Context())
		if err != nil || !made {
			t.Fatalf("made: %v, error %v", made, err)
		}
		if waited := time.Since(begin); waited < 10*time.Minute+stillTime-lastWait || waited > 11*time.Minute {
			t.Errorf("made after %s: the other replica renewed its lease for 10 minutes", waited)
		}
		if len(s.told) == 0 || !strings.Contains(s.told[0].Error(), "replica other has a root") {
			t.Errorf("told %v", s.told)
		}
		s.same(t, signer)
	})
}

func TestRootComesBackWhileAnotherReplicaLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(heldLease("other"))
		secret, want := stored(t, time.Now())
		time.AfterFunc(3*time.Second, func() {
			if err := s.Tracker().Add(secret); err != nil {
				t.Error(err)
			}
		})
		signer, made, err := s.selfSigned().Load(t.Context())
		if err != nil || made || !signer.Cert().Equal(want.Cert()) {
			t.Errorf("made: %v, error %v", made, err)
		}
	})
}

func TestFirstRootWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		begin := time.Now()
		if _, made, err := s.selfSigned().Load(t.Context()); err != nil || !made || time.Since(begin) > 0 {
			t.Errorf("made: %v after %s, error %v", made, time.Since(begin), err)
		}
	})
}

// TestLeaseWithoutHolderIsSomebodysNext: a leader that restarts gives the lease
// back, or leaves it to run out, and a follower that has the root takes it.
func TestLeaseWithoutHolderIsSomebodysNext(t *testing.T) {
	nobody, released := heldLease(""), heldLease("")
	nobody.Spec.HolderIdentity = nil
	second := int32(1) // as client-go releases
	released.Spec.LeaseDurationSeconds = &second
	for name, lease := range map[string]*coordinationv1.Lease{"released": released, "of nobody": nobody, "of the dead": heldLease("dead")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(lease)
				begin := time.Now()
				if _, made, err := s.selfSigned().Load(t.Context()); err != nil || !made || time.Since(begin) < stillTime {
					t.Errorf("made: %v after %s, error %v", made, time.Since(begin), err)
				}
			})
		})
	}
}

// TestNoRootBeforeItMay: nobody makes one while MayMake objects.
func TestNoRootBeforeItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		begin := time.Now()
		root := s.selfSigned()
		root.MayMake = func(context.Context) error {
			if time.Since(begin) < time.Hour {
				return errBroken
			}
			return nil
		}
		if _, made, err := root.Load(t.Context()); err != nil || !made || time.Since(begin) < time.Hour {
			t.Errorf("made: %v after %s, error %v", made, time.Since(begin), err)
		}
	})
}

// TestNoRootWhenTheLeaseCannotBeRead: not to know is not to be alone.
func TestNoRootWhenTheLeaseCannotBeRead(t *testing.T) {
	for name, failure := range failures() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore()
				begin := time.Now()
				s.PrependReactor("get", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
					return time.Since(begin) < 5*time.Minute, nil, failure
				})
				if _, made, err := s.selfSigned().Load(t.Context()); err != nil || !made || time.Since(begin) < 5*time.Minute {
					t.Errorf("made: %v after %s, error %v", made, time.Since(begin), err)
				}
				if len(s.told) == 0 {
					t.Error("nothing was told")
				}
			})
		})
	}
}
