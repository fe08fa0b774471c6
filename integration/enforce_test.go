package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"citadel/integration/cluster"
)

// enforced is a Citadel without Kubernetes, whose policy is a file, and an
// application in this process, behind the agent of a host.
type enforced struct {
	state   string
	citadel *cluster.Citadel
	app     *httptest.Server
	port    int // of the service, at addressOfServer
}

// addressOfServer is where policy has the server: one of this machine's own,
// which it knows no other host by.
const addressOfServer = "127.0.0.2"

func newEnforced(t *testing.T) *enforced {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state")
	if err := errors.Join(os.Mkdir(state, 0o700), os.Mkdir(filepath.Join(state, "policy"), 0o700)); err != nil {
		t.Fatal(err)
	}
	e := &enforced{state: state, port: must(cluster.FreePort())(t), app: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))}
	t.Cleanup(e.app.Close)
	e.policy(t, "STRICT", "")
	e.citadel = startAlone(t, state, "--policy")
	return e
}

// policy writes what the mesh says: the server's mode, and more documents.
func (e *enforced) policy(t *testing.T, mode, more string) {
	t.Helper()
	text := fmt.Sprintf(`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: httpbin, namespace: mesh}, spec: {hosts: [httpbin.mesh], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 8000, name: http, protocol: HTTP, targetPort: %d}], workloadSelector: {labels: {app: httpbin}}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: one, namespace: mesh}, spec: {address: %s, serviceAccount: httpbin, labels: {app: httpbin, security.istio.io/tlsMode: istio}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: mesh}, spec: {mtls: {mode: %s}}}
%s`, e.port, addressOfServer, mode, more)
	path := filepath.Join(e.state, "policy", "mesh.yaml")
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// rule is a DestinationRule of the service.
func rule(mode string) string {
	return "---\n{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: way, namespace: mesh}, spec: {host: httpbin.mesh, trafficPolicy: {tls: {mode: " + mode + "}}}}\n"
}

// carrier is a host whose agent carries connections.
type carrier struct {
	*agent
	monitor string // http://HOST:PORT
	flags   []string
}

// runs starts the agent, and waits until it is ready.
func (c *carrier) runs(t *testing.T, h *host) {
	t.Helper()
	c.agent = h.start(t, c.flags...)
	within(t, patience, func() error {
		_, err := get(c.monitor + "/readyz")
		return err
	})
}

// join starts an agent with what stands under key enforce, and waits until it is
// ready.
func (e *enforced) join(t *testing.T, namespace, account, enforce string) *carrier {
	t.Helper()
	h := newHost(t)
	token := tool(t, "token", "create", "-n", namespace, "--service-account", account, "--state-dir", e.state, "--address", fmt.Sprintf("127.0.0.1:%d", e.citadel.APIPort))
	port := must(cluster.FreePort())(t)
	config := writeFile(t, "config.yaml", []byte(fmt.Sprintf("join-token-file: %s\nenforce: %s\n", writeFile(t, "token", []byte(token)), enforce)))
	c := &carrier{monitor: fmt.Sprintf("http://127.0.0.1:%d", port), flags: []string{"--config", config, "--monitoring-port", strconv.Itoa(port)}}
	c.runs(t, h)
	return c
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("%s: %s", resp.Status, body))
	}
	return string(body), err
}

// curl is what a person sees: its exit code, and the status of the answer.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "curl", append([]string{"-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
	out, err := cmd.Output()
	if exit, is := errors.AsType[*exec.ExitError](err); is {
		return fmt.Sprintf("exit %d", exit.ExitCode())
	}
	return string(must(out, err)(t))
}

