package integration

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/integration/cluster"
)

// startAlone runs Citadel without Kubernetes, and waits until it is ready.
func startAlone(t *testing.T, dir string, flags ...string) *cluster.Citadel {
	t.Helper()
	log := must(os.Create(filepath.Join(t.TempDir(), "log")))(t)
	t.Cleanup(func() {
		if text := string(must(os.ReadFile(log.Name()))(t)); t.Failed() || strings.Contains(text, "DATA RACE") {
			t.Errorf("the end of citadel's log:\n%s", tail(text, 40))
		}
		log.Close()
	})
	c := must(cluster.StartCitadel(cluster.Run{Binary: raced, Flags: append([]string{"--state-dir", dir}, flags...), Env: []string{"GORACE=halt_on_error=1 atexit_sleep_ms=0"}, Stdout: log, Stderr: log}))(t)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Error(err)
		}
	})
	within(t, patience, func() error {
		code, text, err := c.Get(t.Context(), "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("/readyz answers %d: %s", code, text)
		}
		return err
	})
	return c
}

// tool runs citadelctl, and returns its standard output.
func tool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), citadelctl, args...)
	var stderr strings.Builder
	cmd.Stderr, cmd.Env = &stderr, append(os.Environ(), "KUBECONFIG=nowhere")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// TestWithoutKubernetes: by the two commands that an operator types, a host
// joins; it renews after Citadel was killed and started anew, on another port,
// and no longer once it is banned.
func TestWithoutKubernetes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	c := startAlone(t, dir)
	address := fmt.Sprintf("127.0.0.1:%d", c.APIPort)
	join := must(caclient.ParseJoin(tool(t, "token", "create", "-n", "vm", "--service-account", "web", "--state-dir", dir, "--address", address)))(t)
	cfg := caclient.Config{Address: join.Address, Fingerprints: join.Fingerprints, Token: join.Bearer}
	var issued caclient.Issued
	within(t, patience, func() (err error) { issued, err = sign(t, cfg, "alone"); return err })
	if id := issued.Chain[0].URIs[0].String(); id != "spiffe://cluster.local/ns/vm/sa/web" {
		t.Errorf("issued for %s", id)
	}
	if out := tool(t, "token", "list", "--state-dir", dir); !strings.Contains(out, "0 of 1") {
		t.Errorf("the list says %s", out)
	}
	c.Kill()

	c = startAlone(t, dir)
	cfg = caclient.Config{Address: fmt.Sprintf("127.0.0.1:%d", c.APIPort), Roots: issued.Roots,
		Certificate: &tls.Certificate{Certificate: [][]byte{issued.Chain[0].Raw}, PrivateKey: catest.Key(t, trust.ECDSAP256, "alone")}}
	within(t, patience, func() (err error) { issued, err = sign(t, cfg, "alone again"); return err })
	if !trust.SameRoots(issued.Roots, cfg.Roots) {
		t.Error("another root")
	}
	tool(t, "identity", "ban", "vm/web", "--reason", "stolen", "--state-dir", dir)
	within(t, patience, func() error {
		if _, err := sign(t, cfg, "alone again"); err == nil || !strings.Contains(err.Error(), "is banned (stolen)") {
			return fmt.Errorf("banned: %v", err)
		}
		return nil
	})
}
