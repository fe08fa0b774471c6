package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/caclient"
	"citadel/ca/policy"
	"citadel/nodeagent/policycache"
)

// policySite is a site whose Citadel has the rights of component policy.
func policySite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	text := render(t, s.storage, "policy")
	cluster := only[*rbacv1.ClusterRole](t, text)
	name := s.storage + "-policy"
	must(plane.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: cluster.Rules}, metav1.CreateOptions{}))(t)
	must(plane.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: s.subjects("citadel"), RoleRef: clusterRole(name)}, metav1.CreateOptions{}))(t)
	s.bindRules(t, s.storage, "citadel", "policy", only[*rbacv1.Role](t, text, deployedName).Rules)
	within(t, patience, func() error {
		return errors.Join(s.may("watch", "apiextensions.k8s.io", "customresourcedefinitions", ""), s.may("list", "", "services", ""))
	})
	return s
}

// peer is a service account that watches policy, as an agent would.
type peer struct {
	cfg   caclient.Config
	cache *policycache.Cache
}

func (s *site) peer(t *testing.T, p *process, namespace, account string) *peer {
	t.Helper()
	cfg := p.api(s.roots(t))
	cfg.Token = s.kubernetesToken(t, makeAccount(t, namespace, account))
	cache := must(policycache.Open(spiffeid.ID{}, func() ([]byte, error) { return nil, fs.ErrNotExist }, func([]byte) error { return nil }))(t)
	return &peer{cfg, cache}
}

// watch keeps the cache up to date until the function is called, and tells how
// many objects came with the first update.
func (r *peer) watch(t *testing.T) (stop func(), first func() int) {
	t.Helper()
	counts := make(chan int, 1)
	once := func(ctx context.Context, cfg caclient.Config, held caclient.PolicyHeld, told func(caclient.PolicyUpdate) error) error {
		client, err := caclient.New(cfg)
		if err != nil {
			return err
		}
		defer client.Close()
		return client.WatchPolicy(ctx, held, func(u caclient.PolicyUpdate) error {
			select {
			case counts <- len(u.Objects):
			default:
			}
			return told(u)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.cache.Run(ctx, policycache.Watch{Policy: once, Config: func() (caclient.Config, bool) { return r.cfg, true }, Tell: func(error) {}})
	}()
	first = func() int {
		t.Helper()
		select {
		case n := <-counts:
			within(t, patience, func() error {
				if r.cache.Current() == nil {
					return errors.New("the first update is not taken in")
				}
				return nil
			})
			return n
		case <-time.After(patience):
			t.Fatalf("no policy came: %+v", r.cache.Status(time.Now()))
		}
		return 0
	}
	return func() { cancel(); <-ended }, first
}

// becomes waits for an answer, and logs how long it took since an edit.
func (r *peer) becomes(t *testing.T, what string, q policy.Query, server, by string) {
	t.Helper()
	begin := time.Now()
	within(t, patience, func() error {
		if d := r.cache.Resolve(q); d.Server.String() != server || d.ServerBy.String() != by {
			return fmt.Errorf("%s: the server is %s by %s, want %s by %s", what, d.Server, d.ServerBy, server, by)
		}
		return nil
	})
	t.Logf("%s: %s in effect after %s", what, server, time.Since(begin).Round(time.Millisecond))
}

// httpbin makes the Service of the tutorial, with one Pod that has a sidecar.
func httpbin(t *testing.T, namespace string) policy.Query {
	t.Helper()
	labels := map[string]string{"app": "httpbin", "security.istio.io/tlsMode": "istio"}
	container := func(name string) corev1.Container { return corev1.Container{Name: name, Image: "none"} }
	must(plane.Client.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "httpbin"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "httpbin"}, Ports: []corev1.ServicePort{{Name: "http", Port: 8000}}}}, metav1.CreateOptions{}))(t)
	makeAccount(t, namespace, "httpbin")
	must(plane.Client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "httpbin", Labels: labels},
		Spec: corev1.PodSpec{ServiceAccountName: "httpbin", AutomountServiceAccountToken: new(false), Containers: []corev1.Container{container("app"), container("istio-proxy")}}}, metav1.CreateOptions{}))(t)
	return policy.Query{Client: policy.Client{Namespace: namespace, Sidecar: true}, Server: policy.Server{Host: "httpbin." + namespace + ".svc.cluster.local", Port: 8000}}
}

// meshConfig puts a text into ConfigMap istio of the site.
func (s *site) meshConfig(t *testing.T, text string) {
	t.Helper()
	s.apply(t, fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: %s}, data: {mesh: %q}}", s.storage, text))
}

