package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"citadel/integration/cluster"
)

// process is a citadel whose end is checked, and its messages.
type process struct {
	*cluster.Citadel
	account
	since  mark   // of the API server's audit log
	dir    string // of the two streams
	raced  bool
	denied bool        // it may be refused for lack of rights
	ending atomic.Bool // its end is in order: a test wants it
}

// launch says how a test's Citadel differs from the usual.
type launch struct {
	account account // the site's own if empty
	binary  string  // raced if empty
	env     []string
	denied  bool
	failing bool
}

// start runs Citadel and waits until it is ready.
func (s *site) start(t *testing.T, flags ...string) *process {
	t.Helper()
	p := s.launch(t, launch{}, flags...)
	p.ready(t)
	return p
}

// launch runs Citadel. When the test ends, Citadel is stopped, and the test
// fails unless it ended well and without a race, a panic or a refusal.
func (s *site) launch(t *testing.T, l launch, flags ...string) *process {
	t.Helper()
	if l.account == (account{}) {
		l.account = s.account
	}
	if l.binary == "" {
		l.binary = raced
	}
	p := &process{account: l.account, since: now(t), dir: t.TempDir(), raced: l.binary == raced, denied: l.denied}
	p.ending.Store(l.failing)
	stdout, stderr := must(os.Create(p.path("audit")))(t), must(os.Create(p.path("log")))(t)
	defer stdout.Close() // the process has its own copies
	defer stderr.Close()
	usual := []string{"--citadel-storage-namespace", s.storage, "--enable-namespaces-by-default=false"}
	p.Citadel = must(cluster.StartCitadel(cluster.Run{Binary: l.binary, Kubeconfig: l.account.kubeconfig, Flags: append(usual, flags...),
		Env:    append([]string{"KUBE_CACHE_MUTATION_DETECTOR=true", "GORACE=halt_on_error=1 atexit_sleep_ms=0"}, l.env...),
		Stdout: stdout, Stderr: stderr}))(t)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if <-p.Exited(); !p.ending.Load() {
			deaths.Store(t.Name(), fmt.Errorf("citadel ended by itself: %v", p.Wait()))
		}
	}()
	t.Cleanup(func() { p.finish(t); <-watched })
	return p
}

func (p *process) path(name string) string { return filepath.Join(p.dir, name) }

func (p *process) ready(t *testing.T) {
	t.Helper()
	p.answers(t, "/readyz", http.StatusOK)
}

// answers waits until a page of the monitoring port has the status.
func (p *process) answers(t *testing.T, page string, status int) string {
	t.Helper()
	var text string
	within(t, patience, func() (err error) {
		var got int
		if got, text, err = p.Get(t.Context(), page); err == nil && got != status {
			err = fmt.Errorf("%s answers %d: %s", page, got, text)
		}
		return err
	})
	return text
}

// kill ends the process as a crash would.
func (p *process) kill() {
	p.ending.Store(true)
	p.Kill()
}

// stop ends the process in order, before the test's end does.
func (p *process) stop(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	p.ending.Store(true)
	if err := p.Stop(); err != nil {
		t.Errorf("citadel ended with %v on SIGTERM", err)
	}
	return time.Since(begin)
}

// fails waits for the process to end by itself, with exit code 1 and a message
// on its last line, which is returned.
func (p *process) fails(t *testing.T) string {
	t.Helper()
	p.ending.Store(true)
	select {
	case <-p.Exited():
	case <-time.After(patience):
		t.Fatal("citadel did not end by itself")
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("citadel ended with %v, want exit code 1", err)
	}
	lines := strings.Split(strings.TrimSpace(p.read(t, "log")), "\n")
	return lines[len(lines)-1]
}

func (p *process) read(t *testing.T, name string) string {
	t.Helper()
	return string(must(os.ReadFile(p.path(name)))(t))
}

// says waits until the log holds the text.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	within(t, patience, func() error {
		if !strings.Contains(p.read(t, "log"), text) {
			return fmt.Errorf("citadel does not say %q", text)
		}
		return nil
	})
}

// finish ends the process where it still runs, and looks at what it leaves.
func (p *process) finish(t *testing.T) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the end of citadel's log:\n%s", tail(p.read(t, "log"), 40))
		}
	}()
	_ = p.Signal(syscall.SIGCONT) // for one that a test has frozen
	select {
	case <-p.Exited():
		if !p.ending.Load() {
			t.Errorf("citadel ended by itself: %v", p.Wait())
		}
	case <-p.compared():
		p.stop(t)
	}
	for _, name := range []string{"log", "audit"} {
		text := p.read(t, name)
		for _, sign := range []string{"DATA RACE", "panic: ", "fatal error: ", "ALTERED!"} {
			if at := strings.Index(text, sign); at >= 0 {
				t.Errorf("citadel's %s holds %q:\n%s", name, sign, tail(text[max(0, at-200):min(len(text), at+3000)], 60))
			}
		}
	}
	for _, r := range requests(t, p.since, p.user) {
		if !p.denied && r.forbidden() {
			t.Errorf("citadel lacks the right: %s", r)
		}
	}
}

// compared gives the detector of changed cache objects the second in which it
// comes round.
func (p *process) compared() <-chan time.Time {
	if !p.raced {
		return time.After(0)
	}
	return time.After(1200 * time.Millisecond)
}

func tail(text string, count int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}

// signature is a record of citadel's own audit stream.
type signature struct{ Stage, Identity, Method, Serial, Evidence string }

// signatures are all records so far.
func (p *process) signatures(t *testing.T) []signature {
	t.Helper()
	var all []signature
	for line := range bytes.Lines([]byte(p.read(t, "audit"))) {
		var s signature
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatalf("record %q of citadel's audit stream: %v", line, err)
		}
		all = append(all, s)
	}
	return all
}

func (p *process) metric(t *testing.T, name string) float64 {
	t.Helper()
	return must(p.Metric(t.Context(), name))(t)
}
