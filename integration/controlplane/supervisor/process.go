package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gracePeriod is how long a component may take to end when it is asked to.
const gracePeriod = 20 * time.Second

// process is one run of a component.
type process struct {
	command  *exec.Cmd
	log      string
	logStart int64         // where this run's lines begin in log
	stopping chan struct{} // closed before anyone here signals the process
	announce func()        // closes stopping, once
	exited   chan struct{} // closed when the process is gone and reaped
	failure  error         // how it ended; read it only after exited
}

// spawn starts a component with its output at the end of the file log.
func (s *spawner) spawn(c Component, args []string, log string) (*process, error) {
	file, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", c, err)
	}
	defer file.Close() // the child has its own
	start, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("find the end of the log of %s: %w", c, err)
	}
	command := s.command(c, args)
	command.Stdout, command.Stderr = file, file
	if err := s.start(command); err != nil {
		return nil, fmt.Errorf("start %s: %w", c, err)
	}
	stopping := make(chan struct{})
	p := &process{
		command:  command,
		log:      log,
		logStart: start,
		stopping: stopping,
		announce: sync.OnceFunc(func() { close(stopping) }),
		exited:   make(chan struct{}),
	}
	go p.reap()
	return p, nil
}

// reap waits for the end of the process. Whoever drops a process waits for
// exited first, and so for this.
func (p *process) reap() {
	p.failure = p.command.Wait()
	close(p.exited)
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// stop asks the process to end, and kills it when it does not in time.
func (p *process) stop(grace time.Duration) error {
	p.announce()
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
	}
	return p.destroy()
}

// kill ends the process without asking.
func (p *process) kill() error {
	p.announce()
	return p.destroy()
}

func (p *process) destroy() error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	<-p.exited // the kernel sees to it
	return nil
}

func (p *process) signal(signal unix.Signal) error {
	err := p.command.Process.Signal(signal)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to process %d: %w", signal, p.command.Process.Pid, err)
	}
	return nil
}

// ending says how the process ended, for a sentence.
func (p *process) ending() string {
	if p.failure == nil {
		return "exit status 0"
	}
	return p.failure.Error()
}

// What of a log an error message quotes.
const (
	tailLines = 12
	tailBytes = 8 << 10
)

// logTail is the end of what this run has written, indented.
func (p *process) logTail() string {
	file, err := os.Open(p.log)
	if err != nil {
		return fmt.Sprintf("  (%v)", err)
	}
	defer file.Close()
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Sprintf("  (%v)", err)
	}
	start := max(p.logStart, end-tailBytes)
	text, err := io.ReadAll(io.NewSectionReader(file, start, end-start))
	if err != nil {
		return fmt.Sprintf("  (%v)", err)
	}
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	return "  " + strings.Join(lines, "\n  ")
}
