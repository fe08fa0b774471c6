package supervisor_test

import (
	"os"
	"strings"
	"testing"
)

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{},
		{"frobnicate"},
		{"up"},
		{"up", "--dir", dir, "--frobnicate"},
		{"up", "--dir", dir, "etcd"},
		{"down"},
		{"stop", "etcd"},
		{"stop", "--dir", dir},
		{"stop", "--dir", dir, "kubelets"},
		{"stop", "--dir", dir, "etcd", "kube-apiserver"},
		{"start", "--dir", dir, "--kill", "etcd"},
		{"version", "please"},
	} {
		fail(t, 2, "--help'", args...)
	}
}

func TestHelp(t *testing.T) {
	overview := succeed(t, "--help")
	for _, command := range []string{"up", "down", "stop", "start", "version", "kubectl"} {
		if !strings.Contains(overview, "\n  "+command+" ") {
			t.Errorf("the help does not tell of %s:\n%s", command, overview)
		}
		if text := succeed(t, "help", command); !strings.Contains(text, "Examples:\n  controlplane "+command) {
			t.Errorf("the help of %s has no example:\n%s", command, text)
		}
	}
	if strings.Contains(overview, "\n  kube-apiserver") {
		t.Errorf("the help shows what only up runs:\n%s", overview)
	}
}

// TestVersion compares what is stamped into the binary with what is built.
func TestVersion(t *testing.T) {
	text := succeed(t, "version")
	kubernetes := required(t, "k8s.io/kubernetes")
	for _, want := range []string{"kubernetes " + kubernetes + "\n", "etcd " + required(t, "go.etcd.io/etcd/server/v3") + "\n", "go1."} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the version:\n%s", want, text)
		}
	}
	if client := succeed(t, "kubectl", "version", "--client"); !strings.Contains(client, kubernetes) {
		t.Errorf("kubectl is not of version %s:\n%s", kubernetes, client)
	}
}

// required is the version of a module in go.mod.
func required(t *testing.T, module string) string {
	t.Helper()
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == module {
			return fields[1]
		}
	}
	t.Fatalf("go.mod does not require %s", module)
	return ""
}

func TestNothingRuns(t *testing.T) {
	for _, dir := range []string{t.TempDir(), t.TempDir() + "/missing"} {
		for _, args := range [][]string{
			{"down", "--dir", dir},
			{"stop", "--dir", dir, "etcd"},
			{"start", "--dir", dir, "etcd"},
		} {
			fail(t, 1, "no control plane runs on "+dir, args...)
		}
	}
}
