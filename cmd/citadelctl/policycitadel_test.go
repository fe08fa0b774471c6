package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"citadel/ca/catest"
	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

// TestCitadelServerName: the name of the flag is the one that the citadel's
// certificate is checked for.
func TestCitadelServerName(t *testing.T) {
	dir := t.TempDir()
	f := citadelFlags{citadel: "a:1", serverName: "ca.example.com", rootCert: filepath.Join(dir, "roots"), token: filepath.Join(dir, "token")}
	for path, text := range map[string][]byte{
		f.rootCert: catest.Root(t, time.Now(), catest.Spec{Name: "root"}).PEM(),
		f.token:    []byte("word\n"),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cfg, err := f.config(); err != nil || cfg.ServerName != "ca.example.com" || cfg.Token != "word" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

// TestProblemsOfACitadel: what a citadel has not read is told by kind or object,
// and what is said of it whole.
func TestProblemsOfACitadel(t *testing.T) {
	for text, want := range map[string]unreadKind{
		"Pod is not read: pods is forbidden: User \"x\"": {Kind: "Pod", Why: "pods is forbidden: User \"x\""},
		"ConfigMap istio is not heard of, and what is known of it may be old: dial tcp: refused": {Kind: "ConfigMap istio",
			Why: "not heard of, and what is known of it may be old: dial tcp: refused"},
		"PeerAuthentication/n/p: spec.mtls.mode: unknown value": {Kind: "PeerAuthentication/n/p", Why: "spec.mtls.mode: unknown value"},
		"line 4: PeerAuthentication/n/p: spec: bad":             {Kind: "PeerAuthentication/n/p", Why: "line 4: spec: bad"},
		"ConfigMap istio-system/istio, key mesh:1: MeshConfig: authPolicy: bad": {Kind: "MeshConfig",
			Why: "ConfigMap istio-system/istio, key mesh:1: authPolicy: bad"},
		"Policy/n/p is another object, Policy/default/p, when it is read": {Kind: "Policy/n/p", Why: "is another object, Policy/default/p, when it is read"},
		"what nobody knows": {Kind: "object", Why: "what nobody knows"},
	} {
		if got := parseProblem(text); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

// TestUnseenGoesByTheCitadelsGeneration: an object that a citadel judges by its
// generation is not one that it has not read.
func TestUnseenGoesByTheCitadelsGeneration(t *testing.T) {
	objects, err := policy.Decode("f", []byte("{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: n}, spec: {host: a, exportTo: [x, y]}}"))
	if err != nil {
		t.Fatal(err)
	}
	own := mesh.NewWorld(policy.V1Alpha1, objects)
	var problems []string
	for _, p := range own.Problems() {
		problems = append(problems, p.Error())
	}
	if len(problems) == 0 || len(mesh.NewWorld(policy.V1, objects).Problems()) != 0 {
		t.Fatalf("the object is not judged by generation: %q", problems)
	}
	world := worldOf(policy.V1, policy.V1Alpha1, objects, problems)
	if len(world.unread) != 0 || world.Generation() != policy.V1 {
		t.Errorf("%+v", world.unread)
	}
}
