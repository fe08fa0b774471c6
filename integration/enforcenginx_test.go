package integration

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"citadel/integration/cluster"
)

// TestNginxIsTold: nginx, which reads the PROXY header of an agent, knows the
// address of its client, and that to which the client came.
func TestNginxIsTold(t *testing.T) {
	t.Parallel()
	e := newEnforced(t)
	app := net.JoinHostPort("127.0.0.1", strconv.Itoa(must(cluster.FreePort())(t)))
	serveNginx(t, app, "proxy_protocol", `location / { return 200 "$proxy_protocol_addr of $proxy_protocol_server_addr:$proxy_protocol_server_port"; }`)
	direct := net.JoinHostPort(addressOfServer, strconv.Itoa(e.port))
	port := must(cluster.FreePort())(t)
	e.join(t, "mesh", "httpbin", fmt.Sprintf(`{inbound: [{listen: "%s", app: "%s", proxyProtocol: true}]}`, direct, app))
	e.join(t, "vm", "sleep", fmt.Sprintf(`{outbound: [{listen: "127.0.0.1:%d", to: "httpbin.mesh:8000"}]}`, port))
	said, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if _, to, _ := strings.Cut(said, " of "); err != nil || to != direct || net.ParseIP(strings.TrimSuffix(said, " of "+direct)) == nil {
		t.Errorf("nginx says %q, %v; its client came to %s", said, err, direct)
	}
	// who comes to nginx itself, and not through an agent, is refused: it has no header
	if page, err := get("http://" + app); err == nil {
		t.Errorf("without a header: %s", page)
	}
}

// serveNginx runs nginx with one server until the test ends. It listens when this
// returns.
func serveNginx(t *testing.T, at, how, server string) {
	t.Helper()
	dir := t.TempDir()
	config := writeFile(t, "nginx.conf", []byte(fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2; fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	server { listen %[2]s %[3]s; %[4]s }
}
`, dir, at, how, server)))
	cmd := exec.Command("/usr/sbin/nginx", "-p", dir, "-c", filepath.Clean(config))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
		}
		return err
	})
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was told to end
		if t.Failed() {
			t.Log(out.String())
		}
	})
}
