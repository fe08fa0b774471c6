package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"
)

// Enter runs this program again in the namespaces of the process, with a command
// line that calls Inside first, and returns its exit code. It passes on signals
// that ask for an end. It changes the calling goroutine's thread for good.
func Enter(pid int, args []string) (int, error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := join(pid); err != nil {
		return 0, fmt.Errorf("enter the node: %w", err)
	}
	command := exec.Command("/proc/self/exe", args...) // as the child will see it
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(ends)
	if err := command.Start(); err != nil {
		return 0, fmt.Errorf("run %s in the node: %w", args, err)
	}
	over := make(chan struct{})
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		for {
			select {
			case s := <-ends:
				_ = command.Process.Signal(s) // it may have ended
			case <-over:
				return
			}
		}
	}()
	err := command.Wait()
	close(over)
	<-forwarded
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return 0, fmt.Errorf("run %s in the node: %w", args, err)
	}
	return command.ProcessState.ExitCode(), nil
}

// Inside makes this process, which Enter started, die with the one that did:
// exec.Cmd cannot, it takes a parent in other namespaces for a dead one. And it
// gives it a usual umask: pods run as users that must be able to read images.
func Inside() error {
	unix.Umask(0o022)
	runtime.LockOSThread() // the wish is the thread's
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for an end with the parent: %w", err)
	}
	if os.Getppid() != 0 {
		return errors.New("the process that entered the node is gone")
	}
	return nil
}

// Become replaces this process by a program of the machine.
func Become(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}

// join puts the calling thread into the namespaces of a process, and those that
// it starts among its processes.
func join(pid int) error {
	var held []*os.File
	kinds := []string{"pid", "net", "uts", "ipc", "mnt"} // mounts last: they hide this /proc
	for _, kind := range kinds {
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return err
		}
		defer file.Close()
		if err := foreign(file, kind); err != nil {
			return fmt.Errorf("process %d is of no node: %w", pid, err)
		}
		held = append(held, file)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // threads share a root directory otherwise
		return fmt.Errorf("take leave of the machine's root: %w", err)
	}
	for i, file := range held {
		if err := unix.Setns(int(file.Fd()), 0); err != nil {
			return fmt.Errorf("join its %s namespace: %w", kinds[i], err)
		}
	}
	return nil
}

// foreign is nil when a namespace is not this process's own. A process that has
// got the number of a node's that has ended has the same as all.
func foreign(file *os.File, kind string) error {
	theirs, err := file.Stat()
	if err != nil {
		return err
	}
	own, err := os.Stat("/proc/self/ns/" + kind)
	if err != nil {
		return err
	}
	if os.SameFile(theirs, own) {
		return fmt.Errorf("its %s namespace is the machine's", kind)
	}
	return nil
}

// Check tells what of a node's programs this machine lacks, and who may run
// them.
func Check() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root: it makes namespaces, mounts and network interfaces")
	}
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("a node is for amd64 only: its pause image is, and this is %s", runtime.GOARCH)
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a node needs %s: install Debian's packages %v", program, Packages)
		}
	}
	if _, err := os.Stat(plugins); err != nil {
		return fmt.Errorf("a node needs network plugins: install Debian's packages %v", Packages)
	}
	return nil
}