func (s *site) apply(t *testing.T, text string) {
	t.Helper()
	must(plane.Kubectl(t.Context(), "apply", "-f", writeFile(t, "object.yaml", []byte(text))))(t)
}

// TestPolicyOfAllGenerations: edits of all that decides count within a moment,
// also of kinds whose CRDs come and go while citadel runs. It is alone, for the
// whole cluster sees the CRDs.
func TestPolicyOfAllGenerations(t *testing.T) {
	s := policySite(t)
	ns := s.namespace(t)
	q := httpbin(t, ns)
	p := s.start(t, "--policy")
	p.serves(t)
	r := s.peer(t, p, ns, "watcher")
	stop, first := r.watch(t)
	stop = sync.OnceFunc(stop)
	defer stop()
	first()
	r.becomes(t, "nothing said", q, "PERMISSIVE", "default")
	s.meshConfig(t, "authPolicy: MUTUAL_TLS\n")
	r.becomes(t, "ConfigMap istio", q, "STRICT", "MeshConfig/authPolicy")
	s.meshConfig(t, "authPolicy: MUTUAL_TLS\naKeyOfTheYear2040: true\n")
	s.meshConfig(t, "authPolicy: [")
	annotate := func(value string) {
		must(plane.Kubectl(t.Context(), "annotate", "--overwrite", "service", "-n", ns, "httpbin", "auth.istio.io/8000"+value))(t)
	}
	annotate("=NONE")
	r.becomes(t, "annotation", q, "DISABLE", "Service/"+ns+"/httpbin#auth.istio.io/8000")
	annotate("-")
	r.becomes(t, "no annotation, and a mesh config that cannot be read", q, "STRICT", "MeshConfig/authPolicy")
	s.meshConfig(t, "authPolicy: NONE\n")
	r.becomes(t, "mesh config mended", q, "DISABLE", "MeshConfig/authPolicy")

	withCRDs(t)
	s.apply(t, "{apiVersion: authentication.istio.io/v1alpha1, kind: MeshPolicy, metadata: {name: default}, spec: {peers: [{mtls: {}}]}}")
	r.becomes(t, "MeshPolicy, after its CRD", q, "STRICT", "MeshPolicy/default")
	s.apply(t, fmt.Sprintf("{apiVersion: authentication.istio.io/v1alpha1, kind: Policy, metadata: {name: default, namespace: %s}, spec: {peers: [{mtls: {mode: PERMISSIVE}}]}}", ns))
	r.becomes(t, "Policy", q, "PERMISSIVE", "Policy/"+ns+"/default")
	s.apply(t, fmt.Sprintf("{apiVersion: security.istio.io/v1beta1, kind: PeerAuthentication, metadata: {name: hard, namespace: %s}, spec: {mtls: {mode: STRICT}}}", ns))
	r.becomes(t, "PeerAuthentication", q, "STRICT", "PeerAuthentication/"+ns+"/hard")
	s.apply(t, fmt.Sprintf("{apiVersion: networking.istio.io/v1alpha3, kind: DestinationRule, metadata: {name: plain, namespace: %s}, spec: {host: httpbin, trafficPolicy: {tls: {}}}}", ns))
	within(t, patience, func() error {
		if d := r.cache.Resolve(q); d.Client != policy.TLSDisable || d.ClientBy.String() != "DestinationRule/"+ns+"/plain" {
			return fmt.Errorf("the client is %s by %s", d.Client, d.ClientBy)
		}
		return nil
	})
	must(plane.Kubectl(t.Context(), "delete", "-k", "../deploy/crds"))(t)
	r.becomes(t, "no CRDs any more", q, "DISABLE", "MeshConfig/authPolicy")
	withCRDs(t)
	s.apply(t, fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: again, namespace: %s}, spec: {mtls: {mode: STRICT}}}", ns))
	r.becomes(t, "PeerAuthentication, after its CRD came back", q, "STRICT", "PeerAuthentication/"+ns+"/again")
	stop()
	p.stop(t)
	// An API server before 1.32 lists instead of streaming the first list.
	old := s.launch(t, launch{env: []string{"KUBE_FEATURE_WatchListClient=false"}}, "--policy")
	within(t, patience, func() error {
		known, err := old.Metric(t.Context(), "citadel_policy_known")
		if err == nil && known != 1 {
			err = errors.New("policy is not known")
		}
		return err
	})
	old.stop(t)
	usesAll(t, p)
}

