package secretcontroller

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"citadel/ca/catest"
)

// These tests are of tenants and tools that harm, on purpose or not.

// TestReplacedBehindTheCache: what is read again before it is written must be
// what was judged, or somebody's own Secret would be taken for ours.
func TestReplacedBehindTheCache(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var halted atomic.Bool
		r.run(r.settings(), func(ctx context.Context) (context.Context, context.CancelFunc, error) {
			if halted.Load() {
				return nil, nil, context.Canceled
			}
			ctx, cancel := context.WithCancel(ctx)
			return ctx, cancel, nil
		})
		s := r.secret("default", "istio.sleep")
		s.Data["mine"] = []byte(strings.Repeat("x", maxForeignBytes))
		r.update(s)
		cached := r.secret("default", "istio.sleep")
		lighten(cached)
		want, err := r.c.want(Account{Namespace: "default", Name: "sleep", UID: "u"})
		if err != nil {
			t.Fatal(err)
		}
		halted.Store(true)
		r.remove("default", "istio.sleep")
		r.make(foreign())
		fresh, err := r.c.issue(time.Now(), want)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.c.store(t.Context(), want, cached, fresh); !apierrors.IsConflict(err) {
			t.Errorf("error %v", err)
		}
		if s := r.secret("default", "istio.sleep"); s.Type != corev1.SecretTypeOpaque || string(s.Data["mine"]) != "x" {
			t.Errorf("somebody's own Secret is gone: %s", s.Type)
		}
		r.pass(time.Second) // the watches' last events are read
	}, serviceAccount("default", "sleep"))
}

// TestOldSecretPutBack: a backup that is restored again and again is repaired
// ever more slowly, whatever is wrong with it by now.
func TestOldSecretPutBack(t *testing.T) {
	for name, age := range map[string]time.Duration{"due": 45 * time.Minute, "expired": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.start()
				old := r.secret("default", "istio.sleep")
				r.pass(age)
				r.take()
				made := 0
				for range 600 {
					s := r.secret("default", "istio.sleep")
					if string(s.Data[ChainKey]) != string(old.Data[ChainKey]) {
						made++
						s.Data = old.Data
						r.update(s)
					}
					r.pass(time.Second)
				}
				if made < 5 || made > 16 {
					t.Errorf("made anew %d times in ten minutes", made)
				}
				r.expectUpTo(20, Replaced, TurnedBack)
				r.pass(longestPause)
				r.right("default", "sleep")
			}, serviceAccount("default", "sleep"))
		})
	}
}

// TestWebhookThatChangesSecrets is told, and not answered at full speed.
func TestWebhookThatChangesSecrets(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		alien := secretOf(t, catest.Root(t, time.Now(), catest.Spec{Name: "alien"}).Leaf(t, time.Now(), sleepID))
		for _, verb := range []string{"create", "update"} {
			r.ours.PrependReactor(verb, "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
				s := a.(interface{ GetObject() runtime.Object }).GetObject().(*corev1.Secret)
				s.Data = alien.Data
				return false, nil, nil
			})
		}
		r.start()
		for _, o := range r.take() {
			if o.Object == "Secret" && (o.Err == nil || !strings.Contains(o.Err.Error(), "admission webhook")) {
				t.Errorf("observed %+v", o)
			}
		}
		r.pass(5 * time.Minute)
		if n := r.calls("create", "secrets") + r.calls("update", "secrets"); n > 12 {
			t.Errorf("%d writes in five minutes", n)
		}
	}, serviceAccount("default", "sleep"))
}

// TestEventsDoNotHurryFailures: a service account that is touched all the time
// gets no more attempts than others.
func TestEventsDoNotHurryFailures(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.setFault(failing("create", "secrets", -1, apierrors.NewForbidden(secrets, "istio.sleep", errBroken)))
		r.start()
		for i := range 600 {
			sa, err := r.people.CoreV1().ServiceAccounts("default").Get(t.Context(), "sleep", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			sa.Annotations = map[string]string{"touched": strconv.Itoa(i)}
			if _, err := r.people.CoreV1().ServiceAccounts("default").Update(t.Context(), sa, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			r.pass(time.Second / 2)
		}
		if n := r.calls("create", "secrets"); n < 10 || n > 20 {
			t.Errorf("%d attempts in five minutes", n)
		}
		r.setFault(nil)
		r.pass(lastRetry)
		r.right("default", "sleep")
	}, serviceAccount("default", "sleep"))
}

