// Command demo plays the tutorial of mutual TLS policy for people: it says what it
// does, shows each command before it runs, and what comes of it. On a terminal it
// waits for Enter before each step. It leaves nothing behind, also after Ctrl-C.
//
// It refuses to be a test: the package above it is one, with the same steps.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"citadel/integration/tutorial"
)

func init() { runtime.LockOSThread() } // the cluster's processes die with the main thread

func main() {
	yes := flag.Bool("yes", false, "do not wait for Enter")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, !*yes && terminal(os.Stdin))
	stop()
	switch {
	case err == errStopped:
		fmt.Fprintln(os.Stderr, "demo: stopped; nothing is left behind")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// errStopped says that somebody wanted no more of it.
var errStopped = errors.New("stopped")

func terminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// run is all of it but for the process.
func run(ctx context.Context, wait bool) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("it makes a node of a cluster, with containers and networks of its own, and needs root for that: sudo make demo")
	}
	dir, err := os.MkdirTemp("", "citadel-demo-")
	if err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	fmt.Println("Mutual TLS by policy, in a cluster that is made for this and goes with it. That takes a minute:")
	world, err := tutorial.Build(ctx, ".", dir, func(what string) { fmt.Println("  -", what) })
	defer func() {
		if ctx.Err() != nil {
			err = errStopped // whatever it was that was cut short
		}
		if world != nil {
			err = joined(err, world.Close())
		}
		err = joined(err, os.RemoveAll(dir))
	}()
	if err != nil {
		return err
	}
	stage := tutorial.Stage{Out: os.Stdout}
	if wait {
		stage.Pause = newPause(os.Stdin).wait
	}
	for _, step := range tutorial.Steps() {
		if err := world.Play(ctx, step, stage); err != nil {
			return err
		}
	}
	fmt.Println("\nThat was all of it. The cluster goes.")
	return nil
}

// joined is errors.Join, but leaves one error as it is.
func joined(err, more error) error {
	if more == nil {
		return err
	}
	return errors.Join(err, more)
}

// pause waits for Enter.
type pause struct{ lines chan error }

// newPause reads until the process ends: a read of a terminal cannot be stopped.
func newPause(in io.Reader) pause {
	p := pause{make(chan error)}
	go func() {
		one := make([]byte, 1)
		for {
			_, err := in.Read(one)
			if err != nil || one[0] == '\n' {
				p.lines <- err
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p pause) wait(ctx context.Context) error {
	fmt.Print("   [Enter] ")
	select {
	case err := <-p.lines:
		if errors.Is(err, io.EOF) {
			return errStopped // Ctrl-D
		}
		return err
	case <-ctx.Done():
		fmt.Println()
		return context.Cause(ctx)
	}
}
