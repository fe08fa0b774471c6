package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The service account that deploy/ makes for citadel.
const (
	StorageNamespace = "istio-system"
	CitadelAccount   = "istio-citadel-service-account"
)

// Citadel is a running citadel process.
type Citadel struct {
	// Port is its monitoring port, and APIPort that of the CSR API.
	Port, APIPort int

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // set before exited is closed
}

// Run describes a citadel process.
type Run struct {
	Binary     string // bin/citadel
	Kubeconfig string // empty: the flags say where it keeps everything
	Flags      []string
	Env        []string  // besides the environment of this process
	Stdout     io.Writer // audit records
	Stderr     io.Writer // log
}

// StartCitadel starts the process and returns at once. It dies with this one.
func StartCitadel(r Run) (*Citadel, error) {
	c := &Citadel{exited: make(chan struct{})}
	for _, port := range []*int{&c.Port, &c.APIPort} {
		var err error
		if *port, err = FreePort(); err != nil {
			return nil, err
		}
	}
	flags := append([]string{"--monitoring-port", strconv.Itoa(c.Port), "--grpc-port", strconv.Itoa(c.APIPort)}, r.Flags...)
	if r.Kubeconfig != "" {
		flags = append([]string{"--kube-config", r.Kubeconfig}, flags...)
	}
	c.cmd = exec.Command(r.Binary, flags...)
	c.cmd.Stdout, c.cmd.Stderr = r.Stdout, r.Stderr
	c.cmd.Env = append(os.Environ(), r.Env...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start citadel: %w", err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// FreePort looks below the ports that the kernel gives to connections: one of
// these could be taken again before the process listens on it. It gives each out once.
func FreePort() (int, error) {
	const first, last, attempts = 20000, 32000, 1000
	err := errors.New("all were given out")
	for range attempts {
		port := first + rand.IntN(last-first)
		if _, twice := given.LoadOrStore(port, nil); twice {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

var given sync.Map // ports of FreePort

// PID is the process's number.
func (c *Citadel) PID() int { return c.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (c *Citadel) Exited() <-chan struct{} { return c.exited }

// Wait returns how the process ended: nil for exit code 0.
func (c *Citadel) Wait() error {
	<-c.exited
	return c.err
}

// Signal sends a signal to the process.
func (c *Citadel) Signal(s syscall.Signal) error { return c.cmd.Process.Signal(s) }

// Kill ends the process as kill -9 does.
func (c *Citadel) Kill() {
	_ = c.cmd.Process.Kill() // an error means that it has ended
	<-c.exited
}

// Stop ends the process in order.
func (c *Citadel) Stop() error {
	_ = c.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-c.exited:
		return c.err
	case <-time.After(30 * time.Second):
		c.Kill()
		return errors.New("citadel did not stop in 30s: killed")
	}
}

// Get reads a page of the monitoring port.
func (c *Citadel) Get(ctx context.Context, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", c.Port, path), nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// Ready waits until /readyz says so.
func (c *Citadel) Ready(ctx context.Context) error {
	return c.Poll(ctx, 20*time.Millisecond, "ready", func() (bool, error) {
		code, _, err := c.Get(ctx, "/readyz")
		return err == nil && code == http.StatusOK, nil
	})
}

// Poll asks this often until done or ctx ends or citadel does.
func (c *Citadel) Poll(ctx context.Context, every time.Duration, what string, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-c.exited:
			return fmt.Errorf("citadel ended (%v) before it was %s", c.err, what)
		case <-ctx.Done():
			return fmt.Errorf("citadel was not %s in time: %w", what, context.Cause(ctx))
		}
	}
}

// Metric reads one metric by its name and labels as /metrics prints them; 0
// when it is not there.
func (c *Citadel) Metric(ctx context.Context, name string) (float64, error) {
	_, page, err := c.Get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, nil
}