// TestImmutableAndFull: what could not be made again is not deleted.
func TestImmutableAndFull(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		yes := true
		r.make(foreign(func(s *corev1.Secret) {
			s.Type, s.Immutable, s.Data["mine"] = SecretType, &yes, []byte(strings.Repeat("x", corev1.MaxSecretSize-10))
		}), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: RootsConfigMap}, Immutable: &yes,
			Data: map[string]string{"mine": strings.Repeat("x", corev1.MaxSecretSize-10)}})
		r.start()
		r.pass(time.Minute)
		if n := r.calls("delete", "secrets") + r.calls("delete", "configmaps"); n > 0 {
			t.Errorf("%d deletes", n)
		}
		told := 0
		for _, o := range r.take() {
			if o.Err != nil && strings.Contains(o.Err.Error(), "too many to be made again") {
				told++
			}
		}
		if told < 2 {
			t.Errorf("told %d times", told)
		}
	}, serviceAccount("default", "sleep"))
}

// TestListedNamespaceThatIsNot is told once and waited for.
func TestListedNamespaceThatIsNot(t *testing.T) {
	for name, restored := range map[string]bool{"made": false, "restored with its roots": true} {
		t.Run(name, func(t *testing.T) { awaitTypo(t, restored) })
	}
}

func awaitTypo(t *testing.T, restored bool) {
	t.Helper()
	bubble(t, func(t *testing.T, r *rig) {
		missing := apierrors.NewNotFound(corev1.Resource("namespaces"), "typo")
		r.setFault(func(a clienttesting.Action) error {
			if a.Matches("create", "configmaps") && a.GetNamespace() == "typo" {
				return missing
			}
			return nil
		})
		r.start(func(s *Settings) {
			s.Scope = Scope{Listed: []string{"default", "typo"}, StorageNamespace: "istio-system"}
		})
		r.pass(10 * time.Minute)
		told := 0
		for _, o := range r.take() {
			if o.Err != nil {
				told++
				if !strings.Contains(o.Err.Error(), "ConfigMap typo/istio-ca-root-cert: its namespace does not exist") {
					t.Errorf("told %v", o.Err)
				}
			}
		}
		if told != 1 {
			t.Errorf("told %d times", told)
		}
		if restored {
			cm := r.configMap("default", RootsConfigMap)
			r.make(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "typo", Name: cm.Name, Labels: cm.Labels}, Data: cm.Data})
		}
		r.setFault(nil)
		r.pass(lastRetry)
		if cm := r.configMap("typo", RootsConfigMap); cm.Data[RootsKey] == "" {
			t.Error("the roots did not come once it existed")
		}
		if s := r.c.Status(); s.InError != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestLargeBundles: today's roots may be of any length.
func TestLargeBundles(t *testing.T) {
	today := []byte(strings.Repeat("r", 2*maxRootsBytes))
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio.sleep"}, Data: map[string][]byte{RootsKey: []byte(string(today))}}
	if _, err := stripSecret(today)(s); err != nil || s.StringData != nil || len(s.Data[RootsKey]) != len(today) || &s.Data[RootsKey][0] != &today[0] {
		t.Errorf("kept %d bytes, marked %v, error %v", len(s.Data[RootsKey]), s.StringData, err)
	}
}

// TestLabelThatDecidesNothing is told when it appears.
func TestLabelThatDecidesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.make(namespace("web", map[string]string{OverrideLabel: "False"}))
		r.start()
		r.pass(time.Hour)
		told := 0
		for _, o := range r.take() {
			if o.Object == "Namespace" {
				told++
				if o.Name != "web" || !strings.Contains(o.Err.Error(), `ca.istio.io/override is "False"`) {
					t.Errorf("told %+v", o)
				}
			}
		}
		if told != 1 {
			t.Errorf("told %d times", told)
		}
	})
}
