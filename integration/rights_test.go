package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/integration/cluster"
)

// grant is one verb on one resource, as a rule of deploy/ gives it.
type grant struct {
	verb, group, resource string
	name                  string // empty: of any name
	namespace             string // empty: in any
}

func (g grant) String() string {
	text := strings.TrimSuffix(g.verb+" "+g.resource+"."+g.group, ".")
	if g.name != "" {
		text += " named " + g.name
	}
	if g.namespace != "" {
		text += " in namespace " + g.namespace
	}
	return text
}

// covers tells whether the grant is what allowed a request.
func (g grant) covers(r request) bool {
	return g.verb == r.Verb && g.group == r.ObjectRef.APIGroup && g.resource == r.ObjectRef.Resource &&
		(g.name == "" || g.name == r.ObjectRef.Name) && (g.namespace == "" || r.ObjectRef.Namespace == g.namespace)
}

// grants are what rules give in a namespace, or where it is empty in all, in
// single pieces.
func grants(t *testing.T, rules []rbacv1.PolicyRule, namespace string) []grant {
	t.Helper()
	var out []grant
	for _, rule := range rules {
		if len(rule.NonResourceURLs) > 0 || slices.Contains(slices.Concat(rule.Verbs, rule.APIGroups, rule.Resources), "*") {
			t.Errorf("a rule is too wide: %+v", rule)
		}
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, verb := range rule.Verbs {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, name := range names {
						out = append(out, grant{verb, group, resource, name, namespace})
					}
				}
			}
		}
	}
	return out
}

// Each right of deploy/ is used, and no other is missed: this does everything
// that citadel ever does to the API server, and that nothing is refused is
// checked wherever a citadel of these tests ends. Not parallel: the deployed
// Citadel manages the whole cluster.
func TestRightsAreWhatCitadelUsesAndNoMore(t *testing.T) {
	s := deployed(t)
	rules := must(plane.Client.RbacV1().ClusterRoles().Get(t.Context(), deployedName, metav1.GetOptions{}))(t).Rules
	may := grants(t, rules, "")
	may = append(may, grants(t, must(plane.Client.RbacV1().Roles(s.storage).Get(t.Context(), deployedName, metav1.GetOptions{}))(t).Rules, s.storage)...)

	since := now(t)
	ns := s.namespace(t)
	useEveryRight(t, s, ns)
	p := s.start(t) // of the whole cluster alone: tokens are reviewed
	p.serves(t)
	cfg := p.api(s.roots(t))
	cfg.Token = s.kubernetesToken(t, makeAccount(t, ns, "proxy"))
	within(t, patience, func() error { _, err := sign(t, cfg, "proxy"); return err })
	allUsed(t, since, s, may)
}

// allUsed insists that what a site's Citadel did is what it may do.
func allUsed(t *testing.T, since mark, s *site, may []grant) {
	t.Helper()
	used := map[grant]bool{}
	for _, r := range requests(t, since, s.user) {
		if r.ObjectRef.Resource == "" || r.forbidden() {
			continue // discovery and the like; what is refused is told where citadel ends
		}
		covering := slices.IndexFunc(may, func(g grant) bool { return g.covers(r) })
		if covering < 0 {
			t.Errorf("a right from elsewhere allowed %s", r)
			continue
		}
		used[may[covering]] = true
	}
	for _, g := range may {
		if !used[g] {
			t.Errorf("deploy/ allows to %s, which citadel never does", g)
		}
	}
}

// useEveryRight makes a Citadel do in a namespace all that it can do.
func useEveryRight(t *testing.T, s *site, ns string, flags ...string) {
	t.Helper()
	leases := plane.Client.CoordinationV1().Leases(s.storage)
	if err := leases.Delete(t.Context(), "istio-citadel", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	// An API server before 1.32 lists instead of streaming the first list.
	old := s.launch(t, launch{env: []string{"KUBE_FEATURE_WatchListClient=false"}}, flags...)
	old.ready(t)
	roots := s.roots(t)
	right(t, makeAccount(t, ns, "first"), roots)
	old.stop(t)

	foreign := createSecret(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "istio.taken"}})
	taken := makeAccount(t, ns, "taken")
	createSecret(t, secret14(t, catest.Citadel14Root(t, time.Now(), trustDomain), ns, "gone", time.Now(), time.Hour))
	expired, _ := s.joinToken(t, time.Now().Add(-49*time.Hour))
	p := s.start(t, flags...)
	p.serves(t)
	_, bearer := s.joinToken(t, time.Now())
	cfg := p.api(roots)
	cfg.Token = bearer
	must(sign(t, cfg, "host"))(t)
	within(t, patience, func() error {
		_, err := plane.Client.CoreV1().Secrets(s.storage).Get(t.Context(), expired, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("a join token that expired two days ago: %v", err)
		}
		return nil
	})
	sa := makeAccount(t, ns, "sleep")
	secret := right(t, sa, roots)
	emptied := secret.DeepCopy()
	emptied.Data = nil
	must(plane.Client.CoreV1().Secrets(ns).Update(t.Context(), emptied, metav1.UpdateOptions{}))(t)
	right(t, sa, roots)
	for _, immutable := range []bool{false, true} {
		spoil := func(m *corev1.ConfigMap) { m.Data, m.Immutable = nil, new(immutable) }
		editConfigMap(t, ns, "istio-ca-root-cert", spoil)
		within(t, patience, func() error { return rootsIn(t, ns, roots) })
		editConfigMap(t, s.storage, "istio-security", spoil)
		within(t, patience, func() error { return forOldAgentsIn(t, s.storage, roots) })
	}
	within(t, patience, func() error {
		return noSecret(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "gone"}})
	})
	within(t, patience, func() error { return eventOn(t, taken, "SecretNameTaken", "") })
	within(t, patience, func() error { // told again, the Event counts
		if len(writes(t, p.since, p.user, "events", ns, "")) < 2 {
			return fmt.Errorf("the Event was not repeated")
		}
		return nil
	})
	deleteSecret(t, foreign)
	right(t, taken, roots)
}

