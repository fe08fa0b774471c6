package tutorial

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"

	"k8s.io/client-go/rest"
)

// What all tests share.
var (
	world *World
	keep  = flag.Bool("keep", false, "leave the state and logs of the run where they are")
)

func init() { runtime.LockOSThread() } // the processes die with the main thread

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "tutorial: NOTHING WAS TESTED: these tests run pods on a node of their own, which needs root and the packages of 'make deps'; as root: make test")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "citadel-tutorial-")
	if err != nil {
		return 0, err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "tutorial: state and logs are in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	world, err = Build(context.Background(), "../..", dir, func(what string) { fmt.Fprintln(os.Stderr, "tutorial:", what) })
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, world.Trouble(context.Background()))
	} else {
		code = m.Run()
	}
	if world != nil {
		if closeErr := world.Close(); err == nil {
			err = closeErr
		}
	}
	return code, err
}

// TestTutorial plays all steps. Each builds on those before it.
func TestTutorial(t *testing.T) {
	for _, step := range Steps() {
		ok := t.Run(step.Name, func(t *testing.T) {
			if err := world.Play(t.Context(), step, Stage{Out: t.Output()}); err != nil {
				t.Fatalf("%v\n%s", err, world.Trouble(context.WithoutCancel(t.Context())))
			}
		})
		if !ok {
			t.FailNow()
		}
	}
}
