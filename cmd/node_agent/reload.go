package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"citadel/ca/regular"
)

// reload makes programs read the files anew; nil does nothing.
type reload func(context.Context) error

// reloadLimit is what one reload may take.
const reloadLimit = 30 * time.Second

func (c *config) checkReload() {
	given := 0
	if c.reloadCommand != "" {
		given++
		c.reload = runs("/bin/sh", "-c", c.reloadCommand)
	}
	if c.reloadUnit != "" {
		given++
		if strings.HasPrefix(c.reloadUnit, "-") {
			c.flags.Problem("reload-unit", "%q is no name of a unit", c.reloadUnit)
		}
		c.reload = runs("systemctl", "--no-ask-password", "try-reload-or-restart", c.reloadUnit)
	}
	if c.reloadSignal != "" {
		given++
		file, name, ok := cutLast(c.reloadSignal, ":")
		signal := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
		if !ok || file == "" || signal == 0 {
			c.flags.Problem("reload-signal", "%q is not of the form PIDFILE:SIGNAL, as /run/nginx.pid:HUP", c.reloadSignal)
		}
		c.reload = func(context.Context) error { return sendTo(file, signal, readPID) }
	}
	if given > 1 {
		c.flags.Problem("reload-command", "--reload-signal and --reload-unit are ways to do one thing: give one of them")
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// runs is a reload by a command; what it prints is part of its error.
func runs(name string, args ...string) reload {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, reloadLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with all that it started
		cmd.WaitDelay = time.Second
		var out beginning
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if err == nil || errors.Is(err, exec.ErrWaitDelay) { // it left children that hold its output
			return nil
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("it took longer than %s", reloadLimit)
		}
		err = fmt.Errorf("%s: %w", strings.Join(append([]string{name}, args...), " "), err)
		if text := strings.TrimSpace(string(out)); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return err
	}
}

// beginning keeps the beginning of what is written.
type beginning []byte

// Write is of io.Writer.
func (b *beginning) Write(p []byte) (int, error) {
	const most = 500
	*b = append(*b, p[:min(len(p), most-len(*b))]...)
	return len(p), nil
}

// sendTo signals the process of a PID file. The process is held before the file
// is read again: one that has ended meanwhile, and whose number somebody else
// has, is not hit.
func sendTo(file string, signal syscall.Signal, readPID func(string) (int, error)) error {
	for range 3 {
		pid, err := readPID(file)
		if err != nil {
			return err
		}
		process, err := os.FindProcess(pid) // by pidfd: it stays this process
		if err != nil {
			return fmt.Errorf("signal the process of %s: %w", file, err)
		}
		again, err := readPID(file)
		if err == nil && again == pid {
			err = process.Signal(signal)
			_ = process.Release()
			if err == nil || !errors.Is(err, os.ErrProcessDone) {
				return wrapSignal(file, pid, err)
			}
			return fmt.Errorf("process %d of %s is not running", pid, file)
		}
		_ = process.Release()
	}
	return fmt.Errorf("PID file %s changes all the time", file)
}

func wrapSignal(file string, pid int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("signal process %d of %s: %w", pid, file, err)
}

func readPID(file string) (int, error) {
	text, err := regular.Read(file)
	if err != nil {
		return 0, fmt.Errorf("read the PID file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("PID file %s holds no process's number", file)
	}
	return pid, nil
}
