package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/nodeagent"
	"citadel/nodeagent/certdir"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"node_agent": main})
}

// TestScripts runs the real command, as testdata/script says. Flags that are
// accepted lead to exit code 1: the control socket's place is taken. In
// $WORK/run an agent's control socket answers, with a certificate or without.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Setup: func(env *testscript.Env) error {
			for name, value := range map[string]string{"CERTS_DIR": env.WorkDir, "NODE_AGENT_STATE_DIR": filepath.Join(env.WorkDir, "state"),
				"NODE_AGENT_CONTROL_SOCKET": filepath.Join(env.WorkDir, "taken"), "NODE_AGENT_MONITORING_PORT": "0"} {
				env.Setenv(name, value)
			}
			return nil
		},
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "agent": standIn(t)},
	})
}

// standIn serves a control socket: agent good|bad path.
func standIn(t *testing.T) func(*testscript.TestScript, bool, []string) {
	now := time.Now()
	held := madeAt(t, catest.Root(t, now, catest.Spec{Name: "root"}), now)
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: agent good|bad socket")
		}
		set := nodeagent.Settings{Address: "ca.example:8060"}
		if args[0] == "good" {
			set.TTL, set.KeyType, set.Renewal = time.Hour, trust.ECDSAP256, nodeagent.DefaultRenewal
			set.Held = func() (certdir.Set, error) { return held, nil }
		}
		listener, err := listenControl(ts.MkAbs(args[1]))
		ts.Check(err)
		ctx, cancel := context.WithCancel(context.Background())
		agent, ended := nodeagent.New(set), make(chan error, 1)
		go func() {
			ended <- serveControl(ctx, listener, agent, func() status { return status{Status: agent.Status()} })
		}()
		ts.Defer(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// exits runs a command that must end with exactly that code: exits 2 node_agent …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code is %d, want %d", code, want)
	}
}
