package secretcontroller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"citadel/ca"
)

var (
	secrets  = schema.GroupResource{Resource: "secrets"}
	internal = apierrors.NewInternalError(errBroken)
)

// terminatingError is what a create in a namespace that goes away ends in.
func terminatingError() error {
	err := apierrors.NewForbidden(secrets, "istio.sleep", errors.New("namespace is being terminated"))
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	return err
}

// TestFailureIsToldAndTriedAgain: by an Event on the service account, and by
// itself.
func TestFailureIsToldAndTriedAgain(t *testing.T) { // compatibility 9, complaint 10
	for name, err := range map[string]error{
		"500": internal, "429": apierrors.NewTooManyRequests("slow down", 1), "403": apierrors.NewForbidden(secrets, "istio.sleep", errBroken),
		"timeout": context.DeadlineExceeded, "connection": errBroken,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.setFault(failing("create", "secrets", 3, err))
				r.start()
				r.pass(10 * time.Second)
				r.right("default", "sleep")
				seen := r.take()
				seen = slices.DeleteFunc(seen, func(o Observation) bool { return o.Object != "Secret" })
				if len(seen) != 4 || seen[0].Action != Created || seen[0].Err == nil || seen[3].Err != nil {
					t.Errorf("observed %+v", seen)
				}
				for range 3 {
					if e := r.event(); !strings.HasPrefix(e, "Warning SecretFailed Secret default/istio.sleep: create Secret default/istio.sleep: ") {
						t.Errorf("Event %q", e)
					}
				}
				if e := r.event(); e != "" {
					t.Errorf("one Event too many: %q", e)
				}
				if s := r.c.Status(); s.InError != 0 || s.Secrets != 1 {
					t.Errorf("status %+v", s)
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestFailuresAreNotHammered: the wait between attempts grows, to half a
// minute.
func TestFailuresAreNotHammered(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.setFault(failing("create", "secrets", -1, internal))
		r.start()
		r.pass(5 * time.Minute)
		if n := r.calls("create", "secrets"); n < 10 || n > 20 {
			t.Errorf("%d attempts in five minutes", n)
		}
		if s := r.c.Status(); s.InError != 1 || s.Secrets != 0 {
			t.Errorf("status %+v", s)
		}
		r.setFault(nil)
		r.pass(lastRetry)
		r.right("default", "sleep")
	}, serviceAccount("default", "sleep"))
}

// TestSuccessForgetsFailures: the next failure's wait is short again.
func TestSuccessForgetsFailures(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.setFault(failing("create", "secrets", 6, internal))
		r.start()
		r.pass(time.Minute)
		r.right("default", "sleep")
		r.setFault(failing("create", "secrets", 1, internal))
		r.remove("default", "istio.sleep")
		r.pass(firstRetry)
		r.right("default", "sleep")
	}, serviceAccount("default", "sleep"))
}

// TestFailureHarmsNoOther: one account's trouble does not keep another waiting.
func TestFailureHarmsNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.setFault(func(a clienttesting.Action) error {
			if c, ok := a.(clienttesting.CreateActionImpl); ok && a.Matches("create", "secrets") && c.Object.(metav1.Object).GetName() == "istio.bad" {
				return internal
			}
			return nil
		})
		r.start()
		r.right("default", "sleep")
		r.right("default", "zz")
	}, serviceAccount("default", "bad"), serviceAccount("default", "sleep"), serviceAccount("default", "zz"))
}

func TestConflictIsTriedAgainInSilence(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.take()
		s := r.secret("default", "istio.sleep")
		s.Data = nil
		r.setFault(failing("update", "secrets", 1, apierrors.NewConflict(secrets, "istio.sleep", errBroken)))
		r.update(s)
		r.untouched(func() { r.pass(time.Second) })
		r.expect(Replaced, BadChain)
		r.right("default", "sleep")
		if e := r.event(); e != "" {
			t.Errorf("Event %q", e)
		}
	}, serviceAccount("default", "sleep"))
}

