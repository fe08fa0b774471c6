package pods

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/integration/cluster"
	"citadel/integration/proxy"
)

// spell is how long the API server answers wrongly.
const spell = 20 * time.Second

// wrongAnswers are the faults of what Citadel alone gets for an answer.
func wrongAnswers(p *proxy.Proxy) []fault {
	const (
		late = 2 * time.Second
		// client-go waits up to 30 s before it asks for a watch again, and by chance up
		// to as long again. What was written when a cache went deaf cannot be written
		// once more, for it conflicts, until the cache hears.
		deaf      = spell + time.Minute
		conflicts = deaf - (ttl - grace)
	)
	none := unreached(spell) // got through by chance, of what matters
	// First what the waits for watches, which grow from one to the next, cost most.
	return []fault{
		{"every third request answered by 500 for 20 s", stops(none, gets(p, everyThird(anyRequest, broken())))},
		{"every third request answered by 429, Retry-After 1 s, for 20 s", stops(none, gets(p, everyThird(anyRequest, tooMany)))},
		{"watches cut, and answered by 410 too old, for 20 s", stops(conflicts, getsWithoutWatches(p, tooOld()))},
		{"every answer 2 s late for 20 s", stops(late, gets(p, delayed(late)))},
		{"every third write answered by 409 for 20 s", stops(none, gets(p, everyThird(isWrite, conflict)))},
		{"watches cut every 2 s for 20 s", stops(conflicts, getsWithoutWatches(p, nil))},
	}
}

// wrong answers a request wrongly, or returns false: then it has done nothing.
type wrong func(w http.ResponseWriter, r *http.Request, next http.Handler) bool

func anyRequest(*http.Request) bool { return true }

func isWrite(r *http.Request) bool { return r.Method != http.MethodGet }

func everyThird(meant func(*http.Request) bool, f wrong) wrong {
	var seen atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		return meant(r) && seen.Add(1)%3 == 0 && f(w, r, next)
	}
}

func delayed(d time.Duration) wrong {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		select {
		case <-r.Context().Done():
		case <-time.After(d):
		}
		next.ServeHTTP(w, r)
		return true
	}
}

func conflict(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
	proxy.Answer(w, http.StatusConflict, metav1.StatusReasonConflict, 0)
	return true
}

func tooMany(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
	proxy.Answer(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, 1)
	return true
}

// broken does every other request all the same.
func broken() wrong {
	var seen atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if seen.Add(1)%2 == 0 && !proxy.IsWatch(r) {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		proxy.Answer(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, 0)
		return true
	}
}

// tooOld lets no watch go on from where it was, only begin anew. It says so in both
// ways in turn: by the answer, and by the first event.
func tooOld() wrong {
	var seen atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		switch from := r.URL.Query().Get("resourceVersion"); {
		case !proxy.IsWatch(r) || from == "" || from == "0":
			return false
		case seen.Add(1)%2 == 0:
			proxy.Answer(w, http.StatusGone, metav1.StatusReasonExpired, 0)
		default:
			proxy.TooOld(w)
		}
		return true
	}
}

// gets has the proxy answer so for a spell, also when watches are asked for again.
func gets(p *proxy.Proxy, f wrong) func(*testing.T) {
	return func(t *testing.T) { suffer(t, p, f, sync.OnceFunc(func() { p.CutWatches() })) }
}

// getsWithoutWatches cuts every watch every 2 s, too.
func getsWithoutWatches(p *proxy.Proxy, f wrong) func(*testing.T) {
	return func(t *testing.T) {
		cut := 0
		suffer(t, p, f, func() { cut += p.CutWatches() })
		t.Logf("%d watches were cut", cut)
		if cut == 0 {
			t.Error("there were no watches to cut")
		}
	}
}

// suffer has the proxy answer so for a spell, does something every 2 s of it, and
// makes a service account in its midst, which gets its Secret when it can, and
// loses it with its end.
func suffer(t *testing.T, p *proxy.Proxy, f wrong, do func()) {
	t.Helper()
	var count atomic.Int64
	p.Break(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if f != nil && f(w, r, next) {
			count.Add(1)
		} else {
			next.ServeHTTP(w, r)
		}
	})
	defer p.Break(nil)
	name := fmt.Sprintf("arrival-%d", time.Now().Unix()) // another each time: its writes are counted
	const step = 2 * time.Second
	for passed := time.Duration(0); passed < spell; passed += step {
		if passed == spell/2 {
			if err := makeAccount(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		do()
		idle(t, step)
	}
	p.Break(nil)
	end := time.Now()
	awaitRight(t, mesh, name, "")
	t.Logf("%d answers were wrong; %s after the last the new service account had its Secret", count.Load(), time.Since(end).Round(100*time.Millisecond))
	if f != nil && count.Load() == 0 {
		t.Error("the fault never came up")
	}
	if err := plane.Client.CoreV1().ServiceAccounts(mesh).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		_, err := plane.Client.CoreV1().Secrets(mesh).Get(t.Context(), "istio."+name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("Secret istio.%s outlives its service account: %w", name, err)
	})
}

// behindProxy has Citadel reach the API server through a proxy until the function
// that it returns is called. Only these faults need that: with a proxy between,
// the end of an API server looks otherwise.
func behindProxy(t *testing.T) (*proxy.Proxy, func()) {
	t.Helper()
	slice := must(plane.Client.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}))(t)
	host := slice.Endpoints[0].Addresses[0] // where pods reach this machine
	p := must(proxy.New(plane.Kubeconfig, host))(t)
	t.Cleanup(p.Close)
	p.Server.TLS = &tls.Config{Certificates: []tls.Certificate{serverCertificate(t, host)}}
	p.Server.StartTLS()
	_, port, err := net.SplitHostPort(p.Server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	setEnvironment(t, "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port)
	return p, func() { setEnvironment(t, "KUBERNETES_SERVICE_HOST-", "KUBERNETES_SERVICE_PORT-") }
}

// setEnvironment changes what comes before the kubelet's own variables.
func setEnvironment(t *testing.T, changes ...string) {
	t.Helper()
	deployment := "deployment/" + citadelName
	kubectl(t, append([]string{"-n", cluster.StorageNamespace, "set", "env", deployment}, changes...)...)
	kubectl(t, "-n", cluster.StorageNamespace, "rollout", "status", deployment, "--timeout=3m")
	within(t, patience, func() error { return available(t.Context()) })
}

// serverCertificate is one for an address by the cluster's CA, which is the one
// that pods trust.
func serverCertificate(t *testing.T, address string) tls.Certificate {
	t.Helper()
	pki := filepath.Join(plane.Dir, "pki")
	ca := must(tls.LoadX509KeyPair(filepath.Join(pki, "ca.crt"), filepath.Join(pki, "ca.key")))(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	der := must(x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey))(t)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