// TestEnforcement: two hosts, curl as it is, and a policy that changes under it.
func TestEnforcement(t *testing.T) {
	t.Parallel()
	e := newEnforced(t)
	direct := fmt.Sprintf("%s:%d", addressOfServer, e.port)
	server := e.join(t, "mesh", "httpbin", fmt.Sprintf(`{inbound: [{listen: "%s", app: "%s"}], healthChecks: [{from: [127.0.0.9], port: %d, path: /healthz}]}`, direct, e.app.Listener.Addr(), e.port))
	var ports [3]int
	for i := range ports {
		ports[i] = must(cluster.FreePort())(t)
	}
	accessLog := filepath.Join(t.TempDir(), "access.log")
	client := e.join(t, "vm", "sleep", fmt.Sprintf(`{socks: "127.0.0.1:%d", httpProxy: "127.0.0.1:%d", outbound: [{listen: "127.0.0.1:%d", to: "httpbin.mesh:8000"}], accessLog: %s}`, ports[0], ports[1], ports[2], accessLog))
	socks, proxy, fixed := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1]), fmt.Sprintf("127.0.0.1:%d", ports[2])
	calls := map[string][]string{
		"plain":        {"http://" + direct + "/ip"},
		"foreign TLS":  {"-k", "https://" + direct + "/ip"},
		"health check": {"--interface", "127.0.0.9", "http://" + direct + "/healthz"},
		"more of it":   {"--interface", "127.0.0.9", "http://" + direct + "/admin"},
		"SOCKS":        {"--socks5-hostname", socks, "http://httpbin.mesh:8000/ip"},
		"address":      {"--socks5", socks, "http://" + direct + "/ip"},
		"CONNECT":      {"-p", "-x", proxy, "http://httpbin.mesh:8000/ip"},
		"fixed":        {"http://" + fixed + "/ip"},
		"fixed https":  {"-k", "https://" + fixed + "/ip"},
		"GET by proxy": {"-x", proxy, "http://httpbin.mesh:8000/ip"},
		"elsewhere":    {"--socks5-hostname", socks, e.app.URL},
		"nobody":       {"--socks5-hostname", socks, "http://127.0.0.1:9/"},
	}
	becomes := func(what string, want map[string]string) {
		t.Helper()
		for name, code := range want {
			within(t, patience, func() error {
				if got := curl(t, calls[name]...); got != code {
					return fmt.Errorf("%s: %s: %s, want %s", what, name, got, code)
				}
				return nil
			})
		}
	}
	becomes("STRICT", map[string]string{"plain": "exit 56", "foreign TLS": "exit 35", "health check": "200", "more of it": "exit 56", "SOCKS": "200", "address": "200", "CONNECT": "200",
		"fixed": "200", "GET by proxy": "405", "elsewhere": "200", "nobody": "exit 97"})

	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	living := keepAlive(t, transport, "http://"+fixed)
	living(t)
	for _, step := range []struct {
		mode, more string
		want       map[string]string
	}{
		{"PERMISSIVE", "", map[string]string{"plain": "200", "SOCKS": "200", "fixed": "200"}},
		{"DISABLE", "", map[string]string{"plain": "200", "SOCKS": "200", "fixed": "200"}},
		{"DISABLE", rule("ISTIO_MUTUAL"), map[string]string{"plain": "200", "SOCKS": "exit 97", "CONNECT": "exit 56", "fixed": "exit 56", "fixed https": "exit 35"}},
		{"STRICT", rule("DISABLE"), map[string]string{"plain": "exit 56", "SOCKS": "exit 56", "fixed": "exit 56", "fixed https": "exit 35"}},
		{"STRICT", "", map[string]string{"plain": "exit 56", "SOCKS": "200", "fixed": "200"}},
	} {
		e.policy(t, step.mode, step.more)
		becomes(step.mode+" "+step.more, step.want)
		living(t)
	}
	for _, c := range []*carrier{server, client} {
		before := c.supplied(t, "")
		if out, err := exec.CommandContext(t.Context(), nodeAgent, "renew", "--control-socket", c.host.path("run", "control.sock")).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		c.supplied(t, before.Serial)
		becomes("with another certificate", map[string]string{"SOCKS": "200"})
		living(t)
	}

	for of, want := range map[*carrier][]string{
		server: {`citadel_agent_health_checks_total{reason=""} `, `citadel_agent_connections_total{direction="inbound",mode="STRICT",reason="plain_text",service="httpbin.mesh:8000",way=""} `,
			`citadel_agent_handshakes_total{direction="inbound",result="no_client_cert"} `, `citadel_agent_handshakes_total{direction="inbound",result="ok"} `, `citadel_agent_policy_info{generation="v1"`},
		client: {`citadel_agent_connections_total{direction="outbound",mode="ISTIO_MUTUAL",reason="",service="httpbin.mesh:8000",way="mtls"} `, `citadel_agent_connections_total{direction="outbound",mode="ISTIO_MUTUAL",reason="tls_refused",service="httpbin.mesh:8000",way=""} `,
			`citadel_agent_connections_total{direction="outbound",mode="",reason="",service="unknown",way="unknown"} `, `citadel_agent_connections_open 1`, `citadel_agent_connection_bytes_total{direction="outbound",flow="out",mode="ISTIO_MUTUAL",reason="",service="httpbin.mesh:8000"} `},
	} {
		for _, w := range want {
			within(t, patience, func() error {
				if text, err := get(of.monitor + "/metrics"); err != nil || !strings.Contains(text, w) {
					return fmt.Errorf("no metric %s: %v", w, err)
				}
				return nil
			})
		}
	}
	if text := must(server.text(t))(t); !strings.Contains(text, "health checks") || !strings.Contains(text, direct+" to "+e.app.Listener.Addr().String()) {
		t.Errorf("status:\n%s", text)
	}
	if log := server.read(t); !strings.Contains(log, `msg="connection refused" direction=inbound`) || !strings.Contains(log, "reason=plain_text") || !strings.Contains(log, `fix="give the client a proxy of the mesh; or add a PeerAuthentication to namespace mesh that selects the workloads of ServiceEntry/mesh/httpbin`) || !strings.Contains(log, "health check let in without a certificate") {
		t.Errorf("the server's log:\n%s", tail(log, 20))
	}
	if log := client.read(t); !strings.Contains(log, "reason=tls_refused") || !strings.Contains(log, `fix="add a PeerAuthentication to namespace mesh`) ||
		!strings.Contains(log, `or set tls mode DISABLE in DestinationRule/mesh/way"`) || !strings.Contains(log, `fix="set tls mode ISTIO_MUTUAL in DestinationRule/mesh/way"`) {
		t.Errorf("the client's log:\n%s", tail(log, 20))
	}
	if log := string(must(os.ReadFile(accessLog))(t)); !strings.Contains(log, "way=mtls peer=spiffe://cluster.local/ns/mesh/sa/httpbin") {
		t.Errorf("the access log:\n%s", tail(log, 5))
	}
	if err := e.citadel.Stop(); err != nil {
		t.Errorf("citadel: %v", err)
	}
	transport.CloseIdleConnections()
	server.stop(t)
	server.runs(t, server.host)
	living = keepAlive(t, transport, "http://"+fixed)
	becomes("without a citadel, after a restart", map[string]string{"plain": "exit 56", "SOCKS": "200", "fixed": "200"})
	living(t)
	drains(t, client, fixed, living)
	transport.CloseIdleConnections()
	if err := client.cmd.Wait(); err != nil {
		t.Errorf("after a stop: %v", err)
	}
}

