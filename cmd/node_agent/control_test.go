package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"citadel/cmd/internal/daemon"
	"citadel/nodeagent"
	"citadel/nodeagent/policycache"
)

// leftBehind is a socket whose agent has died.
func leftBehind(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestControlSocket(t *testing.T) {
	for name, path := range map[string]string{"of a dead agent": leftBehind(t), "in a folder that is made": filepath.Join(t.TempDir(), "run", "a", "control.sock")} {
		t.Run(name, func(t *testing.T) {
			listener, err := listenControl(path)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o660 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if _, err := listenControl(path); err == nil || err.Error() != "--control-socket: another node_agent answers at "+path {
				t.Errorf("a second agent: %v", err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("it removed the first one's socket: %v", err)
			}
			if err := listener.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is left behind: %v", err)
			}
		})
	}
}

// TestPlacesThatAreTaken: nothing of anybody's is removed.
func TestPlacesThatAreTaken(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(leftBehind(t), link); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		written(t, "mine"): "is no socket, and nothing of ours: move it away, or give another",
		t.TempDir():        "is no socket, and nothing of ours", link: "is no socket, and nothing of ours", pipe: "is no socket, and nothing of ours",
		"/proc/nowhere/control.sock":                        "make its folder: mkdir /proc/nowhere: no such file or directory: give another, or none by --control-socket=",
		filepath.Join(written(t, "mine"), "c", "x.sock"):    "make its folder: ",
		"/proc/self/control.sock":                           "give another, or none by --control-socket=",
		filepath.Join("/tmp", strings.Repeat("a", 120)+"x"): "bind: invalid argument: give another",
	} {
		before, _ := os.Lstat(path)
		listener, err := listenControl(path)
		if err == nil || !strings.HasPrefix(err.Error(), "--control-socket: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", path, listener, err)
		}
		if after, _ := os.Lstat(path); before != nil && (after == nil || !os.SameFile(before, after)) {
			t.Errorf("%s is another now", path)
		}
	}
}

// serves has an agent's control socket served, and returns it.
func serves(t *testing.T, set nodeagent.Settings) (path string, agent *nodeagent.Agent) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	listener, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	agent, ended := nodeagent.New(set), make(chan error, 1)
	go func() {
		ended <- serveControl(ctx, listener, agent, func() status { return status{Status: agent.Status()} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return path, agent
}

// TestControlSocketIsNoWayIn: it answers two questions, and nothing makes it
// end, or hold what somebody sends.
func TestControlSocketIsNoWayIn(t *testing.T) {
	path, _ := serves(t, nodeagent.Settings{})
	send := func(text string) string {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() { _, _ = io.Copy(conn, strings.NewReader(text)) }()
		answer := make([]byte, 4096)
		n, _ := conn.Read(answer) // an error is an empty answer
		line, _, _ := strings.Cut(string(answer[:n]), "\r\n")
		return line
	}
	for text, want := range map[string]string{
		"GET /renew HTTP/1.1\r\nHost: x\r\n\r\n":                                               "HTTP/1.1 405 Method Not Allowed",
		"POST /status HTTP/1.1\r\nHost: x\r\n\r\n":                                             "HTTP/1.1 405 Method Not Allowed",
		"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n":                                       "HTTP/1.1 307 Temporary Redirect",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                                                    "HTTP/1.1 404 Not Found",
		"GET /debug/pprof/ HTTP/1.1\r\nHost: x\r\n\r\n":                                        "HTTP/1.1 404 Not Found",
		"GET /status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20):                  "HTTP/1.1 431 Request Header Fields Too Large",
		"\x16\x03\x01\x00\r\n\r\n":                                                             "HTTP/1.1 400 Bad Request",
		"POST /renew HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n" + "some of it": "HTTP/1.1 200 OK",
		"GET /status HTTP/1.1\r\nHost: x\r\n\r\n":                                              "HTTP/1.1 200 OK",
	} {
		if got := send(text); got != want {
			t.Errorf("%.60q: %s, want %s", text, got, want)
		}
	}
	idle, err := net.Dial("unix", path) // says nothing, and is not waited for at the end
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
}

// TestRenewTellsTheAgent, who is not there in a test of the command.
func TestRenewTellsTheAgent(t *testing.T) {
	h, c := newHost(t), newCitadel(t, 0)
	h.holds(c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stderr := waits("CSR is approved successfully")
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, h.flags(at(c)...), &output{}, stderr) }()
	<-stderr.seen
	first := h.shows()
	var out output
	if code := run(ctx, []string{"renew", "--control-socket", h.path("control.sock")}, &out, &out); code != daemon.ExitOK {
		t.Errorf("code %d: %s", code, &out)
	}
	within(t, func() error {
		if strings.Count(stderr.String(), "CSR is approved successfully") < 2 || h.shows() == first {
			return errors.New("it does not renew")
		}
		return nil
	})
	cancel()
	if code := <-ended; code != daemon.ExitOK || !strings.Contains(stderr.String(), "node_agent stopped") {
		t.Errorf("code %d: %s", code, stderr)
	}
}

// TestAnswersThatAreNoStatus: who answers there may be anybody.
func TestAnswersThatAreNoStatus(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		body string
		want string
	}{
		"an error": {http.StatusTeapot, "", "the agent answers 418 I'm a teapot"},
		"no JSON":  {http.StatusOK, "hello", "the agent's answer: invalid character"},
		"endless":  {http.StatusOK, `{"identity":"` + strings.Repeat("x", 2<<20) + `"}`, "the agent's answer: unexpected end of JSON input"},
		"empty":    {http.StatusOK, "{}", "there is no valid certificate"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		listener, err := listenControl(path)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.code)
			_, _ = io.WriteString(w, c.body) // the client may leave
		}), ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(listener) }()
		var stdout, stderr output
		if code := run(t.Context(), []string{"status", "--control-socket", path}, &stdout, &stderr); code != daemon.ExitFailure || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: code %d, %.200s", name, code, &stderr)
		}
		_ = server.Close()
	}
}

