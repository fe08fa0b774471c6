package main

import (
	"os"
	"testing"

	"citadel/ca/policy"
)

// TestStrictBreaksOnlyWhoHasNoSidecar: what README shows of the mesh: strict.yaml
// shuts out sleep.legacy, and sleep.default goes on.
func TestStrictBreaksOnlyWhoHasNoSidecar(t *testing.T) {
	var objects []policy.Object
	for _, file := range []string{"mesh.yaml", "strict.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		some, _, err := policy.DecodeDump(file, text)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, some...)
	}
	mesh := policy.New(policy.Auto, objects...)
	for namespace, want := range map[string]policy.Verdict{"default": policy.OK, "legacy": policy.Conflict} {
		q := policy.Query{Client: policy.Client{Namespace: namespace, ServiceAccount: "sleep", Sidecar: namespace == "default"},
			Server: policy.Server{Host: "httpbin.default.svc.cluster.local", Port: 8000}}
		if e := mesh.Resolve(q).Explain(); e.Verdict != want {
			t.Errorf("sleep.%s: %s, want %s: %+v", namespace, e.Verdict, want, e)
		}
	}
}