// keepAlive returns a function that asks on one connection, always the same.
func keepAlive(t *testing.T, transport *http.Transport, url string) func(*testing.T) {
	t.Helper()
	first := true
	return func(t *testing.T) {
		t.Helper()
		request := must(http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			if info.Reused == first {
				t.Errorf("reused %v, first %v: a connection did not live on", info.Reused, first)
			}
		}}), http.MethodGet, url+"/living", nil))(t)
		resp, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body := must(io.ReadAll(resp.Body))(t); string(body) != "/living" {
			t.Errorf("%s: %s", resp.Status, body)
		}
		first = false
	}
}

// drains: after a stop nobody new is taken, and who is there may end.
func drains(t *testing.T, c *carrier, address string, living func(*testing.T)) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("connections are taken after the stop")
	})
	living(t)
	if text := must(c.text(t))(t); !strings.Contains(text, "Connections:") || !strings.Contains(text, "1 open") {
		t.Errorf("while it drains, status says:\n%s", text)
	}
}

// TestEnforcementWithoutPolicy: nobody comes in plain, nobody is called, and the
// agent is not ready.
func TestEnforcementWithoutPolicy(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var ports [3]int
	for i := range ports {
		ports[i] = must(cluster.FreePort())(t)
	}
	config := writeFile(t, "config.yaml", []byte(fmt.Sprintf(`ca-address: 127.0.0.1:9
enforce:
  inbound: [{listen: "127.0.0.1:%d", app: "127.0.0.1:9"}]
  httpProxy: 127.0.0.1:%d
`, ports[1], ports[2])))
	a := h.start(t, "--config", config, "--monitoring-port", strconv.Itoa(ports[0]))
	inbound, proxy := fmt.Sprintf("127.0.0.1:%d", ports[1]), fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	within(t, patience, func() error {
		if got := curl(t, "http://"+inbound); got != "exit 56" {
			return fmt.Errorf("plain text: %s", got)
		}
		return nil
	})
	transport := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return url.Parse(proxy) }}
	defer transport.CloseIdleConnections()
	_, err := transport.RoundTrip(must(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://anybody:1", nil))(t))
	if err == nil || err.Error() != "Service Unavailable" {
		t.Errorf("a call: %v", err)
	}
	if _, err := get(fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[0])); err == nil {
		t.Error("it is ready")
	}
	within(t, patience, func() error {
		if log := a.read(t); !strings.Contains(log, "level=WARN msg=\"there is no policy yet: until the CA sends one, this host's services are STRICT") || !strings.Contains(log, "reason=no_policy") {
			return fmt.Errorf("the log:\n%s", log)
		}
		return nil
	})
	a.stop(t)

	other := must(net.Listen("tcp", inbound))(t)
	defer other.Close()
	cmd := exec.CommandContext(t.Context(), nodeAgent, "--config", config, "--state-dir", h.path("state"), "--control-socket", h.path("run", "control.sock"))
	cmd.Env = append(os.Environ(), "CERTS_DIR="+h.path("certs"))
	out, err := cmd.CombinedOutput()
	if exit, is := errors.AsType[*exec.ExitError](err); !is || exit.ExitCode() != 1 || !strings.Contains(string(out), "enforce.inbound[0]: listen tcp4 "+inbound+": bind: address already in use") {
		t.Errorf("a port that is taken: %v\n%s", err, out)
	}
}