func TestShow(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	err := show(&b, status{Status: nodeagent.Status{Identity: "spiffe://a/b", Serial: "1f", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Second), Roots: 2, CA: "ca:1",
		LastRenewal: now.Add(-time.Hour), RenewedBy: "join token", NextTry: now.Add(90 * time.Second), Failures: 3, LastError: "so", ReloadOwed: true, ReloadError: "no unit"}, Policy: &policycache.Status{Source: policycache.Disk, Version: "ab.7", Generation: "v1", Objects: 5, Heard: now.Add(-time.Minute), LastError: "no\nroute"},
		Enforcement: &enforcementStatus{Open: 3, Inbound: countsOf{Ended: 5, Refused: 2, HealthChecks: 4}, Listeners: []listenerStatus{
			{Way: "inbound", Address: "0.0.0.0:8443", App: "127.0.0.1:8080", Service: "httpbin.default:8000"}, {Way: "outbound", Address: "127.0.0.1:9000", To: "a.b:80"}, {Way: "socks", Address: "127.0.0.1:1080"}}}}, now)
	want := `Identity:           spiffe://a/b
Serial:             1f
Valid from:         2026-05-01T11:00:00Z (1h0m0s ago)
Valid until:        2026-05-01T11:59:59Z (1s ago)
Roots:              2
CA:                 ca:1
Last renewal:       2026-05-01T11:00:00Z (1h0m0s ago)
  by:               join token
Next renewal:       2026-05-01T12:01:30Z (in 1m30s)
Failures in a row:  3
Last error:         so
Reload:             programs have not been made to read the newest files: no unit
Policy:             ab.7, v1, 5 objects, from the file of the last run, as of 1m0s ago
  last error:       "no\nroute"
Connections:        3 open
  inbound:          5 ended, 2 refused, 4 health checks
  outbound:         0 ended, 0 refused
Listeners:          3
  inbound:          0.0.0.0:8443 to 127.0.0.1:8080 (httpbin.default:8000)
  outbound:         127.0.0.1:9000 to a.b:80
  socks:            127.0.0.1:1080
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, &b)
	}
	for want, s := range map[string]policycache.Status{
		"none: STRICT, and nobody to call": {Source: policycache.None},
		"the CA serves no policy":          {Source: policycache.None, NotServed: true},
		"ab.7, v1, 0 objects, from the file of the last run, as of 3m0s ago; the CA serves no policy now": {Source: policycache.Disk, Version: "ab.7", Generation: "v1", Heard: now.Add(-3 * time.Minute), NotServed: true},
		"ab.7, v1, 5 objects, from the CA, which is watched":                                              {Source: policycache.CA, Version: "ab.7", Generation: "v1", Objects: 5, Watching: true, Heard: now},
		"ab.7, v1, 0 objects, from the CA, as of 3m0s ago":                                                {Source: policycache.CA, Version: "ab.7", Generation: "v1", Heard: now.Add(-3 * time.Minute)},
	} {
		if got := policyLine(&s, now); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
