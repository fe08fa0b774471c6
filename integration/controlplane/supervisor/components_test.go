package supervisor_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"citadel/integration/controlplane/supervisor"
)

// TestComponents stops and starts the components of one cluster, in every way.
func TestComponents(t *testing.T) {
	t.Parallel()
	r := up(t, t.TempDir())
	t.Run("restart", func(t *testing.T) {
		for _, c := range []supervisor.Component{supervisor.ControllerManager, supervisor.APIServer, supervisor.Etcd} {
			restart(t, r, c)
		}
	})
	t.Run("kill", func(t *testing.T) {
		for _, c := range []supervisor.Component{supervisor.ControllerManager, supervisor.APIServer, supervisor.Etcd} {
			restart(t, r, c, "--kill")
		}
	})
	t.Run("two at once", func(t *testing.T) {
		succeed(t, "stop", "--dir", r.dir, "--kill", "kube-apiserver")
		succeed(t, "stop", "--dir", r.dir, "--kill", "etcd")
		succeed(t, "start", "--dir", r.dir, "etcd")
		succeed(t, "start", "--dir", r.dir, "kube-apiserver")
		checkWorks(t, r)
	})
	t.Run("death", func(t *testing.T) { checkDeath(t, r) })
	t.Run("start twice", func(t *testing.T) {
		fail(t, 1, "etcd runs already", "start", "--dir", r.dir, "etcd")
	})
}

// restart stops a component, and starts it again; then the cluster works.
func restart(t *testing.T, r *running, c supervisor.Component, flags ...string) {
	t.Helper()
	former := r.process(string(c))
	succeed(t, append([]string{"stop", "--dir", r.dir, string(c)}, flags...)...)
	if _, runs := processes(t, r.dir)[former]; runs {
		t.Errorf("%s runs after stop", c)
	}
	fail(t, 1, string(c)+" does not run", "stop", "--dir", r.dir, string(c))
	succeed(t, "start", "--dir", r.dir, string(c))
	if r.process(string(c)) == former {
		t.Errorf("%s is the same process after stop and start", c)
	}
	checkWorks(t, r)
}

// checkDeath kills the API server without telling up, which reports it, keeps the
// others and can start it again.
func checkDeath(t *testing.T, r *running) {
	etcd := r.process("etcd")
	if err := syscall.Kill(r.process("kube-apiserver"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("up reports the death", func() error {
		if !strings.Contains(r.messages.String(), "kube-apiserver died: signal: killed") {
			return fmt.Errorf("up says %q", r.messages)
		}
		return nil
	})
	succeed(t, "start", "--dir", r.dir, "kube-apiserver")
	if r.process("etcd") != etcd {
		t.Error("etcd is another process")
	}
	checkWorks(t, r)
}

// checkWorks makes something for which all components are needed.
func checkWorks(t *testing.T, r *running) {
	t.Helper()
	r.namespaces++
	namespace := fmt.Sprintf("worked-on-%d", r.namespaces)
	r.kubectl("create", "namespace", namespace)
	r.awaitServiceAccount(namespace)
}
