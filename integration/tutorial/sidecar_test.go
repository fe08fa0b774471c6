package tutorial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestComponent: every kind that runs Pods for long gets the sidecar, by Secret if
// it is told to, and what a site says itself counts.
func TestComponent(t *testing.T) {
	dir := t.TempDir()
	sidecar, err := filepath.Rel(dir, filepath.Join(world.checkout, "deploy/sidecar"))
	if err != nil {
		t.Fatal(err)
	}
	const kinds = "Deployment StatefulSet DaemonSet"
	apps := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sidecar-service-account, annotations: {config.kubernetes.io/local-config: \"true\"}}\ndata: {name: web.shop}\n"
	for kind := range strings.FieldsSeq(kinds) {
		apps += "---\napiVersion: apps/v1\nkind: " + kind + "\nmetadata: {name: web}\nspec: {template: {spec: {initContainers: [{name: own, image: own}], containers: [{name: web, image: web}]}}}\n"
	}
	files := map[string]string{"apps.yaml": apps, "kustomization.yaml": `resources: [apps.yaml]
components: [` + sidecar + `, ` + sidecar + `/from-secret]
images: [{name: node_agent, newName: registry.example.org/agent, newTag: v1}]
patches:
- target: {kind: DaemonSet}
  patch: |
    - op: replace
      path: /spec/template/metadata/annotations/citadel~1node-agent
      value: "enforce: {socks: 127.0.0.1:1080}"
`}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := world.kubectl(t.Context(), "kustomize", dir)
	if err != nil {
		t.Fatal(err)
	}
	for kind := range strings.FieldsSeq(kinds) {
		at := strings.Index(out, "kind: "+kind)
		text, _, _ := strings.Cut(out[max(at, 0):], "\n---\n")
		redirect, proxy, own := strings.Index(text, "name: citadel-redirect"), strings.Index(text, "name: istio-proxy"), strings.Index(text, "name: own")
		if at < 0 || redirect < 0 || redirect > proxy || proxy > own {
			t.Errorf("%s: the init containers are not in order: %s", kind, text)
		}
		for want, n := range map[string]int{"image: registry.example.org/agent:v1": 2, "secretName: istio.web.shop": 1, "security.istio.io/tlsMode: istio": 1,
			"--adopt-from=": 1, "serviceAccountToken": 0, "citadel-token": 0, "--token-file": 0} {
			if got := strings.Count(text, want); got != n {
				t.Errorf("%s has %q %d times, not %d: %s", kind, want, got, n, text)
			}
		}
		if own := strings.Contains(text, "socks: 127.0.0.1:1080"); own != (kind == "DaemonSet") {
			t.Errorf("%s is configured as %s", kind, text)
		}
	}
}
