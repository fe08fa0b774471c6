package integration

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/integration/proxy"
)

// gate lets answers to the question for the CA secret pass when count of them
// are there: then that many processes are about to make one.
func gate(count int) proxy.Fault {
	var group sync.WaitGroup
	var mu sync.Mutex
	asked := 0 // guarded by mu
	group.Add(count)
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/secrets/istio-ca-secret") {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		mu.Lock()
		asked++
		first := asked <= count
		mu.Unlock()
		if first {
			group.Done()
			group.Wait()
		}
		copyAnswer(w, answer)
	}
}

func copyAnswer(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the client is gone: nobody to tell
}

func TestReplicasThatStartAtOnceEndWithOneRoot(t *testing.T) {
	t.Parallel()
	const replicas, rounds = 5, 20
	s := newSite(t)
	var accounts []*corev1.ServiceAccount
	for range replicas {
		accounts = append(accounts, makeAccount(t, makeNamespace(t, map[string]string{"ca.istio.io/env": "nobody"}), "sleep"))
	}
	middle := newProxy(t)
	middle.Server.StartTLS()
	proxied := s.account.via(t, middle)
	var before *x509.Certificate
	for round := range rounds {
		ok := t.Run(fmt.Sprint(round), func(t *testing.T) {
			s.forget(t)
			middle.Break(gate(replicas))
			since := now(t)
			for _, sa := range accounts {
				s.launch(t, launch{account: proxied, binary: plain}, "--leader-elect=false", "--root-change-window", "0", "--listened-namespaces", sa.Namespace)
			}
			roots := s.roots(t)
			for _, sa := range accounts {
				right(t, sa, roots)
			}
			made := writes(t, since, s.user, "secrets", s.storage, "istio-ca-secret")
			if len(made) != replicas || fmt.Sprint(verbs(made)) != "[create]" {
				t.Errorf("%d replicas wrote the CA secret so: %v; want one create and %d that came too late", replicas, made, replicas-1)
			}
			if len(roots) != 1 || roots[0].Equal(before) {
				t.Errorf("the CA secret holds %d roots, or that of the round before", len(roots))
			}
			before = roots[0]
		})
		if !ok {
			return // the rounds after it would each wait for as long
		}
	}
}

// forget makes the site one that never had a root. Nobody may be running.
func (s *site) forget(t *testing.T) {
	t.Helper()
	core := plane.Client.CoreV1()
	for _, err := range []error{
		core.Secrets(s.storage).Delete(t.Context(), "istio-ca-secret", metav1.DeleteOptions{}),
		core.ConfigMaps(s.storage).Delete(t.Context(), "istio-security", metav1.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
}

// caSecret is one with the pieces of a root.
func caSecret(namespace string, root *catest.Issuer, key []byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "istio-ca-secret"}, Type: "istio.io/ca-root",
		Data: map[string][]byte{"ca-cert.pem": root.PEM(), "ca-key.pem": key}}
}

func legacyKey(t *testing.T, root *catest.Issuer) []byte {
	t.Helper()
	return must(trust.MarshalLegacyKey(root.Key))(t)
}

func TestExistingRootsOfEveryAgeLoad(t *testing.T) {
	t.Parallel()
	hourAgo := time.Now().Add(-time.Hour)
	citadel08 := catest.Root(t, hourAgo, catest.Spec{Name: "0.8", KeyType: trust.RSA2048, Edit: func(c *x509.Certificate) {
		c.Subject, c.NotAfter, c.KeyUsage = pkix.Name{Organization: []string{"k8s.cluster.local"}}, hourAgo.Add(365*24*time.Hour), x509.KeyUsageCertSign
	}})
	curve := catest.Root(t, hourAgo, catest.Spec{Name: "P-384", KeyType: trust.ECDSAP384})
	istiod := caSecret("", curve, catest.KeyPEM(t, curve.Key))
	istiod.Data["root-cert.pem"], istiod.Data["cert-chain.pem"], istiod.Data["key.pem"] = curve.PEM(), nil, nil
	commented := caSecret("", curve, legacyKey(t, curve))
	commented.Data["ca-cert.pem"] = append([]byte("# our root\n"), commented.Data["ca-cert.pem"]...)
	for name, secret := range map[string]*corev1.Secret{
		"Citadel 0.8":             caSecret("", citadel08, legacyKey(t, citadel08)),
		"Citadel 1.4":             caSecret14(t, catest.Citadel14Root(t, hourAgo, trustDomain), ""),
		"Citadel 1.4 with PKCS#8": caSecret("", citadel08, catest.KeyPEM(t, citadel08.Key)),
		"istiod":                  istiod,
		"by hand":                 commented,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			sa := makeAccount(t, s.namespace(t), "sleep")
			secret := secret.DeepCopy()
			secret.Namespace = s.storage
			stored := createSecret(t, secret)
			s.start(t)
			right(t, sa, s.roots(t))
			if got := must(plane.Client.CoreV1().Secrets(s.storage).Get(t.Context(), stored.Name, metav1.GetOptions{}))(t); got.ResourceVersion != stored.ResourceVersion {
				t.Error("citadel wrote the CA secret")
			}
		})
	}
}

func TestDamagedRootStopsTheStartAndIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root, other := catest.Root(t, time.Now(), catest.Spec{Name: "root"}), catest.Root(t, time.Now(), catest.Spec{Name: "other"})
	key := catest.KeyPEM(t, root.Key)
	expired := catest.Root(t, time.Now(), catest.Spec{Name: "root", Edit: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }})
	workload := catest.Root(t, time.Now(), catest.Spec{Name: "root", Edit: func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }})
	for _, c := range []struct {
		name, faulty string
		cert, key    []byte
	}{
		{"emptied", "ca-cert.pem", nil, nil},
		{"without certificate", "ca-cert.pem", nil, key},
		{"without key", "ca-key.pem", root.PEM(), nil},
		{"certificate is no PEM", "ca-cert.pem", []byte("hello"), key},
		{"certificate truncated", "ca-cert.pem", root.PEM()[:100], key},
		{"key is no PEM", "ca-key.pem", root.PEM(), []byte("hello")},
		{"key truncated", "ca-key.pem", root.PEM(), key[:100]},
		{"key of another", "ca-key.pem", root.PEM(), catest.KeyPEM(t, other.Key)},
		{"pieces swapped", "ca-cert.pem", key, root.PEM()},
		{"expired", "ca-cert.pem", expired.PEM(), key},
		{"no CA", "ca-cert.pem", workload.PEM(), key},
	} {
		t.Run(c.name, func(t *testing.T) {
			secret := caSecret(s.storage, root, c.key)
			secret.Data["ca-cert.pem"] = c.cert
			stored := createSecret(t, secret)
			defer deleteSecret(t, stored)
			p := s.launch(t, launch{failing: true})
			message := p.fails(t)
			if !strings.Contains(message, "Secret "+s.storage+"/istio-ca-secret key "+c.faulty) {
				t.Errorf("citadel says %q, and does not name the Secret and its key %s", message, c.faulty)
			}
			if got := writes(t, p.since, p.user, "secrets", "", ""); len(got) > 0 {
				t.Errorf("citadel wrote %v", got)
			}
			checkNoKey(t, "the message", message, c.key)
		})
	}
}

// checkNoKey insists that a text holds no line of a PEM key.
func checkNoKey(t *testing.T, what, text string, key []byte) {
	t.Helper()
	for line := range bytes.Lines(key) {
		if line = bytes.TrimSpace(line); len(line) > 16 && !bytes.HasPrefix(line, []byte("-----")) && strings.Contains(text, string(line)) {
			t.Errorf("%s holds key material: %s", what, text)
		}
	}
	if strings.Contains(text, "PRIVATE KEY-----") {
		t.Errorf("%s holds a private key: %s", what, text)
	}
}

func TestWithoutTheRightToStoreARootThereIsNone(t *testing.T) {
	t.Parallel()
	s := &site{storage: makeNamespace(t, nil)}
	s.bareAccount(t, "citadel")
	rules := must(plane.Client.RbacV1().ClusterRoles().Get(t.Context(), deployedName, metav1.GetOptions{}))(t).Rules
	narrow := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: s.storage}}
	for _, rule := range rules {
		rule = *rule.DeepCopy()
		if slices.Contains(rule.Resources, "secrets") {
			rule.Verbs = slices.DeleteFunc(rule.Verbs, func(v string) bool { return v == "create" })
		}
		narrow.Rules = append(narrow.Rules, rule)
	}
	narrow = must(plane.Client.RbacV1().ClusterRoles().Create(t.Context(), narrow, metav1.CreateOptions{}))(t)
	must(plane.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.storage}, Subjects: s.subjects("citadel"), RoleRef: clusterRole(narrow.Name)}, metav1.CreateOptions{}))(t)
	s.bindLease(t, "citadel")
	s.account = s.access(t, "citadel")
	sa := makeAccount(t, s.namespace(t), "sleep")

	p := s.launch(t, launch{denied: true})
	p.says(t, "create Secret "+s.storage+"/istio-ca-secret")
	within(t, patience, func() error { // it tries again
		if got := writes(t, p.since, p.user, "secrets", s.storage, ""); len(got) < 2 {
			return fmt.Errorf("citadel has tried %d times", len(got))
		}
		return nil
	})
	p.answers(t, "/healthz", http.StatusOK)
	p.answers(t, "/readyz", http.StatusServiceUnavailable)
	if err := noSecret(t, sa); err != nil {
		t.Error(err)
	}
	if signed := p.signatures(t); len(signed) > 0 {
		t.Errorf("citadel signed without a stored root: %v", signed)
	}

	narrow.Rules = rules
	must(plane.Client.RbacV1().ClusterRoles().Update(t.Context(), narrow, metav1.UpdateOptions{}))(t)
	p.ready(t)
	right(t, sa, s.roots(t))
}

func TestReadOnlyReplicaWaitsForTheRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.launch(t, launch{}, "--read-signing-cert-only", "--server-only")
	p.says(t, "wait until Secret "+s.storage+"/istio-ca-secret can be loaded")
	p.answers(t, "/readyz", http.StatusServiceUnavailable)
	p.answers(t, "/healthz", http.StatusOK)
	if got := writes(t, p.since, p.user, "", "", ""); len(got) > 0 {
		t.Errorf("a replica that only reads wrote %v", got)
	}
	s.start(t)
	p.ready(t)
	p.says(t, s.roots(t)[0].Subject.String())
}

func TestOperatorsOwnCALoadsInBothLayouts(t *testing.T) {
	t.Parallel()
	ours := catest.Root(t, time.Now(), catest.Spec{Name: "layout root", KeyType: trust.RSA2048})
	issuer := ours.Intermediate(t, time.Now(), catest.Spec{Name: "layout policy"}).Intermediate(t, time.Now(), catest.Spec{Name: "layout issuer"})
	for name, layout := range map[string]func(*testing.T, string, *catest.Issuer) *corev1.Secret{"four names": plugged, "cert-manager": pluggedTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			createSecret(t, layout(t, s.storage, issuer))
			sa := makeAccount(t, s.namespace(t), "sleep")
			s.start(t)
			secret := right(t, sa, []*x509.Certificate{ours.Cert})
			if chain := must(trust.ParseCertificates(secret.Data[chainKey]))(t); len(chain) != 3 || !chain[1].Equal(issuer.Cert) {
				t.Errorf("chain has %d certificates, want leaf, issuer and policy", len(chain))
			}
			checkNoOwnRoot(t, s)
		})
	}
}

func checkNoOwnRoot(t *testing.T, s *site) {
	t.Helper()
	if _, err := plane.Client.CoreV1().Secrets(s.storage).Get(t.Context(), "istio-ca-secret", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("citadel made a root of its own: %v", err)
	}
}

func TestBrokenOperatorsCAStopsTheStartAndMakesNoRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root := catest.Root(t, time.Now(), catest.Spec{Name: "root"})
	policy := root.Intermediate(t, time.Now(), catest.Spec{Name: "policy"})
	issuer := policy.Intermediate(t, time.Now(), catest.Spec{Name: "issuer"})
	other := catest.Root(t, time.Now(), catest.Spec{Name: "other"})
	set := func(key string, value []byte) func(map[string][]byte) {
		return func(data map[string][]byte) { data[key] = value }
	}
	expired := policy.Intermediate(t, time.Now(), catest.Spec{Name: "issuer", Edit: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }})
	for _, c := range []struct {
		name, faulty string
		layout       func(*testing.T, string, *catest.Issuer) *corev1.Secret
		edit         func(map[string][]byte)
	}{
		{"emptied", "ca-cert.pem", plugged, func(data map[string][]byte) { clear(data) }},
		{"no certificate", "ca-cert.pem", plugged, func(data map[string][]byte) { delete(data, "ca-cert.pem") }},
		{"no key", "ca-key.pem", plugged, func(data map[string][]byte) { delete(data, "ca-key.pem") }},
		{"no roots", "root-cert.pem", plugged, func(data map[string][]byte) { delete(data, "root-cert.pem") }},
		{"no chain", "root-cert.pem", plugged, func(data map[string][]byte) { delete(data, "cert-chain.pem") }},
		{"key of another", "ca-key.pem", plugged, set("ca-key.pem", catest.KeyPEM(t, other.Key))},
		{"wrong order", "cert-chain.pem", plugged, set("cert-chain.pem", trust.MarshalCertificates([]*x509.Certificate{issuer.Cert, root.Cert, policy.Cert}))},
		{"root of another", "root-cert.pem", plugged, set("root-cert.pem", other.PEM())},
		{"expired", "ca-cert.pem", plugged, set("ca-cert.pem", expired.PEM())},
		{"garbage", "cert-chain.pem", plugged, set("cert-chain.pem", []byte("hello"))},
		{"cert-manager without key", "tls.key", pluggedTLS, func(data map[string][]byte) { data["tls.key"] = nil }},
		{"cert-manager without roots", "ca.crt", pluggedTLS, func(data map[string][]byte) { delete(data, "ca.crt") }},
		{"cert-manager, root of another", "ca.crt", pluggedTLS, set("ca.crt", other.PEM())},
	} {
		t.Run(c.name, func(t *testing.T) {
			secret := c.layout(t, s.storage, issuer)
			c.edit(secret.Data)
			defer deleteSecret(t, createSecret(t, secret))
			p := s.launch(t, launch{failing: true})
			message := p.fails(t)
			if !strings.Contains(message, "Secret "+s.storage+"/cacerts key "+c.faulty) {
				t.Errorf("citadel says %q, and does not name the Secret and its key %s", message, c.faulty)
			}
			if got := writes(t, p.since, p.user, "", "", ""); len(got) > 0 {
				t.Errorf("citadel wrote %v", got)
			}
			checkNoOwnRoot(t, s)
		})
	}
}

func TestUnreachableAPIServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	middle := newProxy(t)
	middle.Break(proxy.Unreachable)
	middle.Server.StartTLS()
	p := s.launch(t, launch{account: s.account.via(t, middle)})
	p.says(t, "trying again")
	p.answers(t, "/healthz", http.StatusOK)
	if text := p.answers(t, "/readyz", http.StatusServiceUnavailable); !strings.Contains(text, "Istio CA is not ready") {
		t.Errorf("/readyz says %q", text)
	}
	middle.Break(nil)
	p.ready(t)
	right(t, makeAccount(t, s.namespace(t), "sleep"), s.roots(t))
}

// failing answers the first such requests with 500, though some reach the API
// server.
func failing(method, name string, times int64, reach bool) proxy.Fault {
	var seen atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, name) || seen.Add(1) > times {
			next.ServeHTTP(w, r)
			return
		}
		if reach {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		proxy.Answer(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, 0)
	}
}

// A failure to read is no proof of absence, and a failure to write none that
// nothing was written.
func TestFailuresNeverMakeASecondRoot(t *testing.T) {
	t.Parallel()
	own := catest.Root(t, time.Now(), catest.Spec{Name: "an operator's"})
	stored := catest.Root(t, time.Now(), catest.Spec{Name: "a stored"})
	for name, c := range map[string]struct {
		fault    proxy.Fault
		existing func(*testing.T, string) *corev1.Secret // nil: none
		creates  int
	}{
		"cacerts cannot be read": {failing(http.MethodGet, "/secrets/cacerts", 2, false),
			func(t *testing.T, ns string) *corev1.Secret { return plugged(t, ns, own) }, 0},
		"CA secret cannot be read": {failing(http.MethodGet, "/secrets/istio-ca-secret", 2, false),
			func(t *testing.T, ns string) *corev1.Secret {
				return caSecret(ns, stored, catest.KeyPEM(t, stored.Key))
			}, 0},
		"CA secret was written, but the answer is lost": {failing(http.MethodPost, "/secrets", 1, true), nil, 1},
		"CA secret was not written at first":            {failing(http.MethodPost, "/secrets", 1, false), nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			var want *x509.Certificate
			if c.existing != nil {
				secret := createSecret(t, c.existing(t, s.storage))
				want = must(trust.ParseCertificates(secret.Data["ca-cert.pem"]))(t)[0]
			}
			middle := newProxy(t)
			middle.Break(c.fault)
			middle.Server.StartTLS()
			p := s.launch(t, launch{account: s.account.via(t, middle)})
			p.ready(t)
			if want == nil {
				want = s.roots(t)[0]
			}
			right(t, makeAccount(t, s.namespace(t), "sleep"), []*x509.Certificate{want})
			if got := writes(t, p.since, p.user, "secrets", s.storage, "istio-ca-secret"); len(got) != c.creates {
				t.Errorf("citadel tried to write the CA secret by %v, want %d attempts", got, c.creates)
			}
		})
	}
}
