package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"citadel/cmd/internal/daemon"
)

// output is where a test's citadel writes, from many goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
	wait string
	seen chan struct{} // closed when wait has been written
	once sync.Once
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.text.Write(p)
	if o.seen != nil && strings.Contains(o.text.String(), o.wait) {
		o.once.Do(func() { close(o.seen) })
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// runCitadel runs citadel in this process, without a monitoring port and with
// an API server that does not answer, which flags may change, and stops it when
// it has found that out: exit code 0 means that the flags were accepted.
func runCitadel(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, log := output{}, output{wait: "authority is not loaded yet", seen: make(chan struct{})}
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"--kube-config", nowhere(t), "--monitoring-port=0"}, args...), &out, &log)
	}()
	select {
	case <-log.seen:
		cancel()
		code = <-ended
	case code = <-ended:
	}
	return code, out.String(), log.String()
}

// nowhere is a kubeconfig of an API server that does not answer.
func nowhere(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion": "v1", "kind": "Config", "current-context": "a",
		"clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
		"contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "users": [{"name": "a", "user": {"token": "x"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestStopsWhileTheAPIServerIsAway: it waits for it, tells so, and ends with
// code 0 within 5 s when it is told to.
func TestStopsWhileTheAPIServerIsAway(t *testing.T) {
	for name, args := range map[string][]string{
		"whichever CA there is": {}, "self-signed": {"--self-signed-ca"}, "operator's": {"--self-signed-ca=false"},
		"read only": {"--self-signed-ca", "--read-signing-cert-only"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stderr := output{wait: "authority is not loaded yet", seen: make(chan struct{})}
			ended := make(chan int, 1)
			args := append([]string{"--kube-config", nowhere(t), "--monitoring-port=0"}, args...)
			go func() { ended <- run(ctx, args, &output{}, &stderr) }()
			select {
			case <-stderr.seen:
			case code := <-ended:
				t.Fatalf("ended by itself with code %d: %s", code, stderr.String())
			case <-time.After(20 * time.Second):
				t.Fatalf("it does not tell that it waits: %s", stderr.String())
			}
			begun := time.Now()
			cancel()
			if code := <-ended; code != daemon.ExitOK || time.Since(begun) > 5*time.Second {
				t.Errorf("ended after %s with code %d: %s", time.Since(begun), code, stderr.String())
			}
			if !strings.Contains(stderr.String(), "citadel stopped") || !strings.Contains(stderr.String(), "connection refused") {
				t.Errorf("it said %s", stderr.String())
			}
		})
	}
}

// TestStandardOutputMayBeGone: a reader that has left is an error of a write,
// and does not kill the process.
func TestStandardOutputMayBeGone(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "citadel", "version") // TestMain put it into the path
	cmd.Stdout = writer
	if err := cmd.Run(); err != nil {
		t.Errorf("ended with %v", err)
	}
}
