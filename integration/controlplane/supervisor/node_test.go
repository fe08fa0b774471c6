package supervisor_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"citadel/integration/controlplane/node"
)

// TestNode runs pods, in one cluster that ends in each way that there is.
func TestNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		fail(t, 1, "a node needs root", "up", "--node", "--dir", dir)
		t.Log("the rest of this test needs root")
		return
	}
	for _, end := range []struct {
		name string
		end  func(*testing.T, *running)
	}{
		{"down", func(t *testing.T, r *running) { succeed(t, "down", "--dir", dir) }},
		{"SIGTERM", func(t *testing.T, r *running) { r.signal(syscall.SIGTERM) }},
		{"SIGKILL", func(t *testing.T, r *running) { r.signal(syscall.SIGKILL) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			r := up(t, dir, "--node")
			restartNode(t, r)
			checkPods(t, r)
			left := traces(t, dir)
			if missing := left.missing(); len(missing) > 0 {
				t.Fatalf("the test looks for what is not there: %q", missing)
			}
			end.end(t, r)
			r.wait()
			until(t, func() error {
				if found := left.found(); len(found) > 0 {
					return fmt.Errorf("left behind: %q", found)
				}
				return nil
			})
		})
	}
}

// checkPods runs two pods of a Deployment, one of which dies and comes back, and
// brings kubelet back.
func checkPods(t *testing.T, r *running) {
	manifest := filepath.Join(t.TempDir(), "pods.yaml")
	if err := os.WriteFile(manifest, []byte(podsText), 0o600); err != nil {
		t.Fatal(err)
	}
	r.kubectl("apply", "-f", manifest)
	r.kubectl("rollout", "status", "deployment/pause", "--timeout=2m")
	r.kubectl("delete", "pods", "-l", "app=pause", "--grace-period=1", "--wait=false")
	r.kubectl("rollout", "status", "deployment/pause", "--timeout=2m")
	succeed(t, "stop", "--dir", r.dir, "kubelet")
	succeed(t, "start", "--dir", r.dir, "kubelet")
	r.kubectl("rollout", "status", "deployment/pause", "--timeout=2m")
}

// TestSweeperKeepsTheDirectory: a new up on it waits for what the sweeper of a
// killed one does.
func TestSweeperKeepsTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Log("this test needs root")
		return
	}
	former := up(t, dir, "--node")
	groups := cgroupsOf(node.New("node-1", filepath.Join(dir, "node"), node.Link{}))
	busy := exec.Command("sleep", "300") // a group with a process in it cannot be removed
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	over := sync.OnceFunc(func() { _ = busy.Process.Kill(); _ = busy.Wait() })
	t.Cleanup(over)
	if err := os.WriteFile(filepath.Join(groups[0], "cgroup.procs"), []byte(strconv.Itoa(busy.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	former.signal(syscall.SIGKILL)
	former.wait()
	next := launch(t, dir)
	time.Sleep(5 * time.Second)
	if said := next.messages.String(); said != "" {
		t.Errorf("it did not wait: %s", said)
	}
	over()
	if line := <-next.lines; line != "ready" {
		t.Errorf("it said %q", line)
	}
}

// restartNode ends the node with all that runs in it and brings it back at once.
func restartNode(t *testing.T, r *running) {
	succeed(t, "stop", "--dir", r.dir, "--kill", "node")
	for _, c := range []string{"node", "containerd", "kubelet", "kube-proxy", "cluster-dns"} {
		succeed(t, "start", "--dir", r.dir, c)
	}
}

const podsText = `apiVersion: apps/v1
kind: Deployment
metadata: {name: pause}
spec:
  replicas: 2
  selector: {matchLabels: {app: pause}}
  template:
    metadata: {labels: {app: pause}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: pause, image: "` + node.PauseImage + `", imagePullPolicy: Never}]
`

// trace is something of a node that the machine would keep, by a description.
type trace struct {
	what  string
	there func() (bool, error)
}

type traceList []trace

// traces are what a running node on dir has.
func traces(t *testing.T, dir string) traceList {
	n := node.New("node-1", filepath.Join(dir, "node"), node.Link{})
	pid, err := os.ReadFile(n.PIDFile())
	if err != nil {
		t.Fatal(err)
	}
	var all traceList
	for _, kind := range []string{"pid", "net", "mnt"} {
		space, err := os.Readlink(fmt.Sprintf("/proc/%s/ns/%s", pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, trace{"a process in " + space, func() (bool, error) { return inNamespace(kind, space) }})
	}
	for _, group := range cgroupsOf(n) {
		all = append(all, trace{group, func() (bool, error) { return exists(group) }})
	}
	link := linkOf(t, n)
	for _, file := range []string{n.PIDFile(), n.ReadyFile()} {
		all = append(all, trace{file, func() (bool, error) { return exists(file) }})
	}
	return append(all, trace{"interface " + link, func() (bool, error) { return exists("/sys/class/net/" + link) }})
}

// cgroupsOf are the node's, one in each hierarchy.
func cgroupsOf(n node.Node) []string {
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + n.Cgroup())
	if err != nil || len(groups) == 0 {
		return []string{"/sys/fs/cgroup/" + n.Cgroup()}
	}
	return groups
}

// linkOf finds the machine's end of the node's network link by its address.
func linkOf(t *testing.T, n node.Node) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(n.Dir), "kubelet.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range node.Links {
		if link := node.NumberedLink(i); strings.Contains(string(text), "https://"+link.Host.Addr().String()+":") {
			return link.Name
		}
	}
	t.Fatalf("no link in\n%s", text)
	return ""
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// inNamespace looks for a process in a namespace.
func inNamespace(kind, space string) (bool, error) {
	links, err := filepath.Glob("/proc/[0-9]*/ns/" + kind)
	for _, link := range links {
		if got, err := os.Readlink(link); err == nil && got == space { // else it has ended
			return true, nil
		}
	}
	return false, err
}

func (l traceList) found() (found []string) {
	for _, one := range l {
		if there, err := one.there(); there || err != nil {
			found = append(found, fmt.Sprint(one.what, err))
		}
	}
	return found
}

func (l traceList) missing() (missing []string) {
	for _, one := range l {
		if there, err := one.there(); !there || err != nil {
			missing = append(missing, fmt.Sprint(one.what, err))
		}
	}
	return missing
}

// until repeats what finds fault until it finds none.
func until(t *testing.T, fault func() error) {
	t.Helper()
	for begin := time.Now(); ; <-time.After(50 * time.Millisecond) {
		err := fault()
		if err == nil {
			return
		}
		if time.Since(begin) > deadline {
			t.Fatal(err)
		}
	}
}
