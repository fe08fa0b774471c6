package kube

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"citadel/ca"
	"citadel/ca/authn"
)

var domain = spiffeid.RequireTrustDomainFromString("cluster.local")

// podOf is one of a service account, on a node.
func podOf(account, name, node string, phase corev1.PodPhase) *corev1.Pod {
	namespace, account, _ := strings.Cut(account, "/")
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-of-" + name)},
		Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: account}, Status: corev1.PodStatus{Phase: phase}}
}

// proxyOn is the identity of pod proxy-1, as its token says it.
func proxyOn(edit func(*authn.Pod)) authn.Identity {
	p := authn.Pod{Namespace: "system", Name: "proxy-1", UID: "uid-of-proxy-1", ServiceAccount: "proxy"}
	if edit != nil {
		edit(&p)
	}
	return authn.Identity{Caller: ca.NewCaller(spiffeid.RequireFromString("spiffe://cluster.local/ns/system/sa/proxy"), "test", ""), Pod: p}
}

// running has Nodes run in a synctest bubble, until the test ends.
func running(t *testing.T, client *fake.Clientset) *Nodes {
	t.Helper()
	n, err := NewNodes(client, domain, []string{"system/proxy"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { n.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	synctest.Wait()
	return n
}

func identity(path string) spiffeid.ID {
	return spiffeid.RequireFromString("spiffe://cluster.local" + path)
}

func TestMayImpersonate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset(
			podOf("system/proxy", "proxy-1", "n1", corev1.PodRunning),
			podOf("system/proxy", "proxy-2", "n2", corev1.PodRunning),
			podOf("system/proxy", "proxy-new", "", corev1.PodPending),
			podOf("system/proxy", "proxy-ended", "n1", corev1.PodFailed),
			podOf("system/other", "other", "n1", corev1.PodRunning),
			podOf("shop/web", "web-0", "n1", corev1.PodRunning),
			podOf("shop/starting", "starting-0", "n1", corev1.PodPending),
			podOf("shop/away", "away-0", "n2", corev1.PodRunning),
			podOf("shop/failed", "failed-0", "n1", corev1.PodFailed),
			podOf("shop/done", "done-0", "n1", corev1.PodSucceeded),
			podOf("shop/waiting", "waiting-0", "", corev1.PodPending),
		)
		n := running(t, client)
		web := identity("/ns/shop/sa/web")
		for name, c := range map[string]struct {
			caller authn.Identity
			wanted spiffeid.ID
			err    string
		}{
			"on its node":           {proxyOn(nil), web, ""},
			"of a pod that starts":  {proxyOn(nil), identity("/ns/shop/sa/starting"), ""},
			"on another node":       {proxyOn(nil), identity("/ns/shop/sa/away"), "no pod of service account shop/away runs on node n1, where pod system/proxy-1 does"},
			"a failed pod's":        {proxyOn(nil), identity("/ns/shop/sa/failed"), "no pod of service account shop/failed runs on node n1"},
			"an ended pod's":        {proxyOn(nil), identity("/ns/shop/sa/done"), "no pod of service account shop/done runs on node n1"},
			"one on no node":        {proxyOn(nil), identity("/ns/shop/sa/waiting"), "no pod of service account shop/waiting runs on node n1"},
			"one that is nowhere":   {proxyOn(nil), identity("/ns/bank/sa/web"), "no pod of service account bank/web runs on node n1"},
			"of another domain":     {proxyOn(nil), spiffeid.RequireFromString("spiffe://elsewhere/ns/shop/sa/web"), "is no service account of trust domain cluster.local"},
			"of another form":       {proxyOn(nil), identity("/shop/web"), "is no service account of trust domain"},
			"of almost the form":    {proxyOn(nil), identity("/ns/shop/sb/web"), "is no service account of trust domain"},
			"of a longer form":      {proxyOn(nil), identity("/ns/shop/sa/web/x"), "is no service account of trust domain"},
			"nothing":               {proxyOn(nil), spiffeid.ID{}, "is no service account of trust domain"},
			"by nobody":             {authn.Identity{}, web, "is not trusted to ask for others, or has no token that is bound to a pod"},
			"by another account":    {proxyOn(func(p *authn.Pod) { p.Name, p.UID, p.ServiceAccount = "other", "uid-of-other", "other" }), web, "is not trusted to ask for others"},
			"by another namespace":  {proxyOn(func(p *authn.Pod) { p.Namespace = "shop" }), web, "is not trusted to ask for others"},
			"by a pod made anew":    {proxyOn(func(p *authn.Pod) { p.UID = "uid-of-its-forerunner" }), web, "pod system/proxy-1 does not exist with the UID and service account of the token"},
			"by a pod that is gone": {proxyOn(func(p *authn.Pod) { p.Name = "proxy-9" }), web, "pod system/proxy-9 does not exist with the UID"},
			"by a pod of another":   {proxyOn(func(p *authn.Pod) { p.Name, p.UID = "other", "uid-of-other" }), web, "pod system/other does not exist with the UID and service account"},
			"by a pod on no node":   {proxyOn(func(p *authn.Pod) { p.Name, p.UID = "proxy-new", "uid-of-proxy-new" }), web, "pod system/proxy-new does not run on a node"},
			"by a pod that ended":   {proxyOn(func(p *authn.Pod) { p.Name, p.UID = "proxy-ended", "uid-of-proxy-ended" }), web, "pod system/proxy-ended does not run on a node"},
		} {
			err := n.MayImpersonate(t.Context(), c.caller, c.wanted)
			if c.err == "" {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if e, ok := errors.AsType[*ca.Error](err); !ok || e.Class != ca.Denied || !strings.Contains(e.Reason, c.err) {
				t.Errorf("%s: %v, want %q", name, err, c.err)
			}
		}

		pods := client.CoreV1().Pods("shop")
		if err := pods.Delete(t.Context(), "web-0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := n.MayImpersonate(t.Context(), proxyOn(nil), web); err == nil {
			t.Error("the last pod of the service account is gone, and it may be asked for")
		}
		if _, err := pods.Create(t.Context(), podOf("shop/web", "web-1", "n1", corev1.PodRunning), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := n.MayImpersonate(t.Context(), proxyOn(nil), web); err != nil {
			t.Errorf("a pod has come: %v", err)
		}
		if _, err := pods.UpdateStatus(t.Context(), podOf("shop/web", "web-1", "n1", corev1.PodSucceeded), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := n.MayImpersonate(t.Context(), proxyOn(nil), web); err == nil {
			t.Error("the last pod of the service account has ended, and it may be asked for")
		}
	})
}

// TestPodsNotYetKnown: nothing is allowed, and nothing denied for good
// (specifications, negative test 14).
func TestPodsNotYetKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset(podOf("system/proxy", "proxy-1", "n1", corev1.PodRunning))
		var down error
		var mu sync.Mutex
		client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, kuberuntime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			return down != nil, nil, down
		})
		down = errors.New("pods is forbidden")
		early, err := NewNodes(client, domain, []string{"system/proxy"})
		if err != nil {
			t.Fatal(err)
		}
		for text, n := range map[string]*Nodes{
			"the cluster's pods have not been read yet":                    early,
			"could not be read: failed to list *v1.Pod: pods is forbidden": running(t, client),
		} {
			err := n.MayImpersonate(t.Context(), proxyOn(nil), identity("/ns/system/sa/proxy"))
			if u, ok := errors.AsType[*authn.Unavailable](err); !ok || !strings.Contains(u.Error(), text) {
				t.Errorf("%v, want %q", err, text)
			}
			err = n.MayImpersonate(t.Context(), authn.Identity{}, identity("/ns/system/sa/proxy"))
			if _, ok := errors.AsType[*ca.Error](err); !ok {
				t.Errorf("somebody not trusted: %v", err)
			}
		}
	})
}

