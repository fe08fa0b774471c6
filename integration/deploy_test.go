package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"

	"citadel/integration/cluster"
)

// render is deploy/ with components, as a site's own kustomization has it. A
// namespace is the one that alone is managed.
func render(t *testing.T, namespace string, components ...string) string {
	t.Helper()
	dir := t.TempDir()
	deploy := must(filepath.Rel(dir, must(filepath.Abs("../deploy"))(t)))(t)
	text := fmt.Sprintf("resources: [%s, listened.yaml]\ncomponents: [", deploy)
	for _, c := range components {
		text += filepath.Join(deploy, "components", c) + ","
	}
	listened := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: listened-namespace, annotations: {config.kubernetes.io/local-config: \"true\"}}\ndata: {namespace: %q}\n", namespace)
	for name, text := range map[string]string{"kustomization.yaml": text + "]\n", "listened.yaml": listened} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return must(plane.Kubectl(t.Context(), "kustomize", dir))(t)
}

// documents are the objects of a rendered text. Kinds of no built-in API are
// left out.
func documents(t *testing.T, text string) []any {
	t.Helper()
	var out []any
	for doc := range strings.SplitSeq(text, "\n---\n") {
		if obj, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil); err == nil {
			out = append(out, obj)
		}
	}
	return out
}

// only is the one object of a type, and with a name if one is given.
func only[T metav1.Object](t *testing.T, text string, name ...string) T {
	t.Helper()
	var found []T
	for _, doc := range documents(t, text) {
		if obj, ok := doc.(T); ok && (len(name) == 0 || obj.GetName() == name[0]) {
			found = append(found, obj)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T%q", len(found), *new(T), name)
	}
	return found[0]
}

// dryRun asks the API server whether it would take the objects, and would have
// nothing to warn of.
func dryRun(t *testing.T, text string) error {
	t.Helper()
	_, err := plane.Kubectl(t.Context(), "apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", writeFile(t, "all.yaml", []byte(text)))
	return err
}

func TestVariantsAreAcceptedWithoutAWarning(t *testing.T) {
	t.Parallel()
	ns := makeNamespace(t, nil)
	for _, components := range [][]string{{}, {"cacerts"}, {"node-proxies"}, {"policy"}, {"one-namespace"}, {"one-namespace", "cacerts"}, {"cacerts", "one-namespace"}, {"admission", "one-namespace"}} {
		text := render(t, ns, components...)
		if err := dryRun(t, text); err != nil {
			t.Errorf("deploy/ with %q: %v", components, err)
		}
		for wrong, broken := range map[string]string{
			"a loose pod":      strings.Replace(text, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", 1),
			"an unknown field": strings.Replace(text, "enableServiceLinks: false", "enableServiceLink: false", 1),
		} {
			if err := dryRun(t, broken); err == nil || broken == text {
				t.Errorf("%s is accepted: this test sees nothing", wrong)
			}
		}
	}
}

// chartsGolden are the objects that tests of the Helm chart have for some
// values, in namespaces that are there.
func chartsGolden(t *testing.T, name string) string {
	t.Helper()
	text := string(must(os.ReadFile("chart/testdata/" + name + ".golden.yaml"))(t))
	for _, ns := range []string{"web", "backend", "second"} {
		if from := "namespace: " + ns + "\n"; strings.Contains(text, from) {
			text = strings.ReplaceAll(text, from, "namespace: "+makeNamespace(t, nil)+"\n")
		}
	}
	docs := slices.DeleteFunc(strings.Split(text, "\n---\n"), func(doc string) bool { return strings.Contains(doc, "kind: ServiceMonitor") })
	return strings.Join(docs, "\n---\n")
}

// The chart's own test renders it; here is what it cannot know: that the API
// server takes the objects, and citadel the flags and variables.
func TestChartsObjectsAreAcceptedAndItsFlagsKnown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"default", "listened", "full", "second"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := chartsGolden(t, name)
			if err := dryRun(t, text); err != nil {
				t.Error(err)
			}
			container := only[*appsv1.Deployment](t, text).Spec.Template.Spec.Containers[0]
			if name == "listened" { // an own CA that is not there
				return
			}
			s := newSite(t)
			var env []string
			for _, e := range container.Env {
				env = append(env, e.Name+"="+e.Value)
			}
			p := s.launch(t, launch{env: env}, container.Args...)
			p.ready(t)
			for line := range strings.Lines(p.read(t, "log")) {
				if strings.Contains(line, `"level":"WARN"`) && !strings.Contains(line, "a new root was made") {
					t.Errorf("citadel warns: %s", line)
				}
			}
		})
	}
}

func TestComponentsGiveTheirFlags(t *testing.T) {
	t.Parallel()
	text := render(t, "web", "one-namespace", "cacerts", "servicemonitor")
	var got []string
	for _, env := range only[*appsv1.Deployment](t, text).Spec.Template.Spec.Containers[0].Env {
		got = append(got, env.Name+"="+env.Value)
	}
	slices.Sort(got)
	if want := []string{"CITADEL_LISTENED_NAMESPACES=web", "CITADEL_SELF_SIGNED_CA=false"}; !slices.Equal(got, want) {
		t.Errorf("the environment is %q, want %q", got, want)
	}
	for _, kind := range []string{"kind: ClusterRole\n", "kind: ClusterRoleBinding\n"} {
		if strings.Contains(text, kind) {
			t.Errorf("there is still a %s", kind)
		}
	}
}

