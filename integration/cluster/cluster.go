// Package cluster starts what the runner, the benchmarks and the tests need
// around Citadel: a local control plane, kubeconfigs of its service accounts,
// and the citadel binary as a process. It is no part of the product.
package cluster

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
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"citadel/ca/kube"
)

// ControlPlane is a running bin/controlplane, or an existing cluster.
type ControlPlane struct {
	// Dir holds state and logs; empty for an existing cluster.
	Dir string
	// Kubeconfig is the administrator's.
	Kubeconfig string
	// Client has the administrator's rights.
	Client kubernetes.Interface

	binary string
	up     *exec.Cmd // nil for an existing cluster
	exited chan error
}

// Options say how to start a control plane.
type Options struct {
	Binary string    // bin/controlplane
	Dir    string    // its folder
	Flags  []string  // further flags of "up"
	Log    io.Writer // its messages
}

// Start runs a control plane and returns when it is ready. It dies with the
// thread that started it: call it from a goroutine locked to the main thread
// where that matters.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	c := &ControlPlane{Dir: o.Dir, Kubeconfig: filepath.Join(o.Dir, "kubeconfig"), binary: o.Binary, exited: make(chan error, 1)}
	c.up = exec.Command(o.Binary, append([]string{"up", "--dir", o.Dir}, o.Flags...)...)
	c.up.Stderr = o.Log
	// Ctrl-C reaches us alone: we stop it in order.
	c.up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stdout, err := c.up.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	if err := c.up.Start(); err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) == "ready" {
				close(ready)
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout) // until it ends
		c.exited <- c.up.Wait()
	}()
	select {
	case <-ready:
	case err := <-c.exited:
		return nil, fmt.Errorf("the control plane ended before it was ready: %v", err)
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), c.Stop())
	}
	return c, c.connect()
}

// StartIn starts the bin/controlplane of a checkout, with state and log in dir. Its
// error quotes the log.
func StartIn(ctx context.Context, checkout, dir string, flags ...string) (*ControlPlane, error) {
	binary, err := filepath.Abs(filepath.Join(checkout, "bin", "controlplane"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("there is no local control plane: run make controlplane: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "controlplane.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own copy
	c, err := Start(ctx, Options{Binary: binary, Dir: filepath.Join(dir, "cluster"), Flags: flags, Log: log})
	if err != nil {
		text, _ := os.ReadFile(log.Name()) // for the message only
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	return c, nil
}

// Existing connects to a cluster that is there already.
func Existing(kubeconfig, binary string) (*ControlPlane, error) {
	c := &ControlPlane{Kubeconfig: kubeconfig, binary: binary}
	return c, c.connect()
}

func (c *ControlPlane) connect() error {
	cfg, err := kube.Config(c.Kubeconfig, "citadel-integration")
	if err != nil {
		return err
	}
	c.Client, err = kube.Client(cfg)
	return err
}

// Stop ends the control plane and waits for it.
func (c *ControlPlane) Stop() error {
	if c.up == nil {
		return nil
	}
	_ = c.up.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case err := <-c.exited:
		return err
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the control plane did not stop in a minute: killed"), c.up.Process.Kill())
	}
}

// Component stops or starts etcd or kube-apiserver alone.
func (c *ControlPlane) Component(ctx context.Context, verb, component string, flags ...string) error {
	_, err := c.run(ctx, append([]string{verb, "--dir", c.Dir, component}, flags...)...)
	return err
}

// LoadImage gives the node of the control plane the images of an archive.
func (c *ControlPlane) LoadImage(ctx context.Context, archive string) error {
	_, err := c.run(ctx, "image", "load", "--dir", c.Dir, archive)
	return err
}

// Kubectl runs kubectl as the administrator.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.run(ctx, append([]string{"kubectl", "--kubeconfig", c.Kubeconfig}, args...)...)
}

// KubectlCommand is kubectl as the administrator, not yet run.
func (c *ControlPlane) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, c.binary, append([]string{"kubectl", "--kubeconfig", c.Kubeconfig}, args...)...)
}

func (c *ControlPlane) run(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ServiceAccount writes a kubeconfig at path with the rights of a service
// account, its token in a file beside it.
func (c *ControlPlane) ServiceAccount(ctx context.Context, namespace, name, path string) error {
	if err := c.RefreshToken(ctx, namespace, name, path); err != nil {
		return err
	}
	cfg, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	cfg.AuthInfos = map[string]*api.AuthInfo{name: {TokenFile: tokenFile(path)}}
	cfg.Contexts[cfg.CurrentContext].AuthInfo = name
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		return fmt.Errorf("write the kubeconfig of service account %s/%s: %w", namespace, name, err)
	}
	return nil
}

func tokenFile(kubeconfig string) string { return kubeconfig + ".token" }

// RefreshToken puts a new token, good for a day, where ServiceAccount's
// kubeconfig looks for it.
func (c *ControlPlane) RefreshToken(ctx context.Context, namespace, name, path string) error {
	day := int64(24 * 60 * 60)
	token, err := c.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &day}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token of service account %s/%s: %w", namespace, name, err)
	}
	next := tokenFile(path) + ".new"
	if err := os.WriteFile(next, []byte(token.Status.Token), 0o600); err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	return os.Rename(next, tokenFile(path))
}