func TestTrustedNodeAccounts(t *testing.T) {
	for list, text := range map[string]string{
		"istio-system/ztunnel":   "<nil>",
		"a/b c/d":                "<nil>",
		"":                       "there are no trusted node accounts",
		"ztunnel":                `trusted node account "ztunnel" is not of the form NAMESPACE/SERVICEACCOUNT`,
		"/ztunnel":               `trusted node account "/ztunnel"`,
		"istio-system/":          `trusted node account "istio-system/"`,
		"istio-system/*":         `trusted node account "istio-system/*"`,
		"istio-system/ztunnel/x": `trusted node account "istio-system/ztunnel/x"`,
	} {
		if _, err := NewNodes(fake.NewSimpleClientset(), domain, strings.Fields(list)); !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%q: %v", list, err)
		}
	}
}

// TestPodsInMemory: what is kept of a pod, of whatever size.
func TestPodsInMemory(t *testing.T) {
	const count = 20000
	store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{byNode: nodeOf})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range count {
		p := podOf("a-team/"+fmt.Sprint("service-", i%500), fmt.Sprintf("service-%d-7d4b9c6f5d-%05d", i%500, i), fmt.Sprint("node-", i/100), corev1.PodRunning)
		p.UID = types.UID(fmt.Sprintf("%036d", i))
		p.Annotations = map[string]string{"long": strings.Repeat("x", 4096)}
		kept, err := stripPod(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Add(kept); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / count
	t.Logf("%d bytes a pod", each)
	if each > 1024 {
		t.Errorf("%d bytes a pod", each)
	}
	runtime.KeepAlive(store)
}
