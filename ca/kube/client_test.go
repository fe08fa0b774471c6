package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"citadel/ca/regular"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
users: [{name: a, user: {token: x}}]
current-context: a
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfig: no client-side rate limit (K-3), protobuf on the wire, our own
// name in the API server's audit log.
func TestConfig(t *testing.T) {
	cfg, err := Config(write(t, kubeconfig), "citadel/test")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.QPS >= 0 || cfg.RateLimiter != nil || cfg.Host != "https://127.0.0.1:1" || cfg.UserAgent != "citadel/test" ||
		cfg.ContentType != "application/vnd.kubernetes.protobuf" || !strings.Contains(cfg.AcceptContentTypes, "application/json") {
		t.Errorf("config %+v", cfg)
	}
	if client, err := Client(cfg); err != nil || client == nil {
		t.Errorf("client: %v", err)
	}
}

func TestConfigErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, c := range map[string]struct{ path, text string }{
		"outside a cluster": {"", "outside a cluster, give --kube-config"},
		"missing":           {missing, "read kubeconfig " + missing + ": no such file or directory"},
		"a folder":          {t.TempDir(), ": is a directory"},
		"empty":             {write(t, ""), "read kubeconfig "},
		"garbage":           {write(t, "\x00{"), "read kubeconfig "},
		"a device":          {"/dev/zero", "read kubeconfig /dev/zero: is no regular file"},
		"without end":       {write(t, strings.Repeat(" ", regular.Longest+1)), "is larger than 1048576 bytes"},
		"no such context":   {write(t, strings.ReplaceAll(kubeconfig, "current-context: a", "current-context: b")), "read kubeconfig "},
	} {
		if _, err := Config(c.path, ""); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		} else if c.path != "" && strings.Count(err.Error(), c.path) != 1 {
			t.Errorf("%s names the file more than once: %v", name, err)
		}
	}
}

// TestPathsInAKubeconfig are relative to it, as kubectl reads them.
func TestPathsInAKubeconfig(t *testing.T) {
	path := write(t, strings.ReplaceAll(kubeconfig, "token: x", "tokenFile: token"))
	token := filepath.Join(filepath.Dir(path), "token")
	if err := os.WriteFile(token, []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Config(path, "")
	if err != nil || cfg.BearerTokenFile != token {
		t.Errorf("token file %v (%v)", cfg, err)
	}
}
