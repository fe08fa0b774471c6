// Package capture proves transparent capture on hosts that are network
// namespaces with a cable between them: real rules in a real kernel, real
// connections of IPv4 and IPv6, and nft(8) of Debian as a witness.
//
// It needs root, for the namespaces. It refuses to touch the rules of the machine
// that it runs on, and to look inside the agent: listeners stand in for it.
package capture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// agent is the program that is tried out.
var agent string

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "capture: NOTHING WAS TESTED: these tests make network namespaces, which needs root; as root: make test")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "citadel-capture-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for those who are not root
		return 0, err
	}
	agent = filepath.Join(dir, "node_agent")
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", agent, "../../cmd/node_agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%v: %w\n%s", build.Args, err, out)
	}
	return m.Run(), nil
}