// TestCacheIsBehind: a create that runs into a Secret goes by what the API
// server holds.
func TestCacheIsBehind(t *testing.T) {
	start := func(r *rig) *corev1.Secret {
		authority := plugged(r.t, time.Now())
		r.hide("istio.sleep")
		s := ancestors(r.t, authority, "sleep")
		r.make(s)
		return s
	}
	with := func(a *ca.Authority) func(*Settings) { return func(s *Settings) { s.Authority = a } }
	t.Run("right", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			authority := plugged(t, time.Now())
			r.hide("istio.sleep")
			r.make(ancestors(t, authority, "sleep"))
			r.start(with(authority))
			r.pass(time.Minute)
			r.quiet()
			if n := r.calls("update", "secrets") + r.calls("delete", "secrets"); n != 0 {
				t.Errorf("%d writes to a Secret that is right", n)
			}
		}, serviceAccount("default", "sleep"))
	})
	t.Run("not right", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			start(r) // of another authority
			r.start()
			r.expect(Replaced, Missing)
			r.right("default", "sleep")
			if n := r.calls("update", "secrets"); n != 1 {
				t.Errorf("%d updates", n)
			}
		}, serviceAccount("default", "sleep"))
	})
	t.Run("gone again", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.setFault(failing("create", "secrets", 1, apierrors.NewAlreadyExists(secrets, "istio.sleep")))
			r.start()
			r.pass(time.Second)
			r.right("default", "sleep")
		}, serviceAccount("default", "sleep"))
	})
}

// foreign is somebody else's Secret under the name of ours.
func foreign(edits ...func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "istio.sleep", Labels: map[string]string{}},
		Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"mine": []byte("x")}}
	for _, edit := range edits {
		edit(s)
	}
	return s
}

// TestForeignSecretIsLeftAlone: with an Event that says so; and once it is
// gone the account gets its own.
func TestForeignSecretIsLeftAlone(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Secret){
		"bare":                func(*corev1.Secret) {},
		"with our annotation": func(s *corev1.Secret) { s.Annotations = map[string]string{AccountAnnotation: "sleep"} },
		"managed by another":  func(s *corev1.Secret) { s.Labels[ManagedByLabel] = "Helm" },
		"immutable":           func(s *corev1.Secret) { s.Immutable = new(bool); *s.Immutable = true },
		"owned by another":    func(s *corev1.Secret) { s.OwnerReferences = []metav1.OwnerReference{{Kind: "Team"}} },
		"owned by the account, managed by another": func(s *corev1.Secret) { s.Labels[ManagedByLabel] = "Helm"; s.OwnerReferences = ownedBy("u") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.make(foreign(edit))
				r.start()
				if o := r.expectUpTo(2, Refused, Foreign); !errors.Is(o.Err, errForeign) {
					t.Errorf("error %v", o.Err)
				}
				if e := r.event(); !strings.Contains(e, "Warning SecretNameTaken Secret default/istio.sleep: ") {
					t.Errorf("Event %q", e)
				}
				r.pass(time.Minute)
				if n, looks := r.calls("create", "secrets"), r.calls("get", "secrets"); n > 2 || looks < 4 || looks > 9 {
					t.Errorf("%d attempts and %d looks in a minute: nothing must be signed for nobody", n, looks)
				}
				if s := r.secret("default", "istio.sleep"); string(s.Data["mine"]) != "x" || r.calls("update", "secrets")+r.calls("delete", "secrets") > 0 {
					t.Errorf("a foreign Secret was touched: %+v, type %s", s.ObjectMeta, s.Type)
				}
				r.remove("default", "istio.sleep")
				r.pass(foreignRetry)
				r.right("default", "sleep")
			}, serviceAccount("default", "sleep"))
		})
	}
}

func ownedBy(uid types.UID) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: "sleep", UID: uid}}
}

