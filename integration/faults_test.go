package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/integration/proxy"
)

// trouble injects faults by chance, from a seed that the test prints.
type trouble struct {
	kinds   faultKind // those before it come up
	mu      sync.Mutex
	dice    *rand.Rand // guarded by mu
	count   [faultKinds]atomic.Int64
	watches atomic.Int64
}

type faultKind int

const (
	conflict     faultKind = iota // 409 on an update that was never made
	tooMany                       // 429 with Retry-After
	broken                        // 500
	lostAnswer                    // 500 after it was done
	cutOff                        // the connection ends after it was done
	slow                          // the answer takes its time
	cutWatch                      // a watch ends early
	tooOld                        // a watch begins with 410 Expired
	refusedWatch                  // the watch itself is answered with 410
	faultKinds
)

func newTrouble(t *testing.T, kinds faultKind) *trouble {
	const seed = 20260601
	t.Logf("seed %d", seed)
	return &trouble{kinds: kinds, dice: rand.New(rand.NewPCG(seed, 0))}
}

// draws are one throw: which of the kinds, each with its chance in percent.
func (f *trouble) draws(chances map[faultKind]int) faultKind {
	f.mu.Lock()
	throw := f.dice.IntN(100)
	f.mu.Unlock()
	for kind := range faultKinds {
		if throw -= chances[kind]; throw < 0 && chances[kind] > 0 {
			f.count[kind].Add(1)
			return kind
		}
	}
	return faultKinds
}

func (f *trouble) between(low, high time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return low + time.Duration(f.dice.Int64N(int64(high-low)))
}

// answer is a fault for everything but the lease: losing that is another test.
func (f *trouble) answer(w http.ResponseWriter, r *http.Request, next http.Handler) {
	switch {
	case strings.Contains(r.URL.Path, "/leases"):
		next.ServeHTTP(w, r)
	case proxy.IsWatch(r) && f.kinds > cutWatch:
		f.watch(w, r, next)
	case proxy.IsWatch(r):
		next.ServeHTTP(w, r)
	case r.Method == http.MethodGet:
		f.read(w, r, next)
	default:
		f.write(w, r, next)
	}
}

func (f *trouble) read(w http.ResponseWriter, r *http.Request, next http.Handler) {
	switch f.draws(map[faultKind]int{tooMany: 5, broken: 10, slow: 10}) {
	case tooMany:
		proxy.Answer(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, 1)
	case broken:
		proxy.Answer(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, 0)
	case slow:
		f.delay(r.Context())
		next.ServeHTTP(w, r)
	default:
		next.ServeHTTP(w, r)
	}
}

func (f *trouble) write(w http.ResponseWriter, r *http.Request, next http.Handler) {
	switch f.draws(map[faultKind]int{conflict: 10, tooMany: 5, broken: 10, lostAnswer: 10, cutOff: 10, slow: 15}) {
	case conflict:
		proxy.Answer(w, http.StatusConflict, metav1.StatusReasonConflict, 0)
	case tooMany:
		proxy.Answer(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, 1)
	case broken:
		proxy.Answer(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, 0)
	case lostAnswer:
		next.ServeHTTP(httptest.NewRecorder(), r)
		proxy.Answer(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, 0)
	case cutOff:
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case slow:
		f.delay(r.Context())
		next.ServeHTTP(w, r)
	default:
		next.ServeHTTP(w, r)
	}
}

func (f *trouble) watch(w http.ResponseWriter, r *http.Request, next http.Handler) {
	// In turn: there are too few of them for chance.
	turns := []faultKind{cutWatch, tooOld, cutWatch, refusedWatch, cutWatch}
	kind := turns[int(f.watches.Add(1))%len(turns)]
	f.count[kind].Add(1)
	switch kind {
	case cutWatch:
		ctx, cancel := context.WithTimeout(r.Context(), f.between(100*time.Millisecond, 3*time.Second))
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	case tooOld:
		proxy.TooOld(w)
	case refusedWatch:
		proxy.Answer(w, http.StatusGone, metav1.StatusReasonExpired, 0)
	}
}

func (f *trouble) delay(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(f.between(50*time.Millisecond, time.Second)):
	}
}

func TestFaultsOfTheAPIServerLoseNothingAndRepeatNothing(t *testing.T) {
	t.Parallel()
	for name, kinds := range map[string]faultKind{
		"of requests":             cutWatch, // what is dropped, no new list brings back
		"of requests and watches": faultKinds,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sufferFaults(t, newTrouble(t, kinds))
		})
	}
}

