package pods

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"citadel/integration/cluster"
)

// TestNodeServesKubectl: what operators do with pods works on the node too.
func TestNodeServesKubectl(t *testing.T) {
	within(t, patience, func() error { return available(t.Context()) })
	deployment := "deployment/" + citadelName
	t.Run("logs", func(t *testing.T) {
		if text := kubectl(t, "-n", cluster.StorageNamespace, "logs", deployment, "--tail=-1"); !strings.Contains(text, `"msg":"citadel starts"`) {
			t.Errorf("logs are %.300q", text)
		}
	})
	t.Run("exec", func(t *testing.T) {
		if text := kubectl(t, "-n", cluster.StorageNamespace, "exec", deployment, "--", "/citadel", "version"); !strings.Contains(text, "go1.") {
			t.Errorf("the version is %q", text)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		address := forward(t, deployment, "15014")
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if text := must(io.ReadAll(response.Body))(t); response.StatusCode != http.StatusOK {
			t.Errorf("/readyz answers %s: %s", response.Status, text)
		}
	})
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`)

// forward runs kubectl port-forward until the test ends, and returns the address
// on this side.
func forward(t *testing.T, to, port string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	command := exec.CommandContext(ctx, "../../bin/controlplane", "kubectl", "--kubeconfig", plane.Kubeconfig,
		"-n", cluster.StorageNamespace, "port-forward", to, ":"+port)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	output := must(command.StdoutPipe())(t)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = command.Wait() }) // it was told to end
	line, err := bufio.NewReader(output).ReadString('\n')
	found := forwarding.FindStringSubmatch(line)
	if found == nil {
		t.Fatal(fmt.Errorf("kubectl port-forward said %q: %w", line, err))
	}
	return found[1]
}