// In the whole cluster, one namespace's Citadel has no right. It needs none,
// and uses all it has.
func TestRightsOfOneNamespaceAreWhatCitadelUsesAndNoMore(t *testing.T) {
	t.Parallel()
	s := &site{storage: makeNamespace(t, nil)}
	ns := makeNamespace(t, nil)
	// In another storage namespace, as README says.
	text := strings.ReplaceAll(render(t, ns, "one-namespace"), cluster.StorageNamespace, s.storage)
	var rights []string
	for doc := range strings.SplitSeq(text, "\n---\n") {
		if strings.Contains(doc, "kind: Role") || strings.Contains(doc, "kind: ServiceAccount\nmetadata") {
			rights = append(rights, doc)
		}
	}
	must(plane.Kubectl(t.Context(), "apply", "-f", writeFile(t, "rights.yaml", []byte(strings.Join(rights, "\n---\n")))))(t)
	s.account = s.access(t, cluster.CitadelAccount)
	var may []grant
	for _, doc := range documents(t, text) {
		switch role := doc.(type) {
		case *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding:
			t.Errorf("there is a %T", role)
		case *rbacv1.Role:
			may = append(may, grants(t, role.Rules, role.Namespace)...)
		}
	}
	since := now(t)
	useEveryRight(t, s, ns, "--listened-namespaces", only[*appsv1.Deployment](t, text).Spec.Template.Spec.Containers[0].Env[0].Value)
	allUsed(t, since, s, may)
}

// Without Secret cacerts, the component cacerts stops the start; without the
// component citadel would make a root.
func TestComponentCacertsMakesNoRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	env := only[*appsv1.Deployment](t, render(t, "web", "cacerts")).Spec.Template.Spec.Containers[0].Env[0]
	p := s.launch(t, launch{env: []string{env.Name + "=" + env.Value}, failing: true})
	if message := p.fails(t); !strings.Contains(message, "cacerts") {
		t.Errorf("it ends with %q", message)
	}
	if got := writes(t, p.since, p.user, "secrets", "", ""); len(got) > 0 {
		t.Errorf("it wrote %v", got)
	}
}

// The pod has the one token that it needs: bound, and for an hour.
func TestPodsHaveAShortLivedToken(t *testing.T) {
	t.Parallel()
	text := render(t, "web")
	if mount := only[*corev1.ServiceAccount](t, text).AutomountServiceAccountToken; mount == nil || *mount {
		t.Error("every pod of the service account gets a token")
	}
	pod := podOf(only[*appsv1.Deployment](t, text))
	made := must(plane.Client.CoreV1().Pods(cluster.StorageNamespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}))(t)
	mounts := made.Spec.Containers[0].VolumeMounts
	if len(made.Spec.Volumes) != 1 || len(mounts) != 1 || mounts[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" || !mounts[0].ReadOnly {
		t.Fatalf("volumes %v, mounted as %v", made.Spec.Volumes, mounts)
	}
	for _, source := range made.Spec.Volumes[0].Projected.Sources {
		if token := source.ServiceAccountToken; token != nil && (token.Audience != "" || *token.ExpirationSeconds > 3600) {
			t.Errorf("token for %q lives %ds", token.Audience, *token.ExpirationSeconds)
		}
	}
	if made.Spec.Priority == nil || *made.Spec.Priority < 2_000_000_000 {
		t.Errorf("priority %v", made.Spec.Priority)
	}
}

// What selects citadel's pods by their labels finds them.
func TestSelectorsFindThePods(t *testing.T) {
	t.Parallel()
	text := render(t, "web")
	deployment := only[*appsv1.Deployment](t, text)
	spec, pods := deployment.Spec.Template.Spec, labels.Set(deployment.Spec.Template.Labels)
	budget, policy := only[*policyv1.PodDisruptionBudget](t, text), only[*networkingv1.NetworkPolicy](t, text)
	selectors := map[string]*metav1.LabelSelector{"Deployment": deployment.Spec.Selector, "PodDisruptionBudget": budget.Spec.Selector, "NetworkPolicy": &policy.Spec.PodSelector}
	for _, spread := range spec.TopologySpreadConstraints {
		selectors["spread over "+spread.TopologyKey] = spread.LabelSelector
	}
	for what, selector := range selectors {
		if s := must(metav1.LabelSelectorAsSelector(selector))(t); s.Empty() || !s.Matches(pods) {
			t.Errorf("%s selects %s, the pods have %s", what, s, pods)
		}
	}
	if len(selectors) != 5 {
		t.Errorf("%d selectors", len(selectors))
	}
	if budget.Spec.MaxUnavailable.IntValue() >= int(*deployment.Spec.Replicas) {
		t.Error("all replicas may go at once")
	}
	var let []networkingv1.NetworkPolicyPort
	for _, rule := range policy.Spec.Ingress {
		let = append(let, rule.Ports...)
	}
	for _, port := range spec.Containers[0].Ports {
		if !slices.ContainsFunc(let, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == port.ContainerPort }) {
			t.Errorf("the NetworkPolicy shuts port %d", port.ContainerPort)
		}
	}
}
