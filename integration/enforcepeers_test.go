package integration

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"citadel/integration/cluster"
)

// TestOtherPeers: openssl takes the place of a sidecar on either side, as one of
// another make would: it wants a client certificate of the mesh, and checks the
// names that sidecars send.
func TestOtherPeers(t *testing.T) {
	t.Parallel()
	e := newEnforced(t)
	direct := net.JoinHostPort(addressOfServer, strconv.Itoa(e.port))
	port := must(cluster.FreePort())(t)
	files := e.join(t, "mesh", "httpbin", fmt.Sprintf(`{socks: "127.0.0.1:%d"}`, must(cluster.FreePort())(t))).host
	client := e.join(t, "vm", "sleep", fmt.Sprintf(`{outbound: [{listen: "127.0.0.1:%d", to: "httpbin.mesh:8000"}]}`, port))
	fixed := fmt.Sprintf("http://127.0.0.1:%d/", port)

	server := func(t *testing.T, flags ...string) (stop func() string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_server", "-accept", direct, "-www", "-cert", files.path("certs", "cert-chain.pem"), "-key", files.path("certs", "key.pem"),
			"-CAfile", files.path("certs", "root-cert.pem"), "-Verify", "3", "-verify_return_error", "-tlsextdebug"}, flags...)...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, patience, func() error {
			c, err := net.Dial("tcp", direct)
			if err == nil {
				c.Close()
			}
			return err
		})
		return func() string { cancel(); _ = cmd.Wait(); return out.String() }
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		stop := server(t, version, "-alpn", "istio-http/1.1,istio", "-servername", "outbound_.8000_._.httpbin.mesh", "-servername_fatal",
			"-cert2", files.path("certs", "cert-chain.pem"), "-key2", files.path("certs", "key.pem"))
		page, err := get(fixed)
		out := stop()
		if err != nil || !strings.Contains(page, "spiffe://cluster.local/ns/vm/sa/sleep") && !strings.Contains(page, "Verify return code: 0 (ok)") {
			t.Errorf("%s: openssl as the server: %v\n%s\n%s", version, err, page, out)
		}
		if alpn := offered(out); !strings.HasSuffix(alpn, "\x0eistio-http/1.1\x05istio\x08http/1.1") {
			t.Errorf("%s: the protocols that are offered are %q", version, alpn)
		}
	}
	// a server of the mesh that knows no TLS above 1.1, one that is not behind the service, one without TLS
	for what, flags := range map[string][]string{
		"TLS 1.1": {"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"},
		"another": {"-cert", client.host.path("certs", "cert-chain.pem"), "-key", client.host.path("certs", "key.pem")},
	} {
		stop := server(t, flags...)
		if page, err := get(fixed); err == nil {
			t.Errorf("%s: it was taken: %s", what, page)
		}
		stop()
	}
	plain := &http.Server{Addr: direct}
	go func() { _ = plain.ListenAndServe() }()
	within(t, patience, func() error { _, err := http.Get("http://" + direct); return err })
	if page, err := get(fixed); err == nil {
		t.Errorf("a server without TLS was taken: %s", page)
	}
	plain.Close()
	for _, reason := range []string{"reason=wrong_identity", "reason=tls_refused"} {
		within(t, patience, func() error {
			if !strings.Contains(client.read(t), reason) {
				return errors.New("the log has no " + reason)
			}
			return nil
		})
	}
}

// offered finds the protocols of a ClientHello in what openssl s_server
// -tlsextdebug prints.
func offered(out string) string {
	_, rest, _ := strings.Cut(out, "application layer protocol negotiation\" (id=16)")
	_, rest, _ = strings.Cut(rest, "\n")
	var text []byte
	for line := range strings.Lines(rest) {
		if len(line) < 56 || line[4:7] != " - " {
			break
		}
		octets, _ := hex.DecodeString(strings.NewReplacer(" ", "", "-", "").Replace(line[7:55]))
		text = append(text, octets...)
	}
	return string(text)
}

// TestOpenSSLComesIn: openssl as the client of an agent.
func TestOpenSSLComesIn(t *testing.T) {
	t.Parallel()
	e := newEnforced(t)
	direct := net.JoinHostPort(addressOfServer, strconv.Itoa(e.port))
	server := e.join(t, "mesh", "httpbin", fmt.Sprintf(`{inbound: [{listen: "%s", app: "%s"}]}`, direct, e.app.Listener.Addr()))
	files := e.join(t, "vm", "sleep", fmt.Sprintf(`{socks: "127.0.0.1:%d"}`, must(cluster.FreePort())(t))).host
	come := func(flags ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", direct, "-servername", "outbound_.8000_._.httpbin.mesh", "-CAfile", files.path("certs", "root-cert.pem"),
			"-verify_return_error", "-ign_eof"}, flags...)...)
		cmd.Stdin = strings.NewReader("GET /of-openssl HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	mine := []string{"-cert", files.path("certs", "cert-chain.pem"), "-key", files.path("certs", "key.pem")}
	for _, c := range []struct {
		flags []string
		want  []string
		not   string
	}{
		{append([]string{"-tls1_3", "-alpn", "istio-http/1.1,istio"}, mine...), []string{"ALPN protocol: istio-http/1.1", "Verification: OK", "/of-openssl"}, ""},
		{append([]string{"-tls1_2", "-alpn", "istio"}, mine...), []string{"ALPN protocol: istio", "/of-openssl"}, ""},
		{append([]string{"-tls1_3"}, mine...), []string{"No ALPN negotiated", "/of-openssl"}, ""},
		{[]string{"-alpn", "istio"}, []string{"alert"}, "200 OK"},
		{append([]string{"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, mine...), []string{"alert protocol version"}, "200 OK"},
	} {
		out := come(c.flags...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q in:\n%s", c.flags, want, out)
			}
		}
		if c.not != "" && strings.Contains(out, c.not) {
			t.Errorf("%v: it was served:\n%s", c.flags, out)
		}
	}
	if log := server.read(t); !strings.Contains(log, "reason=no_client_cert") || !strings.Contains(log, "reason=bad_handshake") {
		t.Errorf("the log:\n%s", tail(log, 10))
	}
}
