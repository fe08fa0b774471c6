// Package pods proves Citadel where it is used first: as the Deployment of
// deploy/, two replicas in real pods on a real node, while pods with its Secrets
// call each other over mutual TLS, and while the cluster breaks around them.
//
// It needs root, for the node. It refuses fakes, and to look inside Citadel.
package pods

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"citadel/integration/cluster"
)

// What all tests share.
var (
	plane *cluster.ControlPlane
	keep  = flag.Bool("keep", false, "leave the state and logs of the run where they are")
)

func init() { runtime.LockOSThread() } // the processes die with the main thread

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "pods: NOTHING WAS TESTED: these tests run pods on a node of their own, which needs root and the packages of 'make deps'; as root: make test")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pods:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "citadel-pods-")
	if err != nil {
		return 0, err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "pods: state and logs are in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	images, err := buildImages(dir)
	if err != nil {
		return 0, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	if err := startPlane(dir, images); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, plane.Stop()
}

// buildImages makes the images of citadel and of the tests' workload.
func buildImages(dir string) (archives []string, err error) {
	for name, pkg := range map[string]string{"citadel": "citadel/cmd/citadel", "workload": "citadel/integration/workload"} {
		binary, archive := filepath.Join(dir, name), filepath.Join(dir, name+".tar")
		build := exec.Command("go", "build", "-trimpath", "-o", binary, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		pack := exec.Command("go", "run", "citadel/deploy/image", "-binary", binary, "-name", name+":latest", "-o", archive)
		for _, cmd := range []*exec.Cmd{build, pack} {
			if out, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
			}
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

func startPlane(dir string, images []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	if plane, err = cluster.StartIn(ctx, "../..", dir, "--audit", "--node"); err != nil {
		return err
	}
	if err := install(ctx, images); err != nil {
		return fmt.Errorf("%w (and %v)", err, plane.Stop())
	}
	return nil
}

// lifeFlags make certificates short-lived, and spread their rotation, so that some
// are due at any moment of a test.
var lifeFlags = []string{"--workload-cert-ttl=2m", "--workload-cert-min-grace-period=0s", "--workload-cert-rotation-jitter=0.3"}

// install puts Citadel and the workloads into the cluster.
func install(ctx context.Context, images []string) error {
	for _, archive := range images {
		if err := plane.LoadImage(ctx, archive); err != nil {
			return err
		}
	}
	if _, err := plane.Kubectl(ctx, "apply", "-k", "../../deploy"); err != nil {
		return err
	}
	if err := addFlags(ctx, lifeFlags...); err != nil {
		return err
	}
	// Until all replicas have the flags, certificates are made that outlive the tests.
	if _, err := plane.Kubectl(ctx, "-n", cluster.StorageNamespace, "rollout", "status", "deployment/"+citadelName, "--timeout=3m"); err != nil {
		return err
	}
	return startTraffic(ctx)
}
