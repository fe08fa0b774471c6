package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"citadel/integration/cluster"
)

// TestSIGHUP: the agent reads key enforce again, and lives on, with its
// connections, whatever stands there.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	e := newEnforced(t)
	direct := net.JoinHostPort(addressOfServer, strconv.Itoa(e.port))
	says := func(checks string) string {
		return fmt.Sprintf(`{inbound: [{listen: "%s", app: "%s"}], healthChecks: [%s]}`, direct, e.app.Listener.Addr(), checks)
	}
	server := e.join(t, "mesh", "httpbin", says(""))
	port := must(cluster.FreePort())(t)
	e.join(t, "vm", "sleep", fmt.Sprintf(`{outbound: [{listen: "127.0.0.1:%d", to: "httpbin.mesh:8000"}]}`, port))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	living := keepAlive(t, transport, fmt.Sprintf("http://127.0.0.1:%d", port))
	config := server.flags[1]
	rewrite := func(enforce string) {
		t.Helper()
		text := must(os.ReadFile(config))(t)
		kept, _, _ := strings.Cut(string(text), "enforce:")
		next := filepath.Join(filepath.Dir(config), "next")
		if err := os.WriteFile(next, []byte(kept+"enforce: "+enforce+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, config); err != nil {
			t.Fatal(err)
		}
		if err := server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	check := fmt.Sprintf("{from: [127.0.0.0/8], port: %d, path: /healthz}", e.port)
	living(t)
	if code := curl(t, "http://"+direct+"/healthz"); code != "exit 56" {
		t.Errorf("a check that nobody lets in: %s", code)
	}
	rewrite(says(check))
	within(t, patience, func() error {
		if code := curl(t, "http://"+direct+"/healthz"); code != "200" {
			return fmt.Errorf("a check that is let in now: %s", code)
		}
		return nil
	})
	living(t)
	rewrite(says("nonsense"))
	within(t, patience, func() error {
		if log := server.read(t); !strings.Contains(log, "all stays as it was") || !strings.Contains(log, "enforce.healthChecks[0]") {
			return fmt.Errorf("the log does not tell:\n%s", tail(log, 5))
		}
		return nil
	})
	if code := curl(t, "http://"+direct+"/healthz"); code != "200" {
		t.Errorf("after a file that is not usable: %s", code)
	}
	rewrite(says(""))
	within(t, patience, func() error {
		if code := curl(t, "http://"+direct+"/healthz"); code != "exit 56" {
			return fmt.Errorf("a check that is not let in any more: %s", code)
		}
		return nil
	})
	living(t)
}