// TestSecretThatCannotBeUpdated is deleted and made anew, with what others
// added (K-5); the data of another type is no addition to ours.
func TestSecretThatCannotBeUpdated(t *testing.T) {
	yes := true
	for name, edit := range map[string]func(*corev1.Secret){
		"of another type, and ours by its label": func(s *corev1.Secret) { s.Labels[ManagedByLabel] = ManagedBy },
		"immutable":                              func(s *corev1.Secret) { s.Type, s.Immutable = SecretType, &yes },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.make(foreign(edit, func(s *corev1.Secret) {
					s.Labels["team"], s.Annotations = "a", map[string]string{"note": "b"}
				}))
				was := r.secret("default", "istio.sleep")
				r.start()
				r.pass(time.Second)
				r.right("default", "sleep")
				is := r.secret("default", "istio.sleep")
				if is.UID == was.UID || is.Labels["team"] != "a" || is.Annotations["note"] != "b" {
					t.Errorf("made anew as %+v", is.ObjectMeta)
				}
				if kept := string(is.Data["mine"]) == "x"; kept != (was.Type == SecretType) {
					t.Errorf("of a Secret of type %s, others' keys are kept: %v", was.Type, kept)
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestSecretHeldByAFinalizer is waited for: nothing is signed for a Secret that
// cannot be written.
func TestSecretHeldByAFinalizer(t *testing.T) {
	for name, typed := range map[string]corev1.SecretType{"of our type": SecretType, "of another": corev1.SecretTypeOpaque} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				now, yes := metav1.Now(), true
				r.make(foreign(func(s *corev1.Secret) {
					s.Type, s.Immutable, s.Labels[ManagedByLabel] = typed, &yes, ManagedBy
					s.Finalizers, s.DeletionTimestamp = []string{"team.example/hold"}, &now
				}))
				r.start()
				if o := r.expectUpTo(2, Refused, Held); !errors.Is(o.Err, errHeld) {
					t.Errorf("error %v", o.Err)
				}
				if e := r.event(); !strings.Contains(e, "Warning SecretHeld Secret default/istio.sleep: ") {
					t.Errorf("Event %q", e)
				}
				r.pass(time.Minute)
				if n, looks := r.calls("create", "secrets")+r.calls("delete", "secrets"), r.calls("get", "secrets"); n > 2 || looks < 3 || looks > 9 {
					t.Errorf("%d writes and %d looks in a minute: nothing must be signed for nobody", n, looks)
				}
				r.remove("default", "istio.sleep")
				r.pass(foreignRetry)
				r.right("default", "sleep")
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestStuffedSecretLosesNothing: what the cache dropped is read before it is
// written over, and judged as good as any other.
func TestStuffedSecretLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.pass(time.Second)
		s := r.secret("default", "istio.sleep")
		big := strings.Repeat("x", 100<<10)
		s.Data["mine"] = []byte(big)
		r.take()
		r.update(s)
		r.pass(time.Minute)
		r.quiet()
		s = r.secret("default", "istio.sleep")
		s.Data[KeyKey] = nil
		r.update(s)
		r.pass(time.Minute)
		r.right("default", "sleep")
		if s = r.secret("default", "istio.sleep"); string(s.Data["mine"]) != big || s.StringData != nil {
			t.Errorf("kept %d bytes of what somebody added, marked %v", len(s.Data["mine"]), s.StringData)
		}
	}, serviceAccount("default", "sleep"))
}

// TestTerminatingNamespaceIsIgnored: its Secrets cannot be made and need not.
func TestTerminatingNamespaceIsIgnored(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.setFault(failing("create", "secrets", -1, terminatingError()))
		r.start()
		r.pass(5 * time.Minute)
		r.quiet()
		if n := r.calls("create", "secrets"); n < 1 || n > 2 {
			t.Errorf("%d attempts", n)
		}
		if e := r.event(); e != "" {
			t.Errorf("Event %q", e)
		}
	}, serviceAccount("default", "sleep"))
}

// TestGuardStopsWrites: no write without the guard's leave (K-9).
func TestGuardStopsWrites(t *testing.T) {
	for name, err := range map[string]error{"lease lost": fmt.Errorf("lost: %w", context.Canceled), "broken": errBroken} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				authority := plugged(t, time.Now())
				orphan := ancestors(t, authority, "gone")
				r.make(orphan)
				var asked atomic.Int64
				r.run(r.settings(), func(context.Context) (context.Context, context.CancelFunc, error) {
					asked.Add(1)
					return nil, nil, err
				})
				r.pass(time.Minute)
				if n := r.writes(); n != 0 || asked.Load() == 0 {
					t.Errorf("%d writes, the guard was asked %d times", n, asked.Load())
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestGuardIsAskedForEachWrite, and what it gives is given back.
func TestGuardIsAskedForEachWrite(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asked, returned := 0, 0
		s := r.settings()
		s.Workers = 1
		r.run(s, func(ctx context.Context) (context.Context, context.CancelFunc, error) {
			asked++
			return ctx, func() { returned++ }, nil
		})
		if n := r.writes(); asked != n || returned != n || n < 5 {
			t.Errorf("%d writes, asked %d times, returned %d", n, asked, returned)
		}
	}, serviceAccount("default", "sleep"), serviceAccount("default", "httpbin"))
}