// TestMeshConfigIsDeleted: its defaults hold, for the answer is of what there is;
// and that is said aloud, to whoever asks too, until there is a mesh config again.
func TestMeshConfigIsDeleted(t *testing.T) {
	t.Parallel()
	s := policySite(t)
	ns := s.namespace(t)
	q := httpbin(t, ns)
	s.meshConfig(t, "authPolicy: MUTUAL_TLS\n")
	p := s.start(t, "--policy", "--policy-generation", "legacy", "--policy-readers", ns+"/reader")
	p.serves(t)
	r := s.peer(t, p, ns, "watcher")
	stop, first := r.watch(t)
	defer stop()
	first()
	r.becomes(t, "ConfigMap istio", q, "STRICT", "MeshConfig/authPolicy")
	reader := must(caclient.New(s.peer(t, p, ns, "reader").cfg))(t)
	defer reader.Close()
	told := func(want int) {
		t.Helper()
		within(t, patience, func() error {
			list, err := reader.ListPolicy(t.Context())
			problems, metricErr := p.Metric(t.Context(), "citadel_policy_problems")
			if err := errors.Join(err, metricErr); err != nil || len(list.Warnings) != want || int(problems) != want {
				return fmt.Errorf("want %d warnings: %v, citadel_policy_problems %v, %v", want, list.Warnings, problems, err)
			}
			return nil
		})
	}
	told(0)
	must(plane.Kubectl(t.Context(), "delete", "configmap", "istio", "-n", s.storage))(t)
	r.becomes(t, "no ConfigMap istio", q, "DISABLE", "default")
	told(1)
	p.says(t, "the mesh config was deleted: its defaults hold")
	s.meshConfig(t, "{}")
	told(0)
}

// usesAll tells of rights of component policy that citadel had no use for.
func usesAll(t *testing.T, p *process) {
	t.Helper()
	ns := "istio-system"
	without, with := render(t, ns), render(t, ns, "policy")
	rules := only[*rbacv1.ClusterRole](t, with).Rules[len(only[*rbacv1.ClusterRole](t, without).Rules):]
	rules = append(rules, only[*rbacv1.Role](t, with, deployedName).Rules[len(only[*rbacv1.Role](t, without, deployedName).Rules):]...)
	within(t, patience, func() error {
		made := requests(t, p.since, p.user)
		for _, g := range grants(t, rules, "") {
			if !slices.ContainsFunc(made, func(r request) bool { return g.covers(r) }) {
				return fmt.Errorf("no use for the right to %s", g)
			}
		}
		return nil
	})
}

// withCRDs has the kinds of deploy/crds until the test's end.
func withCRDs(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		must(plane.Kubectl(context.Background(), "delete", "--ignore-not-found", "-k", "../deploy/crds"))(t)
	})
	must(plane.Kubectl(t.Context(), "apply", "-k", "../deploy/crds"))(t)
	must(plane.Kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=60s", "-f", "../deploy/crds/meshpolicies.yaml", "-f", "../deploy/crds/policies.yaml",
		"-f", "../deploy/crds/peerauthentications.yaml", "-f", "../deploy/crds/destinationrules.yaml"))(t)
}

// TestAgentsSeeTheirOwn: what is private to a namespace is told there alone; and
// who comes back, also to another citadel, is sent what has changed.
func TestAgentsSeeTheirOwn(t *testing.T) {
	t.Parallel()
	s := policySite(t)
	a, b := s.namespace(t), s.namespace(t)
	qa, qb := httpbin(t, a), httpbin(t, b)
	must(plane.Kubectl(t.Context(), "annotate", "service", "-n", b, "httpbin", "networking.istio.io/exportTo=."))(t)
	p := s.start(t, "--policy", "--policy-generation", "v1", "--policy-readers", a+"/reader")
	p.serves(t)
	ra, rb := s.peer(t, p, a, "web"), s.peer(t, p, b, "web")
	stopA, firstA := ra.watch(t)
	stopB, firstB := rb.watch(t)
	all, _ := firstA(), firstB()
	sees := func(r *peer, from string, q policy.Query) bool {
		q.Client.Namespace = from
		return r.cache.Resolve(q).Symptom != policy.UnknownServer
	}
	within(t, patience, func() error { // the annotation may be younger than the first update
		if !sees(ra, a, qa) || sees(ra, a, qb) || !sees(rb, b, qb) || !sees(rb, b, qa) {
			return fmt.Errorf("a sees a %v and b %v, b sees b %v and a %v", sees(ra, a, qa), sees(ra, a, qb), sees(rb, b, qb), sees(rb, b, qa))
		}
		return nil
	})
	stopA()
	stopB()
	reader := s.peer(t, p, a, "reader")
	for account, want := range map[*peer]bool{reader: true, rb: false} {
		client := must(caclient.New(account.cfg))(t)
		list, err := client.ListPolicy(t.Context())
		if (err == nil) != want || want && (len(list.Objects) < all || list.Generation != policy.V1) {
			t.Errorf("reader %v lists %d objects of %s: %v", want, len(list.Objects), list.Generation, err)
		}
		client.Close()
	}
	p.stop(t)
	p = s.start(t, "--policy", "--policy-generation", "v1")
	p.serves(t)
	must(plane.Kubectl(t.Context(), "annotate", "service", "-n", a, "httpbin", "auth.istio.io/8000=NONE"))(t)
	rb.cfg.Address = p.api(nil).Address
	stopB, firstB = rb.watch(t)
	defer stopB()
	if n := firstB(); n > all/2 || n > 100 {
		t.Errorf("after a restart of citadel %d objects of %d were sent", n, all)
	}
	if !sees(rb, b, qa) || !sees(rb, b, qb) {
		t.Error("after a restart something is missing")
	}
}

