package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// manifest is a document of deploy/.
type manifest struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Rules      []rbacv1.PolicyRule `json:"rules"`
}

func deployed(t *testing.T) []manifest {
	t.Helper()
	names, err := filepath.Glob("../../deploy/*.yaml")
	if err != nil || len(names) < 3 {
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
			if m.Kind != "Kustomization" {
				all = append(all, m)
			}
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
	for kind, rights := range map[string][]right{"ClusterRole": slices.Concat(clusterRights, spaceRights), "Role": storageRights} {
		var given []string
		for _, m := range deployed(t) {
			if m.Kind == kind {
				given = append(given, ofRules(m.Rules)...)
			}
		}
		want := ofRights(rights)
		slices.Sort(given)
		slices.Sort(want)
		if !slices.Equal(given, want) {
			t.Errorf("%s gives\n%s\ncheck asks for\n%s", kind, strings.Join(given, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestInstallRightsAreOfTheManifests: a kind that deploy/ gains must be checked
// before it is installed.
func TestInstallRightsAreOfTheManifests(t *testing.T) {
	for _, m := range deployed(t) {
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
