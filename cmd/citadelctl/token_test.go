package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/authn"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/secretcontroller"
)

// citadelctl runs the command in the world.
func (w *world) citadelctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, messages bytes.Buffer
	code = run(t.Context(), w.pointed(t, args), &out, &messages)
	return code, out.String(), messages.String()
}

// pointed is the arguments with a kubeconfig of the world's.
func (w *world) pointed(t *testing.T, args []string) []string {
	t.Helper()
	url, _ := w.serve(t)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: here, contexts: [{name: here, context: {cluster: here, user: admin}}], users: [{name: admin, user: {token: admin}}],
clusters: [{name: here, cluster: {server: "` + url + `", insecure-skip-tls-verify: true}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return append(slices.Clone(args), "--kubeconfig", path)
}

// stored is the token that a new Secret holds.
func (w *world) stored(t *testing.T, before int) authn.JoinToken {
	t.Helper()
	if len(w.secrets) != before+1 {
		t.Fatalf("%d Secrets more", len(w.secrets)-before)
	}
	secret := w.secrets[before]
	var token authn.JoinToken
	if err := json.Unmarshal(secret.Data["token.json"], &token); err != nil {
		t.Fatal(err)
	}
	if secret.Name != kube.JoinTokenPrefix+token.ID || secret.Type != kube.JoinTokenType {
		t.Errorf("stored as %s of type %s", secret.Name, secret.Type)
	}
	return token
}

// TestTokenCreate: what is printed and what is stored belong together, and the
// secret is nowhere else.
func TestTokenCreate(t *testing.T) {
	w := newMeshWorld(t)
	other := catest.SelfSigned(t, time.Now(), catest.TrustDomain)
	for n := range w.configMaps { // in the middle of a change of roots
		if w.configMaps[n].Namespace == "istio-system" && w.configMaps[n].Name == secretcontroller.RootsConfigMap {
			w.configMaps[n].Data[secretcontroller.RootsKey] += string(other.RootsPEM())
		}
	}
	before := len(w.secrets)
	code, stdout, stderr := w.citadelctl(t, "token", "create", "-n", "vm", "--service-account", "web", "--ttl", "30m", "--uses", "3", "--address", "ca.example.org:443")
	if code != 0 || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("exits with %d:\n%s%s", code, stdout, stderr)
	}
	join, err := caclient.ParseJoin(stdout)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{caclient.Fingerprint(w.root.Cert()), caclient.Fingerprint(other.Cert())}
	if join.Address != "ca.example.org:443" || !slices.Equal(join.Fingerprints, want) {
		t.Errorf("joins at %s by %v", join.Address, join.Fingerprints)
	}
	token := w.stored(t, before)
	id, secret, _ := strings.Cut(strings.TrimPrefix(join.Bearer, "citadel-join."), ".")
	hash := sha256.Sum256([]byte(secret))
	if token.ID != id || token.Hash != hex.EncodeToString(hash[:]) || token.Namespace != "vm" || token.ServiceAccount != "web" || token.Uses != 3 || token.Expires.Sub(token.Created) != 30*time.Minute {
		t.Errorf("stored %+v", token)
	}
	for _, text := range []string{stderr, string(w.secrets[before].Data["token.json"])} {
		if strings.Contains(text, secret) || strings.Contains(text, strings.TrimSpace(stdout)) || strings.Contains(text, join.Bearer) {
			t.Errorf("the secret is in: %s", text)
		}
	}
	if strings.Contains(stderr, token.Hash) {
		t.Error("the hash is told")
	}
}

// TestTokenCreateWhereTheNamespaceIsNotManaged: the ConfigMap of old agents
// holds the issuers too, of which no host is told.
func TestTokenCreateWhereTheNamespaceIsNotManaged(t *testing.T) {
	w := newMeshWorld(t)
	root := catest.Root(t, time.Now(), catest.Spec{Name: "root"})
	issuer := root.Intermediate(t, time.Now(), catest.Spec{Name: "issuer"})
	for n := range w.configMaps {
		if w.configMaps[n].Namespace == "mesh" {
			w.configMaps[n] = legacyRoots("mesh", slices.Concat(issuer.PEM(), root.PEM()))
		}
	}
	_, stdout, stderr := w.citadelctl(t, "token", "create", "-n", "vm", "--service-account", "web", "--address", "a:1", "--citadel-storage-namespace", "mesh")
	join, err := caclient.ParseJoin(stdout)
	if err != nil || !slices.Equal(join.Fingerprints, []string{caclient.Fingerprint(root.Cert)}) {
		t.Errorf("joins by %v, %v: %s", join.Fingerprints, err, stderr)
	}
	w.configMaps = []corev1.ConfigMap{legacyRoots("mesh", []byte("damaged"))}
	code, stdout, stderr := w.citadelctl(t, "token", "create", "-n", "vm", "--service-account", "web", "--address", "a:1", "--citadel-storage-namespace", "mesh")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "ConfigMap mesh/istio-security: caTLSRootCert") {
		t.Errorf("exits with %d: %s", code, stderr)
	}
}

