package secretcontroller

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestMain drops what client-go's informers say of the faults made here.
func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	// The global brake on errors remembers the time of the last one, which in the
	// next bubble of synctest lies in the future: it would hold informers up.
	utilruntime.ErrorHandlers = nil
	apiwatch.DefaultChanSize = 10_000 // a fake watch panics when its reader is further behind
	m.Run()
}

// rig is a controller with a fake API server, inside a synctest bubble: time
// passes only where a test lets it, and a goroutine that outlives the
// controller makes the test panic.
type rig struct {
	t      *testing.T
	api    *api
	people *fake.Clientset // edits by others, past every fault
	ours   *fake.Clientset // the controller's
	c      *Controller
	events *events.FakeRecorder

	mu    sync.Mutex
	seen  []Observation                    // guarded by mu
	fault func(clienttesting.Action) error // guarded by mu
}

// bubble runs a test with a rig whose API server holds namespaces default and
// istio-system and the objects.
func bubble(t *testing.T, test func(*testing.T, *rig), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, api: newAPI(), events: events.NewFakeRecorder(1000)}
		r.people = r.api.client()
		r.hide()
		r.make(namespace("default", nil), namespace("istio-system", nil))
		r.make(objects...)
		test(t, r)
	})
}

// hide gives the controller to come a client in whose lists and watches objects
// of these names never are.
func (r *rig) hide(names ...string) {
	r.ours = r.api.client(names...)
	r.ours.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		err := r.interfere(action)
		return err != nil, nil, err
	})
	r.ours.PrependWatchReactor("*", func(action clienttesting.Action) (bool, apiwatch.Interface, error) {
		err := r.interfere(action)
		return err != nil, nil, err
	})
}

// interfere stands between the controller and the API server.
func (r *rig) interfere(action clienttesting.Action) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault == nil {
		return nil
	}
	return r.fault(action)
}

