package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reloads is the reload of a flag.
func reloads(t *testing.T, flag string) reload {
	t.Helper()
	c, err := configure(t, nil, flag)
	if err != nil {
		t.Fatal(err)
	}
	return c.reload
}

func TestReloadCommand(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	for name, c := range map[string]struct {
		command string
		want    string // of the error; empty: none
	}{
		"works":                        {"echo x > " + done, ""},
		"prints and works":             {"head -c 10000000 /dev/zero", ""},
		"fails":                        {"exit 3", "/bin/sh -c exit 3: exit status 3"},
		"fails and prints":             {"echo unit not loaded; echo 'and more' >&2; exit 1", "exit status 1: unit not loaded\nand more"},
		"is not there":                 {"no-such-program", "exit status 127: "},
		"is killed":                    {"kill -9 $$", "signal: killed"},
		"leaves a child with its pipe": {"sleep 600 &", ""},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			err := reloads(t, "--reload-command="+c.command)(t.Context())
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	if _, err := os.Stat(done); err != nil {
		t.Error(err)
	}
	if err := reloads(t, "--reload-command=yes; exit 1 # "+strings.Repeat("x", 1000)+"")(cut(t)); err == nil || len(err.Error()) > 2000 {
		t.Errorf("a command that prints without end: %.100v", err)
	}
}

// cut is a context that ends soon.
func cut(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// TestReloadThatHangs is killed with all that it started.
func TestReloadThatHangs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // its time is over once there is something to kill
		for ctx.Err() == nil {
			if _, err := readPID(file); err == nil {
				cancel()
			}
			<-time.After(time.Millisecond)
		}
	}()
	err := reloads(t, "--reload-command=sleep 600 & echo $! >"+file+".new; mv "+file+".new "+file+"; wait")(ctx)
	if err == nil || !strings.Contains(err.Error(), "it took longer than 30s") {
		t.Errorf("%v", err)
	}
	pid, err := readPID(file)
	if err != nil {
		t.Fatal(err)
	}
	within(t, func() error {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(state), ") Z ") {
			return nil
		}
		return fmt.Errorf("its child lives: %s", state)
	})
}

// within asks until there is no error, or it is too late.
func within(t *testing.T, ask func() error) {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(err)
		}
	}
}

// TestReloadUnit: systemctl is asked by the unit's name, and what it says is
// told.
func TestReloadUnit(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\necho \"$@\"\nexit 5\n"
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	err := reloads(t, "--reload-unit=nginx.service; rm -rf /")(t.Context())
	const want = "systemctl --no-ask-password try-reload-or-restart nginx.service; rm -rf /: exit status 5: --no-ask-password try-reload-or-restart nginx.service; rm -rf /"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := reloads(t, "--reload-unit=nginx")(t.Context()); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// catcher is a process of ours that notes SIGUSR1.
func catcher(t *testing.T) (pid int, caught string) {
	t.Helper()
	dir := t.TempDir()
	caught = filepath.Join(dir, "caught")
	// Not HUP: where that was ignored before (nohup), a shell cannot trap it.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "trap 'echo x >> "+caught+"' USR1; : > "+caught+"; while :; do sleep 0.02; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	within(t, func() error { _, err := os.Stat(caught); return err })
	return cmd.Process.Pid, caught
}

func TestReloadSignal(t *testing.T) {
	pid, caught := catcher(t)
	for _, text := range []string{strconv.Itoa(pid), " " + strconv.Itoa(pid) + "\n"} {
		if err := reloads(t, "--reload-signal="+written(t, text)+":USR1")(t.Context()); err != nil {
			t.Error(err)
		}
	}
	within(t, func() error {
		if text, _ := os.ReadFile(caught); len(text) == 0 {
			return errors.New("nothing was caught")
		}
		return nil
	})
}

// ended is the number of a process that was.
func ended(t *testing.T) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestPIDFilesThatLeadNowhere(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(t.TempDir(), "missing"):    "read the PID file: open ",
		written(t, ""):                           "holds no process's number",
		written(t, "nginx"):                      "holds no process's number",
		written(t, "0"):                          "holds no process's number", // our own group
		written(t, "1"):                          "holds no process's number", // all of the machine
		written(t, "-1"):                         "holds no process's number", // everybody
		written(t, "12 13"):                      "holds no process's number",
		written(t, "99999999999999999999"):       "holds no process's number",
		written(t, strings.Repeat("1", 2<<20)):   "is larger than",
		pipe:                                     "is no regular file",
		"/dev/zero":                              "is no regular file",
		written(t, strconv.Itoa(ended(t))):       "is not running",
		written(t, strconv.Itoa(4<<20+12345678)): "is not running",
	} {
		if err := reloads(t, "--reload-signal="+file+":HUP")(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}

// TestPIDFileRace: a program restarts between the reading of its PID file and
// the signal (specifications 9.22). Who has the old number is not hit, and who
// has the new one is.
func TestPIDFileRace(t *testing.T) {
	bystander, hit := catcher(t)
	restarted, caught := catcher(t)
	file := written(t, strconv.Itoa(bystander))
	reads := 0
	read := func(path string) (int, error) {
		pid, err := readPID(path)
		if reads++; reads == 1 { // now it restarts
			err = errors.Join(err, os.WriteFile(path, []byte(strconv.Itoa(restarted)), 0o600))
		}
		return pid, err
	}
	if err := sendTo(file, syscall.SIGUSR1, read); err != nil || reads != 4 {
		t.Errorf("%v after %d reads", err, reads)
	}
	within(t, func() error {
		if text, _ := os.ReadFile(caught); len(text) == 0 {
			return errors.New("the restarted program was not told")
		}
		return nil
	})
	if text, _ := os.ReadFile(hit); len(text) != 0 {
		t.Error("somebody else was hit")
	}
	n := 100
	if err := sendTo(file, syscall.SIGHUP, func(string) (int, error) { n++; return n, nil }); err == nil || !strings.Contains(err.Error(), "changes all the time") {
		t.Errorf("%v", err)
	}
}

// TestReloadIsStoppedWithTheAgent: it is not waited for.
func TestReloadIsStoppedWithTheAgent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := reloads(t, "--reload-command=sleep 600")(ctx); err == nil {
		t.Error("it ran")
	}
}