// TestWriteCutOffByTheLease: when leading has ended, another replica goes on,
// and there is nothing to complain of; when it has not, the write was slow.
func TestWriteCutOffByTheLease(t *testing.T) { // K-9
	for name, c := range map[string]struct {
		leads bool
		told  int
	}{"another leads now": {false, 0}, "this one still leads": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.setFault(failing("create", "secrets", 1, context.DeadlineExceeded))
				cut := make(chan struct{})
				s := r.settings()
				s.Workers = 1
				r.run(s, func(ctx context.Context) (context.Context, context.CancelFunc, error) {
					select {
					case <-cut:
						if !c.leads {
							return nil, nil, fmt.Errorf("lost: %w", context.Canceled)
						}
						return ctx, func() {}, nil
					default:
					}
					if r.calls("create", "configmaps") < 3 { // those are not what this is about
						return ctx, func() {}, nil
					}
					close(cut)
					limited, cancel := context.WithDeadline(ctx, time.Now())
					return limited, cancel, nil
				})
				r.pass(time.Minute)
				told := 0
				for _, o := range r.take() {
					if o.Err != nil {
						told++
					}
				}
				if e := r.event(); told != c.told || (e != "") != (told > 0) {
					t.Errorf("told %d times, Event %q", told, e)
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestStopLetsAWriteUnderWayEnd, but does not wait for one that does not.
func TestStopLetsAWriteUnderWayEnd(t *testing.T) { // K-9
	for name, c := range map[string]struct {
		takes  time.Duration // a second of it before the stop
		stored bool
	}{"soon done": {writeGrace, true}, "hangs": {time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				var writing context.Context
				r.ours.PrependReactor("create", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
					select {
					case <-time.After(c.takes):
						return false, nil, nil
					case <-writing.Done():
						return true, nil, writing.Err()
					}
				})
				s := r.settings()
				s.Workers = 1
				stop := r.run(s, func(ctx context.Context) (context.Context, context.CancelFunc, error) {
					writing = ctx
					return ctx, func() {}, nil
				})
				begun := time.Now()
				stop()
				if took := time.Since(begun); took > writeGrace+2*time.Second {
					t.Errorf("the stop took %s", took)
				}
				all, err := r.people.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
				if err != nil || (len(all.Items) == 1) != c.stored {
					t.Errorf("%d Secrets stored, %v; want one: %t", len(all.Items), err, c.stored)
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}

func TestOrphans(t *testing.T) { // compatibility 2.4; 9, complaint 16
	for name, c := range map[string]struct {
		edit    func(*corev1.Secret)
		prepare func(*rig)
		fault   func(clienttesting.Action) error
		stays   bool
	}{
		"account gone":                        {},
		"the API server fails twice":          {fault: failing("get", "serviceaccounts", 2, internal)},
		"the delete fails twice":              {fault: failing("delete", "secrets", 2, internal)},
		"the delete conflicts":                {fault: failing("delete", "secrets", 1, apierrors.NewConflict(secrets, "x", errBroken))},
		"account lives, the cache is behind":  {prepare: func(r *rig) { r.make(serviceAccount("default", "gone")); r.hide("gone") }, stays: true},
		"the API server cannot tell":          {fault: failing("get", "serviceaccounts", -1, internal), stays: true},
		"annotation of another":               {edit: func(s *corev1.Secret) { s.Annotations[AccountAnnotation] = "sleep" }, stays: true},
		"no annotation":                       {edit: func(s *corev1.Secret) { s.Annotations = nil }, stays: true},
		"name of another kind":                {edit: func(s *corev1.Secret) { s.Name = "gone" }, stays: true},
		"unmanaged namespace (complaint 16)":  {edit: func(s *corev1.Secret) { s.Namespace = "unmanaged" }, stays: true},
		"of a foreign type, and name of ours": {edit: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.make(namespace("unmanaged", map[string]string{OverrideLabel: "false"}))
				s := ancestors(t, plugged(t, time.Now()), "gone")
				if c.edit != nil {
					c.edit(s)
				}
				r.make(s)
				if c.prepare != nil {
					c.prepare(r)
				}
				r.setFault(c.fault)
				r.start()
				r.pass(5 * time.Second)
				_, err := r.people.CoreV1().Secrets(s.Namespace).Get(t.Context(), s.Name, metav1.GetOptions{})
				if (err == nil) != c.stays {
					t.Errorf("after a look: %v", err)
				}
				if !c.stays && r.calls("get", "serviceaccounts") == 0 {
					t.Error("deleted on the word of a cache")
				}
			})
		})
	}
}

// TestOrphanThatIsTakenInTheMeantime: what is deleted is what was looked at,
// not what came to stand in its place.
func TestOrphanThatIsTakenInTheMeantime(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		s := ancestors(t, plugged(t, time.Now()), "gone")
		r.make(s)
		r.setFault(func(a clienttesting.Action) error {
			if a.Matches("get", "serviceaccounts") {
				s.Annotations[AccountAnnotation] = "another"
				r.update(s)
			}
			return nil
		})
		r.start()
		r.pass(time.Minute)
		if n := r.calls("get", "serviceaccounts"); n < 1 || n > 2 || r.secret("default", "istio.gone").Annotations[AccountAnnotation] != "another" {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestAccountDeleted: its Secret goes with it, tombstone or not.
func TestAccountDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.take()
		if err := r.people.CoreV1().ServiceAccounts("default").Delete(t.Context(), "sleep", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Second)
		r.expect(Deleted, "service account gone")
		if s := r.c.Status(); s.Secrets != 0 {
			t.Errorf("status %+v", s)
		}
	}, serviceAccount("default", "sleep"))
}

// TestWatchesBreak: whatever happened while nobody watched is found out by the
// lists that follow.
func TestWatchesBreak(t *testing.T) {
	gone := apierrors.NewResourceExpired("too old resource version")
	for name, err := range map[string]error{"server down": errBroken, "resource version too old": gone} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.start()
				r.setFault(func(clienttesting.Action) error { return err })
				r.api.breakWatches()
				r.pass(time.Minute)
				r.make(serviceAccount("default", "new"))
				r.remove("default", "istio.sleep")
				s := r.secret("default", "istio.httpbin")
				s.Data = nil
				r.update(s)
				if err := r.people.CoreV1().ServiceAccounts("default").Delete(t.Context(), "leaving", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				r.pass(time.Minute)
				r.setFault(nil)
				r.pass(5 * time.Minute) // an informer's longest wait is a minute
				for _, name := range []string{"sleep", "httpbin", "new"} {
					r.right("default", name)
				}
				if _, err := r.people.CoreV1().Secrets("default").Get(t.Context(), "istio.leaving", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
					t.Errorf("the Secret of an account that is gone: %v", err)
				}
			}, serviceAccount("default", "sleep"), serviceAccount("default", "httpbin"), serviceAccount("default", "leaving"))
		})
	}
}