// TestTrustDomainOfTheDeployment counts before that of the roots.
func TestTrustDomainOfTheDeployment(t *testing.T) {
	w := newMeshWorld(t)
	w.deployments[0].Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "CITADEL_TRUST_DOMAIN", Value: "example.org"}}
	if code, _, stderr := w.citadelctl(t, "identity", "ban", "vm/web"); code != 0 || !strings.Contains(stderr, "Banned spiffe://example.org/ns/vm/sa/web") {
		t.Errorf("exits with %d: %s", code, stderr)
	}
	if _, stdout, _ := w.citadelctl(t, "token", "list"); !strings.Contains(stdout, "spiffe://example.org/ns/vm/sa/db") {
		t.Errorf("list:\n%s", stdout)
	}
}

// TestTrustDomainThatNobodyTells is citadel's default where it is told none.
func TestTrustDomainThatNobodyTells(t *testing.T) {
	w := newMeshWorld(t)
	for n := range w.configMaps {
		w.configMaps[n].Data[secretcontroller.RootsKey] = string(catest.Root(t, time.Now(), catest.Spec{Name: "root"}).PEM())
	}
	if code, _, stderr := w.citadelctl(t, "identity", "ban", "vm/web"); code != 0 || !strings.Contains(stderr, "Banned spiffe://cluster.local/ns/vm/sa/web") {
		t.Errorf("exits with %d: %s", code, stderr)
	}
	w.deployments = nil
	if code, _, stderr := w.citadelctl(t, "identity", "ban", "vm/db"); code != 2 || !strings.Contains(stderr, "give it by --trust-domain") {
		t.Errorf("without a Deployment: exits with %d: %s", code, stderr)
	}
}

// TestTokenNobodySaw is taken back.
func TestTokenNobodySaw(t *testing.T) {
	w := newMeshWorld(t)
	before := len(w.secrets)
	var stderr bytes.Buffer
	code := run(t.Context(), w.pointed(t, []string{"token", "create", "-n", "vm", "--service-account", "web"}), full{}, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "write the output: no space") || len(w.secrets) != before {
		t.Errorf("exits with %d, %d Secrets more: %s", code, len(w.secrets)-before, stderr.String())
	}
}

// full is a disk without space.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

// TestListWithADamagedBan: citadel goes by none that is new, and the list says
// so.
func TestListWithADamagedBan(t *testing.T) {
	w := newMeshWorld(t)
	w.configMaps = append(w.configMaps, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: kube.BansConfigMap},
		Data: map[string]string{"bans.json": `{"vm/web": {"reason": "by\u001b[2J hand"}}`}})
	code, stdout, stderr := w.citadelctl(t, "identity", "list")
	if code != 1 || !strings.Contains(stdout, "vm/web   -        by�[2J hand") || !strings.Contains(stderr, "citadel goes by no list with such a one") {
		t.Errorf("exits with %d:\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := w.citadelctl(t, "identity", "ban", "vm/db"); code != 1 || !strings.Contains(stderr, "citadelctl identity unban 'vm/web'") {
		t.Errorf("ban: exits with %d: %s", code, stderr)
	}
	if code, _, stderr := w.citadelctl(t, "identity", "unban", "vm/web"); code != 0 || !strings.Contains(stderr, "Lifted the ban of vm/web (by") {
		t.Errorf("unban: exits with %d: %s", code, stderr)
	}
	w.configMaps[len(w.configMaps)-1].Data["bans.json"] = "{"
	if code, _, stderr := w.citadelctl(t, "identity", "list"); code != 1 || !strings.Contains(stderr, "ConfigMap istio-system/istio-citadel-bans, key bans.json, is damaged") {
		t.Errorf("list: exits with %d: %s", code, stderr)
	}
}

// TestRevokeIsInterrupted while standard input is silent.
func TestRevokeIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	if code := run(ctx, newMeshWorld(t).pointed(t, []string{"token", "revoke", "00000000aa"}), full{}, &stderr); code != 1 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exits with %d: %s", code, stderr.String())
	}
}