// TestHostKeepsPolicy: an agent has it from the CA, starts with it when the CA is
// away, and without any, or with another host's, says that it is STRICT.
func TestHostKeepsPolicy(t *testing.T) {
	t.Parallel()
	s := policySite(t)
	ns := s.namespace(t)
	httpbin(t, ns)
	p := s.start(t, "--policy", "--policy-generation", "v1")
	p.serves(t)
	h := newHost(t)
	token := writeFile(t, "token", []byte(s.joinText(t, p, s.roots(t))))
	a := h.start(t, "--join-token-file", token)
	var status string
	shows := func(want ...string) {
		t.Helper()
		within(t, patience, func() error {
			var err error
			if status, err = a.text(t); err != nil {
				return err
			}
			for _, w := range want {
				if !strings.Contains(status, w) {
					return fmt.Errorf("status lacks %q:\n%s", w, status)
				}
			}
			return nil
		})
	}
	shows("from the CA, which is watched")
	if log := a.read(t); !strings.Contains(log, "there is no policy yet") || !strings.Contains(log, "policy from the CA") {
		t.Errorf("the log does not tell:\n%s", tail(log, 20))
	}
	p.stop(t)
	shows("from the CA, as of ")
	a.stop(t)
	a = h.start(t)
	shows("from the file of the last run, as of ")
	if log := a.read(t); !strings.Contains(log, "policy of the last run") {
		t.Errorf("the log does not tell:\n%s", tail(log, 20))
	}
	a.stop(t)
	other := newHost(t)
	if err := os.WriteFile(other.path("state", "policy"), must(os.ReadFile(h.path("state", "policy")))(t), 0o600); err != nil {
		t.Fatal(err)
	}
	a = other.start(t)
	shows("Policy:", "none: STRICT, and nobody to call")
	if log := a.read(t); !strings.Contains(log, "it was told to") {
		t.Errorf("another host's policy is not told of:\n%s", tail(log, 20))
	}
}

// TestSiteHasPolicy: without Kubernetes, from files in the state folder.
func TestSiteHasPolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(state, 0o700), os.Mkdir(filepath.Join(state, "policy"), 0o700)); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(state, "policy", "vm.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entry := "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: web, namespace: vm}, spec: {hosts: [web.vm.example], location: MESH_INTERNAL, ports: [{number: 80, name: http}]}}\n"
	write(entry)
	c := startAlone(t, state, "--policy")
	h := newHost(t)
	join := tool(t, "token", "create", "-n", "vm", "--service-account", "web", "--state-dir", state, "--address", fmt.Sprintf("127.0.0.1:%d", c.APIPort))
	a := h.start(t, "--join-token-file", writeFile(t, "token", []byte(join)))
	shows := func(want string) {
		t.Helper()
		within(t, patience, func() error {
			if text, err := a.text(t); err != nil || !strings.Contains(text, want) {
				return fmt.Errorf("status lacks %q: %v\n%s", want, err, text)
			}
			return nil
		})
	}
	shows(", v1, 1 objects, from the CA")
	write(entry + "---\n{apiVersion: authentication.istio.io/v1alpha1, kind: MeshPolicy, metadata: {name: default}, spec: {peers: [{mtls: {}}]}}\n")
	shows(", v1alpha1, 2 objects, from the CA")
}