// What Citadel keeps in the storage namespace it may not touch elsewhere.
func TestRightsToTheStorageNamespaceEndThere(t *testing.T) {
	t.Parallel()
	s := deployed(t)
	for _, c := range []struct {
		namespace, name string
		allowed         bool
	}{
		{s.storage, "istio-security", true},
		{s.storage, "istio-ca-root-cert", true},
		{s.storage, "istio", false},
		{"default", "istio-security", false},
		{"default", "istio-ca-root-cert", true},
		{"default", "settings", false},
	} {
		for _, verb := range []string{"list", "watch", "update", "delete"} {
			what := authorizationv1.ResourceAttributes{Verb: verb, Resource: "configmaps", Namespace: c.namespace, Name: c.name}
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: s.user, ResourceAttributes: &what}}
			answer := must(plane.Client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{}))(t)
			if answer.Status.Allowed != c.allowed {
				t.Errorf("%s %s/%s is allowed: %v, want %v", verb, c.namespace, c.name, answer.Status.Allowed, c.allowed)
			}
		}
	}
}

func podOf(deployment *appsv1.Deployment) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "citadel-", Labels: deployment.Spec.Template.Labels},
		Spec: *deployment.Spec.Template.Spec.DeepCopy()}
}

func TestDeploymentRunsUnderRestrictedPodSecurity(t *testing.T) {
	t.Parallel()
	space := must(plane.Client.CoreV1().Namespaces().Get(t.Context(), cluster.StorageNamespace, metav1.GetOptions{}))(t)
	if level := space.Labels["pod-security.kubernetes.io/enforce"]; level != "restricted" {
		t.Errorf("namespace enforces %q, want restricted", level)
	}
	deployment := must(plane.Client.AppsV1().Deployments(cluster.StorageNamespace).Get(t.Context(), "istio-citadel", metav1.GetOptions{}))(t)
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pod := podOf(deployment)
	must(plane.Client.CoreV1().Pods(cluster.StorageNamespace).Create(t.Context(), pod, dryRun))(t)
	container := &pod.Spec.Containers[0]
	if container.SecurityContext == nil || container.SecurityContext.ReadOnlyRootFilesystem == nil || !*container.SecurityContext.ReadOnlyRootFilesystem {
		t.Error("its root file system can be written to")
	}
	for rule, loosen := range map[string]func(*corev1.Pod){
		"privileged": func(p *corev1.Pod) {
			c := p.Spec.Containers[0].SecurityContext
			c.Privileged, c.AllowPrivilegeEscalation = new(true), nil
		},
		"as root":      func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsUser = new(int64(0)) },
		"capabilities": func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.Capabilities = nil },
		"host network": func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"no seccomp":   func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile = nil },
		"escalation":   func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil },
		"a host's folder": func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
		},
	} {
		loose := podOf(deployment)
		loosen(loose)
		if _, err := plane.Client.CoreV1().Pods(cluster.StorageNamespace).Create(t.Context(), loose, dryRun); !apierrors.IsForbidden(err) {
			t.Errorf("%s: the pod is admitted: %v", rule, err)
		}
	}
}

// Probes and flags of the Deployment are those of the binary.
func TestDeploymentFitsTheBinary(t *testing.T) {
	t.Parallel()
	deployment := must(plane.Client.AppsV1().Deployments(cluster.StorageNamespace).Get(t.Context(), "istio-citadel", metav1.GetOptions{}))(t)
	container := deployment.Spec.Template.Spec.Containers[0]
	s := newSite(t)
	p := s.start(t, container.Args...)
	for name, probe := range map[string]*corev1.Probe{"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil {
			t.Fatalf("no %s probe by HTTP", name)
		}
		p.answers(t, probe.HTTPGet.Path, 200)
	}
	service := must(plane.Client.CoreV1().Services(cluster.StorageNamespace).Get(t.Context(), "istio-citadel", metav1.GetOptions{}))(t)
	for key, value := range service.Spec.Selector {
		if deployment.Spec.Template.Labels[key] != value {
			t.Errorf("the Service selects %s=%s, the pods have %v", key, value, deployment.Spec.Template.Labels)
		}
	}
	if *deployment.Spec.Replicas < 2 {
		t.Errorf("%d replicas", *deployment.Spec.Replicas)
	}
	grace := time.Duration(*deployment.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	if took := p.stop(t); took > grace {
		t.Errorf("citadel took %s to stop, and is killed after %s", took, grace)
	}
}
