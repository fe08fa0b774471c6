package integration

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"citadel/ca/caclient"
	"citadel/nodeagent"
	"citadel/nodeagent/certdir"
)

// host is where a node agent runs: folders of its own.
type host struct {
	dir  string
	runs int
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{dir: t.TempDir()}
	for _, name := range []string{"certs", "state", "run"} {
		if err := os.Mkdir(h.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *host) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

func (h *host) certs() certdir.Dir {
	return certdir.Dir{Key: h.path("certs", "key.pem"), Chain: h.path("certs", "cert-chain.pem"), Roots: h.path("certs", "root-cert.pem"), UID: -1, GID: -1}
}

// agent is a node agent that runs.
type agent struct {
	host *host
	cmd  *exec.Cmd
	log  string
}

// start runs the agent with the host's folders. It ends with the test.
func (h *host) start(t *testing.T, flags ...string) *agent {
	t.Helper()
	h.runs++
	a := &agent{host: h, log: h.path(fmt.Sprintf("log-%d", h.runs))}
	out := must(os.Create(a.log))(t)
	defer out.Close() // the process has its own copy
	usual := []string{"--state-dir", h.path("state"), "--control-socket", h.path("run", "control.sock"), "--monitoring-port", "0"}
	a.cmd = exec.Command(nodeAgent, append(usual, flags...)...)
	a.cmd.Env = append(os.Environ(), "CERTS_DIR="+h.path("certs"), "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	a.cmd.Stderr = out
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.stop(t) })
	return a
}

// stop ends the agent in order, once.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	if a.cmd.ProcessState != nil {
		return
	}
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("node_agent: %v\n%s", err, tail(a.read(t), 20))
	}
	if t.Failed() {
		t.Logf("the end of node_agent's log:\n%s", tail(a.read(t), 20))
	}
}

func (a *agent) read(t *testing.T) string { return string(must(os.ReadFile(a.log))(t)) }

// status asks as a person would.
func (a *agent) status(t *testing.T) (nodeagent.Status, error) {
	t.Helper()
	var s nodeagent.Status
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), nodeAgent, "status", "--control-socket", a.host.path("run", "control.sock"), "-o", "json")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(stderr.String())
	}
	if len(out) > 0 {
		return s, errors.Join(json.Unmarshal(out, &s), err)
	}
	return s, err
}

// supplied waits until the host has a valid certificate other than that of a
// serial number, and returns its status.
func (a *agent) supplied(t *testing.T, other string) nodeagent.Status {
	t.Helper()
	var s nodeagent.Status
	within(t, patience, func() (err error) {
		if s, err = a.status(t); err == nil && s.Serial == other {
			err = fmt.Errorf("it still has certificate %s", other)
		}
		return err
	})
	return s
}

// joinText is what a person carries to a host.
func (s *site) joinText(t *testing.T, p *process, roots []*x509.Certificate) string {
	t.Helper()
	_, bearer := s.joinToken(t, time.Now())
	return caclient.Join{Address: fmt.Sprintf("127.0.0.1:%d", p.APIPort), Fingerprints: []string{caclient.Fingerprint(roots[0])}, Bearer: bearer}.Encode()
}

// TestHostIsSupplied: it joins by a token, and then renews by itself, also when
// the token is gone, the CA was restarted, and the agent too.
func TestHostIsSupplied(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.start(t)
	p.serves(t)
	roots := s.roots(t)
	h := newHost(t)
	token := h.path("token")
	if err := os.WriteFile(token, []byte(s.joinText(t, p, roots)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ttl := []string{"--workload-cert-ttl", "10s", "--reload-command", "echo reloaded >>" + h.path("reloads")}
	a := h.start(t, append(ttl, "--join-token-file", token)...)
	first := a.supplied(t, "")
	if want := fmt.Sprintf("spiffe://%s/ns/vm/sa/web", trustDomain); first.Identity != want || first.RenewedBy != "join token" || first.NotAfter.Sub(first.NotBefore) != 10*time.Second+2*time.Minute {
		t.Errorf("%+v", first)
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	second := a.supplied(t, first.Serial)
	if second.RenewedBy != "certificate" || second.Failures != 0 {
		t.Errorf("%+v", second)
	}
	set := must(h.certs().Load())(t)
	if got := set.SVID.Certificates[0].SerialNumber.Text(16); got == first.Serial {
		t.Errorf("the files hold %s", got)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-x509_strict", "-CAfile", h.path("certs", "root-cert.pem"), h.path("certs", "cert-chain.pem")).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
	for file, mode := range map[string]os.FileMode{"key.pem": 0o600, "cert-chain.pem": 0o644, "root-cert.pem": 0o644} {
		if info := must(os.Stat(h.path("certs", file)))(t); info.Mode() != mode {
			t.Errorf("%s has mode %o", file, info.Mode())
		}
	}
	within(t, patience, func() error {
		if text, _ := os.ReadFile(h.path("reloads")); strings.Count(string(text), "reloaded") < 2 {
			return fmt.Errorf("reloads: %q", text)
		}
		return nil
	})
	if log := a.read(t); !strings.Contains(log, "CSR is approved successfully. Will renew cert in ") || strings.Contains(log, "citadel-join") {
		t.Error("the log is not as people know it, or has the token")
	}
	a.stop(t)
	p.stop(t)
	// Away for longer than the certificate lives, and back at another port.
	if wait := time.Until(second.NotAfter) + 15*time.Second; wait > 0 {
		<-time.After(wait)
	}
	p = s.start(t)
	p.serves(t)
	a = h.start(t, append(ttl, "--ca-address", fmt.Sprintf("127.0.0.1:%d", p.APIPort))...)
	if third := a.supplied(t, ""); third.RenewedBy != "expired certificate" || third.Identity != first.Identity {
		t.Errorf("%+v", third)
	}
}

// TestHostOfTheAncestors: key, chain and root were copied to it, and stay good
// files of the same names.
func TestHostOfTheAncestors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	p.serves(t)
	secret := right(t, makeAccount(t, ns, "vm"), s.roots(t))
	h := newHost(t)
	for _, name := range []string{"key.pem", "cert-chain.pem", "root-cert.pem"} {
		if err := os.WriteFile(h.path("certs", name), secret.Data[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := must(h.certs().Load())(t)
	a := h.start(t, "--ca-address", fmt.Sprintf("127.0.0.1:%d", p.APIPort), "--workload-cert-ttl", "24h", "--org", "Juju org", "--env", "onprem", "--platform", "vm")
	got := a.supplied(t, before.SVID.Certificates[0].SerialNumber.Text(16)) // of 19h: it wants 24h
	if got.Identity != before.SVID.ID.String() || got.RenewedBy != "certificate" || got.NotAfter.Sub(got.NotBefore) != 24*time.Hour+2*time.Minute {
		t.Errorf("%+v", got)
	}
	if cmd := exec.CommandContext(t.Context(), nodeAgent, "renew", "--control-socket", h.path("run", "control.sock")); cmd.Run() != nil {
		t.Error("node_agent renew failed")
	}
	a.supplied(t, got.Serial)
}

// text is the status as a person reads it.
func (a *agent) text(t *testing.T) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), nodeAgent, "status", "--control-socket", a.host.path("run", "control.sock")).Output()
	if len(out) > 0 {
		err = nil // 1 says that there is no certificate
	}
	return string(out), err
}
