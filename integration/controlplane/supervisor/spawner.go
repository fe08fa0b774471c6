package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"citadel/integration/controlplane/node"
)

// lifelineVariable tells a child which file descriptor ends with its parent.
const lifelineVariable = "CONTROLPLANE_LIFELINE"

// lifelineFD is the first of exec.Cmd's extra files.
const lifelineFD = 3

// spawner starts children that do not outlive this process, in two ways. The
// kernel kills them when the thread that started them ends, which also reaches
// those that are stopped; hence one thread that starts them all and that lasts.
// And they see the end of a pipe that only this process holds open.
type spawner struct {
	commands chan *exec.Cmd
	results  chan error
	childEnd *os.File // read by the children
	ownEnd   *os.File // never written; closes with this process
	lock     *os.File // of the directory, for the sweeper; whoever made the spawner closes it
}

func newSpawner(lock *os.File) (*spawner, error) {
	childEnd, ownEnd, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to the components: %w", err)
	}
	s := &spawner{make(chan *exec.Cmd), make(chan error), childEnd, ownEnd, lock}
	go s.loop()
	return s, nil
}

// loop starts what it is sent on a thread of its own. The thread ends with the
// loop, and takes along the children that still run.
func (s *spawner) loop() {
	runtime.LockOSThread()
	for command := range s.commands {
		s.results <- command.Start()
	}
	close(s.results)
}

func (s *spawner) start(command *exec.Cmd) error {
	s.commands <- command
	return <-s.results
}

// close ends the thread; nothing can be started any more.
func (s *spawner) close() error {
	close(s.commands)
	<-s.results
	return errors.Join(s.childEnd.Close(), s.ownEnd.Close())
}

// command is this binary as a component. It is named by what the kernel knows,
// since a build may have put another in its place meanwhile.
func (s *spawner) command(c Component, args []string) *exec.Cmd {
	command := exec.Command("/proc/self/exe", append([]string{string(c)}, args...)...)
	command.Args[0] = "controlplane"
	command.Env = append(childEnvironment(), fmt.Sprintf("%s=%d", lifelineVariable, lifelineFD))
	command.ExtraFiles = []*os.File{s.childEnd}
	command.SysProcAttr = &unix.SysProcAttr{
		Pdeathsig: unix.SIGKILL,
		Setpgid:   true, // a terminal's Ctrl-C is for up alone, which stops them in order
	}
	switch c {
	case Node:
		command.SysProcAttr.Cloneflags = node.Namespaces
	case sweeper:
		command.SysProcAttr.Pdeathsig = 0                       // it has work to do after the end,
		command.ExtraFiles = append(command.ExtraFiles, s.lock) // which nobody else must begin anew
	}
	return command
}

// childEnvironment passes on what tunes a Go program, and no more: etcd takes
// any flag from the environment.
func childEnvironment() []string {
	var kept []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"} {
		if value, ok := os.LookupEnv(name); ok {
			kept = append(kept, name+"="+value)
		}
	}
	return kept
}