func (r *rig) setFault(f func(clienttesting.Action) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// failing returns a fault: the first n calls of that verb on that resource end
// in err, or all of them if n is negative.
func failing(verb, resource string, n int, err error) func(clienttesting.Action) error {
	return func(a clienttesting.Action) error {
		if !a.Matches(verb, resource) || n == 0 {
			return nil
		}
		n--
		return err
	}
}

func namespace(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func serviceAccount(namespace, name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func (r *rig) make(objects ...runtime.Object) {
	r.t.Helper()
	for _, obj := range objects {
		var err error
		switch o := obj.(type) {
		case *corev1.Namespace:
			_, err = r.people.CoreV1().Namespaces().Create(r.t.Context(), o, metav1.CreateOptions{})
		case *corev1.ServiceAccount:
			_, err = r.people.CoreV1().ServiceAccounts(o.Namespace).Create(r.t.Context(), o, metav1.CreateOptions{})
		case *corev1.Secret:
			_, err = r.people.CoreV1().Secrets(o.Namespace).Create(r.t.Context(), o, metav1.CreateOptions{})
		case *corev1.ConfigMap:
			_, err = r.people.CoreV1().ConfigMaps(o.Namespace).Create(r.t.Context(), o, metav1.CreateOptions{})
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// settings are those of a controller on the rig's API server: certificates of
// an hour, due at half of it, one worker more than one.
func (r *rig) settings() Settings {
	return Settings{
		Client: r.ours, Authority: catest.Authority(r.t, time.Now(), ca.Config{}), RootsSince: time.Now().Add(-24 * time.Hour),
		Scope:    Scope{StorageNamespace: "istio-system", EnabledByDefault: true},
		Rotation: Rotation{GraceRatio: 0.5, MinGrace: 10 * time.Minute}, TTL: time.Hour, KeyType: trust.ECDSAP256, Workers: 2,
		Recorder: r.events, Observe: r.observe,
	}
}

func (r *rig) observe(o Observation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, o)
}

// start makes the controller, watches and leads until stop is called, or the
// test ends.
func (r *rig) start(edits ...func(*Settings)) (stop func()) {
	r.t.Helper()
	s := r.settings()
	for _, edit := range edits {
		edit(&s)
	}
	return r.run(s, nil)
}

func (r *rig) run(s Settings, guard Guard) (stop func()) {
	r.t.Helper()
	var err error
	if r.c, err = New(s); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	c := r.c
	running.Go(func() { c.Watch(ctx) })
	running.Go(func() {
		if err := c.Lead(ctx, guard); err != nil {
			r.t.Errorf("leading ended with %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		r.pass(time.Second) // a queue's own goroutines look for its end twice a second
	})
	r.t.Cleanup(stop)
	r.pass(time.Second)
	return stop
}

// pass lets time pass, and what is due be done.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// take returns what was observed since the last call.
func (r *rig) take() []Observation {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

// expect insists on exactly one observation of a Secret since the last take,
// and returns it.
func (r *rig) expect(action Action, reason Reason) Observation {
	r.t.Helper()
	return r.expectUpTo(1, action, reason)
}

// expectUpTo is for the start: there a key may come to its turn twice, once for
// the first list and once for the event that tells of the same. That a quarrel
// is told does not count.
func (r *rig) expectUpTo(most int, action Action, reason Reason) Observation {
	r.t.Helper()
	var found []Observation
	for _, o := range r.take() {
		if o.Object == "Secret" && o.Action != Paused {
			found = append(found, o)
		}
	}
	if len(found) < 1 || len(found) > most {
		r.t.Errorf("observed %+v, want one", found)
		return Observation{}
	}
	for _, o := range found {
		if o.Action != action || o.Reason != reason {
			r.t.Errorf("observed %+v, want one that was %s because of %q", o, action, reason)
		}
	}
	return found[0]
}

// quiet insists that no Secret was touched since the last take.
func (r *rig) quiet() {
	r.t.Helper()
	for _, o := range r.take() {
		if o.Object == "Secret" {
			r.t.Errorf("observed %+v, want nothing", o)
		}
	}
}

// calls counts the controller's calls of that verb on that resource.
func (r *rig) calls(verb, resource string) int {
	n := 0
	for _, a := range r.ours.Actions() {
		if a.Matches(verb, resource) {
			n++
		}
	}
	return n
}

// writes counts what the controller tried to change.
func (r *rig) writes() int {
	n := 0
	for _, verb := range []string{"create", "update", "patch", "delete", "deletecollection"} {
		for _, resource := range []string{"secrets", "configmaps", "serviceaccounts", "namespaces"} {
			n += r.calls(verb, resource)
		}
	}
	return n
}

func (r *rig) secret(namespace, name string) *corev1.Secret {
	r.t.Helper()
	s, err := r.people.CoreV1().Secrets(namespace).Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) update(s *corev1.Secret) {
	r.t.Helper()
	if _, err := r.people.CoreV1().Secrets(s.Namespace).Update(r.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(namespace, secret string) {
	r.t.Helper()
	if err := r.people.CoreV1().Secrets(namespace).Delete(r.t.Context(), secret, metav1.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// verdict judges the Secret of a service account as it stands in the store.
func (r *rig) verdict(namespace, name string) Verdict {
	r.t.Helper()
	sa, err := r.people.CoreV1().ServiceAccounts(namespace).Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	want, err := r.c.want(Account{Namespace: namespace, Name: name, UID: sa.UID})
	if err != nil {
		r.t.Fatal(err)
	}
	return Judge(time.Now(), r.secret(namespace, SecretName(name)), want)
}

// right insists that the Secret of a service account is as it must be.
func (r *rig) right(namespace, name string) {
	r.t.Helper()
	if v := r.verdict(namespace, name); v.Reason != Right {
		r.t.Errorf("Secret of %s/%s: %q: %s", namespace, name, v.Reason, v.Detail)
	}
}

// event returns the one Event since the last call, or "".
func (r *rig) event() string {
	select {
	case e := <-r.events.Events:
		return e
	default:
		return ""
	}
}

// untouched insists that the cache holds what it held (K-2).
func (r *rig) untouched(during func()) {
	r.t.Helper()
	type pair struct{ is, was any }
	var held []pair
	for _, informer := range r.c.watch.informers() {
		for _, obj := range informer.GetIndexer().List() {
			held = append(held, pair{obj, obj.(runtime.Object).DeepCopyObject()})
		}
	}
	during()
	for _, p := range held {
		if !reflect.DeepEqual(p.is, p.was) {
			r.t.Errorf("an object of the cache was changed: %T", p.is)
		}
	}
}
