package secretcontroller

import "testing"

// TestScope is the table of compatibility 2.3.
func TestScope(t *testing.T) {
	label := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	const override, env = "ca.istio.io/override", "ca.istio.io/env"
	for _, c := range []struct {
		name      string
		labels    map[string]string
		yes, no   bool // by default true, by default false
		decidedBy string
	}{
		{"override true", label(override, "true"), true, true, "label " + override},
		{"override true, env other", label(override, "true", env, "other"), true, true, "label " + override},
		{"override false", label(override, "false"), false, false, "label " + override},
		{"override false, env ours", label(override, "false", env, "istio-system"), false, false, "label " + override},
		{"env ours", label(env, "istio-system"), true, true, "label " + env},
		{"env other", label(env, "other"), false, false, "label " + env},
		{"env empty", label(env, ""), false, false, "label " + env},
		{"neither", nil, true, false, "default"},
		{"labels of others", label("istio-injection", "enabled"), true, false, "default"},
		{"override of another value falls through", label(override, "TRUE"), true, false, "default"},
		{"and then env decides", label(override, "yes", env, "other"), false, false, "label " + env},
	} {
		for byDefault, want := range map[bool]bool{true: c.yes, false: c.no} {
			s := Scope{StorageNamespace: "istio-system", EnabledByDefault: byDefault}
			if got, why := s.Manages("web", c.labels); got != want || why != c.decidedBy {
				t.Errorf("%s, default %v: %v by %s; want %v by %s", c.name, byDefault, got, why, want, c.decidedBy)
			}
			s.Listed = []string{"web", "api"}
			if got, _ := s.Manages("web", c.labels); !got {
				t.Errorf("%s, default %v: a listed namespace is not managed: labels must not be looked at", c.name, byDefault)
			}
			if got, why := s.Manages("other", c.labels); got || why != "listened namespaces" {
				t.Errorf("%s, default %v: a namespace off the list is managed: %v by %s", c.name, byDefault, got, why)
			}
		}
	}
}

func TestZeroScopeManagesNothing(t *testing.T) {
	if got, _ := (Scope{}).Manages("web", nil); got {
		t.Error("managed")
	}
}

func TestNamespacesWithoutRoots(t *testing.T) { // compatibility 3.7
	for namespace, want := range map[string]bool{
		"default": true, "istio-system": true, "kube-system": true,
		"kube-public": false, "kube-node-lease": false, "local-path-storage": false,
	} {
		if DistributesRoots(namespace) != want {
			t.Errorf("%s gets the roots: %v", namespace, !want)
		}
	}
}
