// Package chart holds the Helm chart of deploy/ to what kubectl kustomize makes
// of the manifests beside it, by Helm's own engine. It is a module of its own,
// so that none of Helm reaches the product's go.mod, and refuses clusters: the
// API server is asked about the same objects by the tests above it.
package chart

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

const (
	deploy  = "../../deploy"
	charted = deploy + "/helm/istio-citadel"
	storage = "istio-system"
	// newest is the Kubernetes that the rest is tested with.
	newest = "v1.36.3"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(charted)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// parse reads values as a file of -f has them.
func parse(t *testing.T, text string) chartutil.Values {
	t.Helper()
	values, err := chartutil.ReadValues([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// render is helm template, without the notes and in the files' order.
func render(t *testing.T, namespace string, values chartutil.Values) (string, error) {
	t.Helper()
	version, err := chartutil.ParseKubeVersion(newest)
	if err != nil {
		t.Fatal(err)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	c := load(t)
	release := chartutil.ReleaseOptions{Name: "istio-citadel", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, release, capabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if text := strings.TrimSpace(files[name]); text != "" && !strings.HasSuffix(name, ".txt") {
			fmt.Fprintf(&out, "---\n# %s\n%s\n", filepath.Base(name), strings.TrimPrefix(text, "---\n"))
		}
	}
	return out.String(), nil
}

func mustRender(t *testing.T, namespace, values string) string {
	t.Helper()
	text, err := render(t, namespace, parse(t, values))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// kustomize is kubectl kustomize of deploy/ with components.
func kustomize(t *testing.T, components ...string) string {
	t.Helper()
	dir := t.TempDir()
	up, err := filepath.Abs(deploy)
	if err != nil {
		t.Fatal(err)
	}
	if up, err = filepath.Rel(dir, up); err != nil {
		t.Fatal(err)
	}
	text := "resources: [" + up + ", listened.yaml]\ncomponents:\n"
	for _, c := range components {
		text += "- " + filepath.Join(up, "components", c) + "\n"
	}
	for name, text := range map[string]string{"kustomization.yaml": text, "listened.yaml": "apiVersion: v1\nkind: ConfigMap\n" +
		"metadata: {name: listened-namespace, annotations: {config.kubernetes.io/local-config: \"true\"}}\ndata: {namespace: web}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("../../bin/controlplane", "kubectl", "kustomize", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl kustomize (make controlplane builds it): %v", err)
	}
	return string(out)
}

// objects are what a text holds, by kind, namespace and name.
func objects(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
		var obj map[string]any
		if err := yaml.UnmarshalStrict([]byte(doc), &obj); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if obj == nil {
			continue
		}
		meta := obj["metadata"].(map[string]any)
		id := fmt.Sprint(obj["kind"], " ", meta["namespace"], "/", meta["name"])
		if found[id] != nil {
			t.Errorf("%s is there twice", id)
		}
		found[id] = obj
	}
	return found
}

// helms are the labels that only Helm's objects have.
var helms = []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"}

func withoutHelms(t *testing.T, all map[string]map[string]any) map[string]map[string]any {
	t.Helper()
	for id, obj := range all {
		labels, _ := obj["metadata"].(map[string]any)["labels"].(map[string]any)
		for _, label := range helms {
			if labels[label] == nil {
				t.Errorf("%s has no label %s", id, label)
			}
			delete(labels, label)
		}
	}
	return all
}

// The chart and the manifests make the same objects, whatever is chosen. The
// namespace is Helm's own to make.
func TestChartIsTheManifests(t *testing.T) {
	for name, c := range map[string]struct {
		values     string
		components []string
	}{
		"default":        {},
		"one namespace":  {"listenedNamespaces: [web]", []string{"one-namespace"}},
		"own CA":         {"selfSigned: false", []string{"cacerts"}},
		"node proxies":   {"trustedNodeAccounts: [istio-system/ztunnel]", []string{"node-proxies"}},
		"policy":         {"policy: {enabled: true}", []string{"policy"}},
		"admission":      {"admissionPolicy: {enabled: true}", []string{"admission"}},
		"ServiceMonitor": {"serviceMonitor: {enabled: true}", []string{"servicemonitor"}},
		"all": {"{listenedNamespaces: [web], selfSigned: false, serviceMonitor: {enabled: true}}",
			[]string{"cacerts", "one-namespace", "servicemonitor"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := objects(t, kustomize(t, c.components...))
			if delete(want, "Namespace <nil>/"+storage); len(want) < 9 {
				t.Fatalf("%d objects", len(want))
			}
			sortEnvironment(want)
			if diff := cmp.Diff(want, withoutHelms(t, objects(t, mustRender(t, storage, c.values)))); diff != "" {
				t.Errorf("the chart (+) is not as the manifests (-):\n%s", diff)
			}
		})
	}
}

// sortEnvironment makes the order of components count no more.
func sortEnvironment(all map[string]map[string]any) {
	spec := all["Deployment "+storage+"/istio-citadel"]["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	env, _ := spec["containers"].([]any)[0].(map[string]any)["env"].([]any)
	slices.SortFunc(env, func(a, b any) int {
		return strings.Compare(a.(map[string]any)["name"].(string), b.(map[string]any)["name"].(string))
	})
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("values %q: %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".values.yaml")
		t.Run(name, func(t *testing.T) {
			values, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			namespace := storage
			if name == "second" {
				namespace = "second"
			}
			got, golden := mustRender(t, namespace, string(values)), filepath.Join("testdata", name+".golden.yaml")
			objects(t, got) // each is there once, and is YAML
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("go test -update . makes it anew:\n%s", diff)
			}
		})
	}
}

func TestSchemaRefusesBadValues(t *testing.T) {
	for values, want := range map[string]string{
		"replicas: 2":                                 "replicas",
		"replicaCount: 0":                             "replicaCount",
		"replicaCount: two":                           "replicaCount",
		"image: {repository: \"\"}":                   "repository",
		"image: {tag: \"not a tag\"}":                 "tag",
		"image: {digest: sha256:12}":                  "digest",
		"image: {pullPolicy: Sometimes}":              "pullPolicy",
		"image: {name: citadel}":                      "name",
		"listenedNamespaces: web":                     "listenedNamespaces",
		"listenedNamespaces: [Web]":                   "listenedNamespaces",
		"listenedNamespaces: [web, web]":              "listenedNamespaces",
		"selfSigned: maybe":                           "selfSigned",
		"trustDomain: spiffe://example.org":           "trustDomain",
		"workloadCertTtl: 12 hours":                   "workloadCertTtl",
		"args: [serve]":                               "args",
		"env: {citadel-key-type: rsa-2048}":           "citadel-key-type",
		"env: {CITADEL_WORKERS: 4}":                   "env",
		"resources: {cpu: 1}":                         "resources",
		"podDisruptionBudget: {maxUnavailable: half}": "maxUnavailable",
		"networkPolicy: {apiServerPorts: []}":         "apiServerPorts",
		"networkPolicy: {apiServerPorts: [70000]}":    "apiServerPorts",
		"networkPolicy: {apiServerCIDRs: [10.0.0.1]}": "apiServerCIDRs",
		"serviceMonitor: {interval: often}":           "interval",
		"policy: {generation: v2}":                    "generation",
		"policy: {readers: [alice]}":                  "readers",
		"enableNamespacesByDefault: \"no\"":           "enableNamespacesByDefault",
	} {
		if _, err := render(t, storage, parse(t, values)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", values, err)
		}
	}
	for _, values := range []string{"", "global: {hub: x}", "podDisruptionBudget: {maxUnavailable: 50%}", "selfSigned: true",
		"workloadCertTtl: 1h30m", "image: {tag: \"\", digest: sha256:" + strings.Repeat("0", 64) + "}"} {
		if _, err := render(t, storage, parse(t, values)); err != nil {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// Values that each are well and together are not are refused with a sentence that
// says what to do.
func TestContradictionsAreRefused(t *testing.T) {
	for _, c := range []struct{ namespace, values, want string }{
		{storage, "{listenedNamespaces: [web], trustedNodeAccounts: [istio-system/ztunnel]}", "listenedNamespaces and trustedNodeAccounts do not go together"},
		{"mesh", "{}", "onlyCitadel: true"},
		{"mesh", "env: {CITADEL_LISTENED_NAMESPACES: web}", "value listenedNamespaces"},
		{storage, "args: [--monitoring-port=9090]", "--monitoring-port: probes"},
		{storage, "env: {CITADEL_GRPC_PORT: \"9090\"}", "--grpc-port: Service"},
		{storage, "args: [--istio-ca-storage-namespace=mesh]", "--citadel-storage-namespace: it is the namespace of the release"},
		{storage, "env: {CITADEL_CITADEL_STORAGE_NAMESPACE: mesh}", "--citadel-storage-namespace"},
		{storage, "env: {NAMESPACE: web}", "value listenedNamespaces"},
		{storage, "args: [--trusted-node-accounts=a/b]", "value trustedNodeAccounts"},
		{storage, "args: [--policy]", "value policy.enabled"},
		{storage, "{listenedNamespaces: [web], policy: {enabled: true}}", "listenedNamespaces and policy.enabled do not go together"},
		{storage, "args: [--state-dir=/var]", "--state-dir"},
		{storage, "workloadCertTtl: 0s", "0s is no time"},
		{storage, "workloadCertTtl: 0h0m", "0h0m is no time"},
		{storage, "workloadCertTtl: 9000h", "9000h is above the most that citadel grants, 168h"},
		{storage, "workloadCertTtl: 168h0m1s", "above"},
		{storage, "env: {CITADEL_WORKLOAD_CERT_TTL: 200h}", "above"},
		{storage, "{workloadCertTtl: 1h, args: [--cert-ttl=0s]}", "no time"},
		{storage, "{workloadCertTtl: 12h, args: [--max-workload-cert-ttl=6h]}", "above the most that citadel grants, 6h"},
	} {
		if _, err := render(t, c.namespace, parse(t, c.values)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in %s: %v", c.values, c.namespace, err)
		}
	}
	for _, c := range []struct{ namespace, values string }{
		{"mesh", "onlyCitadel: true"},
		{"mesh", "listenedNamespaces: [web]"},
		{"mesh", "enableNamespacesByDefault: false"},
		{storage, "workloadCertTtl: 168h"},
		{storage, "workloadCertTtl: 1.5h"},
		{storage, "{workloadCertTtl: 9000h, args: [--max-workload-cert-ttl=9000h]}"},
		{storage, "{workloadCertTtl: 300h, env: {CITADEL_MAX_WORKLOAD_CERT_TTL: 400h}}"},
	} {
		if _, err := render(t, c.namespace, parse(t, c.values)); err != nil {
			t.Errorf("%s in %s: %v", c.values, c.namespace, err)
		}
	}
}

// What is text stays text, whatever it looks like.
func TestTextIsQuoted(t *testing.T) {
	text := mustRender(t, storage, "{imagePullSecrets: [\"123\", \"true\"], priorityClassName: \"1e3\"}")
	for _, want := range []string{"- name: \"123\"", "- name: \"true\"", "priorityClassName: \"1e3\""} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not there", want)
		}
	}
}

// Each value is explained, and in the schema.
func TestValuesAreExplained(t *testing.T) {
	c := load(t)
	text, err := os.ReadFile(filepath.Join(charted, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]any `json:"properties"`
	}
	if err := yaml.Unmarshal(c.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for name := range c.Values {
		if schema.Properties[name] == nil {
			t.Errorf("%s is not in the schema", name)
		}
		if !strings.Contains(string(text), "\n"+name+":") {
			t.Errorf("%s is not seen in values.yaml", name)
		}
	}
	for name := range schema.Properties {
		if _, ok := c.Values[name]; !ok && name != "global" {
			t.Errorf("%s of the schema has no default", name)
		}
	}
}

func TestHelmLintHasNothingToSay(t *testing.T) {
	for _, m := range lint.AllWithKubeVersion(charted, map[string]any{}, storage, nil).Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}

// The Prometheus Operator's own types read the ServiceMonitor: its CRD is in no
// API server of these tests.
func TestServiceMonitorIsOne(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deploy, "components", "servicemonitor", "servicemonitor.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var monitor monitoringv1.ServiceMonitor
	if err := yaml.UnmarshalStrict(text, &monitor); err != nil {
		t.Fatal(err)
	}
	if monitor.APIVersion != monitoringv1.SchemeGroupVersion.String() || monitor.Kind != monitoringv1.ServiceMonitorsKind {
		t.Errorf("%s %s", monitor.APIVersion, monitor.Kind)
	}
	if len(monitor.Spec.Endpoints) != 1 || monitor.Spec.Endpoints[0].Path != "/metrics" || monitor.Spec.Endpoints[0].Interval == "" {
		t.Errorf("endpoints %+v", monitor.Spec.Endpoints)
	}
	service := objects(t, kustomize(t))["Service "+storage+"/istio-citadel"]
	labels := service["metadata"].(map[string]any)["labels"].(map[string]any)
	for key, value := range monitor.Spec.Selector.MatchLabels {
		if labels[key] != value {
			t.Errorf("it selects %s=%s, the Service has %v", key, value, labels)
		}
	}
	ports := service["spec"].(map[string]any)["ports"].([]any)
	if !slices.ContainsFunc(ports, func(p any) bool { return p.(map[string]any)["name"] == monitor.Spec.Endpoints[0].Port }) {
		t.Errorf("the Service has no port %s: %v", monitor.Spec.Endpoints[0].Port, ports)
	}
}