// TestQuarrel: somebody who deletes the Secret as soon as it is there gets it
// back, ever more slowly.
func TestQuarrel(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.take()
		made := 0
		for range 600 {
			if err := r.people.CoreV1().Secrets("default").Delete(t.Context(), "istio.sleep", metav1.DeleteOptions{}); err == nil {
				made++
			}
			r.pass(time.Second)
		}
		if made < 10 || made > 14 {
			t.Errorf("made %d times in ten minutes", made)
		}
		r.pass(longestPause)
		r.right("default", "sleep")
	}, serviceAccount("default", "sleep"))
}

// TestVanishedWithItsAccount: a Secret that goes with its service account is not
// made again because the end of the account is not yet in the cache, where its
// Secret's is.
func TestVanishedWithItsAccount(t *testing.T) {
	for name, another := range map[string]bool{"gone": false, "another under its name": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.start()
				deaf := func(a clienttesting.Action) error {
					if a.Matches("list", "serviceaccounts") || a.Matches("watch", "serviceaccounts") {
						return errBroken
					}
					return nil
				}
				r.setFault(deaf)
				r.api.breakWatches()
				r.pass(5 * time.Minute) // the other caches hear again
				r.take()
				if err := r.people.CoreV1().ServiceAccounts("default").Delete(t.Context(), "sleep", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				if another {
					r.make(serviceAccount("default", "sleep"))
				}
				r.remove("default", "istio.sleep") // as garbage collection does
				r.pass(time.Minute)
				r.quiet()
				r.setFault(nil)
				r.pass(5 * time.Minute)
				if another {
					r.right("default", "sleep")
				} else {
					r.quiet()
				}
			}, serviceAccount("default", "sleep"))
		})
	}
}
