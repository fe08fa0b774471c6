package pods

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStatusAndCheck looks at the Deployment as an operator does, with citadelctl,
// which asks the replicas themselves through the API server.
func TestStatusAndCheck(t *testing.T) {
	within(t, patience, func() error { return available(t.Context()) })
	anyLeader(t)
	binary := filepath.Join(t.TempDir(), "citadelctl")
	if out, err := exec.Command("go", "build", "-o", binary, "citadel/cmd/citadelctl").CombinedOutput(); err != nil {
		t.Fatalf("build citadelctl: %v\n%s", err, out)
	}
	for _, command := range []string{"status", "check"} {
		t.Run(command, func(t *testing.T) {
			var text string
			within(t, patience, func() error { // a Secret may be due at any moment
				out, err := exec.Command(binary, command, "--kubeconfig", plane.Kubeconfig).CombinedOutput()
				if text = string(out); err != nil {
					return errors.Join(err, errors.New(text))
				}
				return nil
			})
			for _, pod := range replicas(t) {
				if command == "check" && !strings.Contains(text, pod.Name) {
					t.Errorf("nothing is said of %s:\n%s", pod.Name, text)
				}
			}
		})
	}
}
