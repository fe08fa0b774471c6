// Package integration proves on a real Kubernetes API server what Citadel
// promises: each test runs the citadel binary, built with the race detector, as
// a service account with the rights of deploy/, and judges the outcome by what
// the API server holds and by its audit log.
//
// It refuses fakes of Kubernetes, and to look inside Citadel: what a test
// breaks, it breaks from outside.
package integration

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
	// raced is citadel with the race detector; plain, as it is shipped, for
	// where speed is a part of the test.
	raced, plain string
	citadelctl   string
	nodeAgent    string // with the race detector
	keep         = flag.Bool("keep", false, "leave the state and logs of the run where they are")
)

func init() { runtime.LockOSThread() } // the processes die with the main thread

func TestMain(m *testing.M) {
	flag.Parse()
	waitTogether()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

// waitTogether runs more tests at once than there are processors, unless told
// how many: most of a test is waiting.
func waitTogether() {
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		_ = flag.Set("test.parallel", "8") // the testing package has the flag
	}
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "citadel-integration-")
	if err != nil {
		return 0, err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "integration: state and logs are in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	if err := build(dir); err != nil {
		return 0, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // of what tests do wrong on purpose
	if err := startPlane(dir); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, plane.Stop()
}

func build(dir string) error {
	nodeAgent = filepath.Join(dir, "node_agent")
	raced, plain, citadelctl = filepath.Join(dir, "citadel-race"), filepath.Join(dir, "citadel"), filepath.Join(dir, "citadelctl")
	fmt.Fprintln(os.Stderr, "integration: building citadel with the race detector (the first time takes minutes)")
	for _, args := range [][]string{{"-race", "-o", raced, "../cmd/citadel"}, {"-o", plain, "../cmd/citadel"}, {"-race", "-o", citadelctl, "../cmd/citadelctl"},
		{"-race", "-o", nodeAgent, "../cmd/node_agent"}} {
		cmd := exec.Command("go", append([]string{"build"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
		}
	}
	return nil
}

func startPlane(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var err error
	if plane, err = cluster.StartIn(ctx, "..", dir, "--audit"); err != nil {
		return err
	}
	_, err = plane.Kubectl(ctx, "apply", "-k", "../deploy")
	if err == nil { // the API server lets citadel's pods in once this has a status
		_, err = plane.Kubectl(ctx, "wait", "-n", cluster.StorageNamespace, "--for=jsonpath={.status.used.pods}", "resourcequota/istio-citadel-critical-pods")
	}
	if err != nil {
		return fmt.Errorf("%w (and %v)", err, plane.Stop())
	}
	return nil
}
