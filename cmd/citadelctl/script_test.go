package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/statedir"
	"citadel/ca/trust"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"citadelctl": main})
}

// TestScripts runs the real command on files, and against an API server that is
// a handful of objects.
func TestScripts(t *testing.T) {
	world := newWorld(t)
	kubeconfig := kubeconfigs(t, world)
	written := map[string][]byte{} // by script: those that write have a world of their own
	for _, script := range []string{"token", "token_denied", "identity"} {
		written[script] = meshConfig(t)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("KUBECONFIG", env.WorkDir+"/kubeconfig")
			for script, text := range written {
				if strings.HasSuffix(env.WorkDir, "/script-"+script) {
					return os.WriteFile(env.WorkDir+"/kubeconfig", text, 0o600)
				}
			}
			return os.WriteFile(env.WorkDir+"/kubeconfig", kubeconfig, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkcert":  world.mkcert,
			"exits":   exits,
			"mkstate": mkstate,
		},
		RequireExplicitExec: true,
	})
}

// exits runs a program that must exit with a code: exits CODE PROGRAM ARG...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	got, err := 0, ts.Exec(args[1], args[2:]...)
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%v exits with %d, want %s\nstdout:\n%s\nstderr:\n%s", args[1:], got, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// meshConfig has contexts for people with different rights in a new world of
// writable objects.
func meshConfig(t *testing.T) []byte {
	here, roots := newMeshWorld(t).serve(t)
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: admin
clusters:
- {name: here, cluster: {server: %[1]q, certificate-authority-data: %[2]q}}
- {name: gone, cluster: {server: "https://127.0.0.1:1"}}
users:
- {name: admin, user: {token: admin}}
- {name: reader, user: {token: reader}}
- {name: secrets, user: {token: secrets}}
- {name: poor, user: {token: poor}}
contexts:
- {name: admin, context: {cluster: here, user: admin}}
- {name: reader, context: {cluster: here, user: reader}}
- {name: secrets, context: {cluster: here, user: secrets}}
- {name: poor, context: {cluster: here, user: poor}}
- {name: gone, context: {cluster: gone, user: admin}}
`, here, base64.StdEncoding.EncodeToString(roots))
}

// mkcert writes a file of the world's pieces: mkcert FILE PIECE...
func (w *world) mkcert(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mkcert FILE PIECE...")
	}
	var text []byte
	for _, name := range args[1:] {
		piece, ok := w.pieces[name]
		if !ok {
			ts.Fatalf("there is no piece %q", name)
		}
		text = slices.Concat(text, piece)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

// mkstate makes the folder of a citadel without Kubernetes: mkstate DIR.
func mkstate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mkstate DIR")
	}
	dir, err := statedir.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer dir.Close()
	_, _, err = dir.LoadRoot(time.Now(), trust.SelfSigned{TrustDomain: spiffeid.RequireTrustDomainFromString("example.org"), KeyType: trust.ECDSAP256, Lifetime: time.Hour})
	ts.Check(err)
}

// kubeconfigs has contexts for people with different rights in the world, and
// for other worlds.
func kubeconfigs(t *testing.T, w *world) []byte {
	here, roots := w.serve(t)
	well, _ := newHealthyWorld(t).serve(t) // by the same certificate
	sick, _ := newSickWorld(t).serve(t)
	bare, _ := (&world{namespaces: []string{"default"}, minor: "36"}).serve(t)
	crowded, _ := newCrowdedWorld(t).serve(t)
	moving, _ := newMovingWorld(t).serve(t)
	two, _ := newWorldOfTwo(t).serve(t)
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: admin
clusters:
- {name: here, cluster: {server: %[1]q, certificate-authority-data: %[2]q}}
- {name: well, cluster: {server: %[3]q, certificate-authority-data: %[2]q}}
- {name: sick, cluster: {server: %[4]q, certificate-authority-data: %[2]q}}
- {name: bare, cluster: {server: %[5]q, certificate-authority-data: %[2]q}}
- {name: crowded, cluster: {server: %[6]q, certificate-authority-data: %[2]q}}
- {name: moving, cluster: {server: %[7]q, certificate-authority-data: %[2]q}}
- {name: two, cluster: {server: %[8]q, certificate-authority-data: %[2]q}}
- {name: hanging, cluster: {server: %[9]q}}
- {name: gone, cluster: {server: "https://127.0.0.1:1"}}
users:
- {name: admin, user: {token: admin}}
- {name: poor, user: {token: poor}}
- {name: nobody, user: {token: nobody}}
- {name: secrets, user: {token: secrets}}
contexts:
- {name: admin, context: {cluster: here, user: admin}}
- {name: web, context: {cluster: here, user: admin, namespace: web}}
- {name: poor, context: {cluster: here, user: poor}}
- {name: nobody, context: {cluster: here, user: nobody}}
- {name: secrets, context: {cluster: here, user: secrets}}
- {name: gone, context: {cluster: gone, user: admin}}
- {name: well, context: {cluster: well, user: admin}}
- {name: well-poor, context: {cluster: well, user: poor}}
- {name: well-secrets, context: {cluster: well, user: secrets}}
- {name: sick, context: {cluster: sick, user: admin}}
- {name: bare, context: {cluster: bare, user: admin}}
- {name: two, context: {cluster: two, user: admin}}
- {name: hanging, context: {cluster: hanging, user: poor}}
- {name: bare-poor, context: {cluster: bare, user: poor}}
- {name: crowded, context: {cluster: crowded, user: admin}}
- {name: moving, context: {cluster: moving, user: admin}}
`, here, base64.StdEncoding.EncodeToString(roots), well, sick, bare, crowded, moving, two, hanging(t))
}
