package supervisor_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// deadline is for whatever should take seconds, on a machine that does much else.
const deadline = 4 * time.Minute

// binary is the built controlplane: tests meet it as its users do.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CONTROLPLANE_BINARY")
	if path == "" {
		path = "../../../bin/controlplane"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("build the controlplane binary first, or name one in CONTROLPLANE_BINARY: %v", err)
	}
	return path
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// controlplane runs one command to its end.
func controlplane(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	command := exec.CommandContext(ctx, binary(t), args...)
	command.Env = append(os.Environ(), "HOME="+t.TempDir()) // kubectl caches there
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run controlplane %s: %v", strings.Join(args, " "), err)
	}
	return result{command.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// succeed runs a command that must, and returns what it printed.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	r := controlplane(t, args...)
	if r.code != 0 {
		t.Fatalf("controlplane %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// fail runs a command that must not succeed, and returns how it ended.
func fail(t *testing.T, code int, message string, args ...string) {
	t.Helper()
	r := controlplane(t, args...)
	if r.code != code || !strings.Contains(r.stderr, message) {
		t.Errorf("controlplane %s: exit code %d, want %d, and a message with %q:\n%s%s",
			strings.Join(args, " "), r.code, code, message, r.stdout, r.stderr)
	}
}

// running is a controlplane up of a test.
type running struct {
	t          *testing.T
	dir        string
	kubeconfig string
	command    *exec.Cmd
	messages   *lockedBuffer
	lines      chan string // of its standard output; closed at its end
	namespaces int         // that the test has made to see that the cluster works
}

// up starts a control plane on dir and waits until it is ready. When the test
// ends it does as well, and must leave nothing behind.
func up(t *testing.T, dir string, flags ...string) *running {
	t.Helper()
	r := launch(t, dir, flags...)
	select {
	case line, ok := <-r.lines:
		if !ok || line != "ready" {
			t.Fatalf("up printed %q instead of ready:\n%s", line, r.messages)
		}
	case <-time.After(deadline):
		t.Fatalf("up is not ready after %v:\n%s", deadline, r.messages)
	}
	return r
}

// launch starts up without waiting for anything.
func launch(t *testing.T, dir string, flags ...string) *running {
	t.Helper()
	r := &running{
		t:          t,
		dir:        dir,
		kubeconfig: filepath.Join(dir, "kubeconfig"),
		command:    exec.Command(binary(t), append([]string{"up", "--dir", dir}, flags...)...),
		messages:   new(lockedBuffer),
		lines:      make(chan string, 10),
	}
	r.command.Stderr = r.messages
	stdout, err := r.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.command.Start(); err != nil {
		t.Fatal(err)
	}
	go r.read(stdout)
	t.Cleanup(r.cleanUp)
	return r
}

func (r *running) read(stdout io.Reader) {
	defer close(r.lines)
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		r.lines <- lines.Text()
	}
}

func (r *running) cleanUp() {
	if r.command.ProcessState == nil {
		r.signal(syscall.SIGTERM)
		r.wait()
	}
	if r.t.Failed() {
		r.t.Logf("messages of up on %s:\n%s", r.dir, r.messages)
	}
}

func (r *running) signal(signal syscall.Signal) {
	r.t.Helper()
	if err := r.command.Process.Signal(signal); err != nil {
		r.t.Fatalf("send %v to up: %v", signal, err)
	}
}

// wait returns the exit code of up, after which no process of it is left.
func (r *running) wait() int {
	r.t.Helper()
	for range r.lines { // up to the end
	}
	err := r.command.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("wait for up: %v", err)
	}
	r.eventually("no process of "+r.dir+" is left", func() error {
		if left := processes(r.t, r.dir); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	return r.command.ProcessState.ExitCode()
}

// kubectl runs kubectl as the administrator, and returns what it printed.
func (r *running) kubectl(args ...string) string {
	r.t.Helper()
	return succeed(r.t, append([]string{"kubectl", "--kubeconfig", r.kubeconfig}, args...)...)
}

// eventually waits until the condition holds.
func (r *running) eventually(what string, condition func() error) {
	r.t.Helper()
	var err error
	for begin := time.Now(); time.Since(begin) < deadline; time.Sleep(20 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	r.t.Fatalf("not in %v: %s: %v", deadline, what, err)
}

// awaitServiceAccount waits until a namespace can have pods.
func (r *running) awaitServiceAccount(namespace string) {
	r.t.Helper()
	r.eventually("the controllers make a service account", func() error {
		got := controlplane(r.t, "kubectl", "--kubeconfig", r.kubeconfig, "-n", namespace, "get", "serviceaccount", "default")
		if got.code != 0 {
			return fmt.Errorf("exit code %d: %s", got.code, got.stderr)
		}
		return nil
	})
}

// process is the only process of the cluster with this name.
func (r *running) process(component string) int {
	r.t.Helper()
	for pid, args := range processes(r.t, r.dir) {
		if len(args) > 1 && args[1] == component {
			return pid
		}
	}
	r.t.Fatalf("no process of %s runs", component)
	return 0
}

// processes are the living processes whose command line names dir.
func processes(t *testing.T, dir string) map[int][]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[int][]string)
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(line, []byte(dir)) {
			continue // it has ended, or is another's
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/cmdline", &pid); err != nil {
			t.Fatal(err)
		}
		args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if len(args) > 1 && args[1] == "sweeper" {
			continue // it is meant to outlive the others
		}
		found[pid] = args
	}
	return found
}

// lockedBuffer is what a process writes while a test reads it.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
