package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"citadel/secretcontroller"
)

// manifest is a document of deploy/.
type manifest struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Metadata   metav1.ObjectMeta   `json:"metadata"`
	Rules      []rbacv1.PolicyRule `json:"rules"`
}

// manifests reads those that the pattern finds below deploy/.
func manifests(t *testing.T, pattern string) []manifest {
	t.Helper()
	names, err := filepath.Glob("../../deploy/" + pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("manifests: %v (%v)", names, err)
	}
	var all []manifest
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for part := range bytes.SplitSeq(text, []byte("\n---\n")) {
			var m manifest
			if err := yaml.Unmarshal(part, &m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, m)
		}
	}
	return all
}

// ofRules takes rules apart, as single does rights.
func ofRules(rules []rbacv1.PolicyRule) []string {
	var out []string
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					out = append(out, ofRights([]right{{group, resource, name, rule.Verbs}})...)
				}
			}
		}
	}
	return out
}

func ofRights(rights []right) []string {
	var out []string
	for _, attributes := range single(rights, "") {
		out = append(out, describeRight(attributes))
	}
	return out
}

// TestRightsAreThoseOfTheManifests: check asks for what deploy/ gives, no more
// and no less.
func TestRightsAreThoseOfTheManifests(t *testing.T) {
	for _, c := range []struct {
		file, kind, name string
		rights           []right
	}{
		{"rbac.yaml", "ClusterRole", "istio-citadel", slices.Concat(clusterRights, spaceRights)},
		{"rbac.yaml", "Role", "istio-citadel", storageRights},
		{"components/one-namespace/rbac.yaml", "Role", "istio-citadel-listened", spaceRights},
		{"components/one-namespace/rbac.yaml", "Role", "istio-citadel-storage", storageExtra},
	} {
		var given []string
		for _, m := range manifests(t, c.file) {
			if m.Kind == c.kind && m.Metadata.Name == c.name {
				given = append(given, ofRules(m.Rules)...)
			}
		}
		want := ofRights(c.rights)
		slices.Sort(given)
		slices.Sort(want)
		if !slices.Equal(given, want) {
			t.Errorf("%s %s of %s gives\n%s\ncheck asks for\n%s", c.kind, c.name, c.file, strings.Join(given, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestNeeded: of listed namespaces, rights are asked for in each, and none in
// all.
func TestNeeded(t *testing.T) {
	all := needed(secretcontroller.Scope{StorageNamespace: "mesh"})
	listed := needed(secretcontroller.Scope{StorageNamespace: "mesh", Listed: []string{"a", "b"}})
	count := map[string]int{}
	for _, r := range listed {
		count[r.Namespace]++
	}
	stored, each, wide := len(ofRights(slices.Concat(storageRights, storageExtra))), len(ofRights(spaceRights)), len(ofRights(clusterRights))
	if want := map[string]int{"mesh": stored, "a": each, "b": each}; !maps.Equal(count, want) {
		t.Errorf("asked for %v, want %v", count, want)
	}
	if want := len(ofRights(storageRights)) + each + wide; len(all) != want {
		t.Errorf("%d rights for all namespaces, want %d", len(all), want)
	}
}

// TestInstallRightsAreOfTheManifests: a kind that deploy/ gains must be checked
// before it is installed.
func TestInstallRightsAreOfTheManifests(t *testing.T) {
	for _, m := range manifests(t, "*.yaml") {
		if m.Kind == "Kustomization" {
			continue
		}
		group, _, ok := strings.Cut(m.APIVersion, "/")
		if !ok {
			group = ""
		}
		plural := strings.TrimSuffix(strings.ToLower(m.Kind), "y")
		if plural += "s"; strings.HasSuffix(m.Kind, "y") {
			plural = strings.TrimSuffix(plural, "s") + "ies"
		}
		if !slices.ContainsFunc(installRights, func(r right) bool { return r.group == group && r.resource == plural }) {
			t.Errorf("check --pre does not ask for %s", fmt.Sprint(group, " ", plural))
		}
	}
}

// TestOldestKubernetesIsOneTruth: check, chart and manual say the same.
func TestOldestKubernetesIsOneTruth(t *testing.T) {
	for name, format := range map[string]string{"helm/istio-citadel/Chart.yaml": "kubeVersion: \">=1.%d.0-0\"\n", "UPGRADE.md": "**Kubernetes 1.%d or later**"} {
		text, err := os.ReadFile("../../deploy/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(format, oldestMinor); !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", name, want)
		}
	}
}