func sufferFaults(t *testing.T, faults *trouble) {
	t.Helper()
	const count = 100
	s := newSite(t)
	ns := s.namespace(t)
	middle := newProxy(t)
	middle.Break(faults.answer)
	middle.Server.StartTLS()
	p := s.launch(t, launch{account: s.account.via(t, middle)})
	var accounts []*corev1.ServiceAccount
	for wave := range 4 { // while watches come and go
		accounts = append(accounts, makeAccounts(t, ns, fmt.Sprintf("wave-%d", wave), count/4)...)
		stays(t, time.Second, func() error { return nil })
	}
	allRight(t, accounts, s.roots(t))
	within(t, patience, func() error { return rootsIn(t, ns, s.roots(t)) })
	victim := accounts[0]
	deleteSecret(t, must(getSecret(t.Context(), ns, victim.Name))(t)) // it is still watching
	right(t, victim, s.roots(t))
	middle.Break(nil)
	right(t, makeAccount(t, ns, "last"), s.roots(t))
	stays(t, 3*time.Second, func() error { return nil }) // whatever it has still in mind
	checkWrittenOnce(t, accounts[1:], p)
	if got := verbs(writes(t, p.since, p.user, "configmaps", ns, "istio-ca-root-cert")); fmt.Sprint(got) != "[create]" {
		t.Errorf("the roots were written by %v, want one create", got)
	}
	for kind := range faults.kinds {
		n := faults.count[kind].Load()
		t.Logf("fault %d: %d times", kind, n)
		if n == 0 {
			t.Errorf("fault %d never came up", kind)
		}
	}
}

// What happens while no watch gets through comes with the next list, deletions
// among it, of which there is nothing left to list.
func TestChangesWhileTheWatchesAreDownAreNotMissed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns, later := s.namespace(t), makeNamespace(t, map[string]string{"ca.istio.io/env": "nobody"})
	middle := newProxy(t)
	middle.Server.StartTLS()
	p := s.launch(t, launch{account: s.account.via(t, middle)})
	p.ready(t)
	roots := s.roots(t)
	robbed, gone, waiting := makeAccount(t, ns, "robbed"), makeAccount(t, ns, "gone"), makeAccount(t, later, "sleep")
	right(t, robbed, roots)
	unowned := right(t, gone, roots).DeepCopy() // garbage collection does not know of it
	unowned.OwnerReferences, unowned.Labels = nil, nil
	must(plane.Client.CoreV1().Secrets(ns).Update(t.Context(), unowned, metav1.UpdateOptions{}))(t)
	within(t, patience, func() error { _, err := getSecret(t.Context(), ns, "default"); return err }) // or it is on its way

	middle.Break(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && !strings.Contains(r.URL.Path, "/leases") {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
	middle.Server.CloseClientConnections()
	since := now(t)
	deleteAccount(t, gone)
	deleteSecret(t, must(getSecret(t.Context(), ns, "robbed"))(t))
	setLabels(t, later, s.label())
	added := makeAccount(t, ns, "added")
	editConfigMap(t, ns, "istio-ca-root-cert", func(m *corev1.ConfigMap) { m.Data = nil })
	stays(t, 2*time.Second, func() error {
		if got := writes(t, since, p.user, "secrets", "", ""); len(got) > 0 {
			return fmt.Errorf("the test does not keep citadel from seeing: %v", got)
		}
		return nil
	})
	middle.Break(nil)
	right(t, robbed, roots)
	right(t, added, roots)
	right(t, waiting, roots)
	within(t, patience, func() error { return noSecret(t, gone) })
	within(t, patience, func() error { return rootsIn(t, ns, roots) })
}

// Not parallel: the API server is everybody's.
func TestAPIServerAndStoreMayComeAndGo(t *testing.T) {
	const count = 300
	s := newSite(t)
	ns := s.namespace(t)
	p := s.launch(t, launch{denied: true}) // an API server that has just started knows of no rights yet
	p.ready(t)
	roots := s.roots(t)
	accounts := makeAccounts(t, ns, "before", count)
	outage(t, "kube-apiserver", "--kill")
	accounts = append(accounts, makeAccounts(t, ns, "between", count)...)
	outage(t, "etcd")
	allRight(t, accounts[:count], roots)
	allRight(t, accounts, roots)
	p.ready(t)
	right(t, makeAccount(t, ns, "last"), roots)
	checkWrittenOnce(t, accounts, p)
}

// outage takes a component away in the midst of the work and brings it back.
func outage(t *testing.T, component string, how ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := plane.Component(ctx, "stop", component, how...); err != nil {
		t.Fatal(err)
	}
	if err := plane.Component(ctx, "start", component); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		_, err := plane.Client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}
