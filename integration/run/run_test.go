package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// checkout is the folder in which a user runs make.
const checkout = "../.."

// TestWhatIsProposedWorks does what a user would: it runs the demonstration, and
// the commands that this prints.
func TestWhatIsProposedWorks(t *testing.T) {
	runtime.LockOSThread() // the demonstration ends with this thread
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./integration/run", "./cmd/citadel", "./cmd/citadelctl")
	build.Dir = checkout
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	plane, err := filepath.Abs(filepath.Join(checkout, "bin", "controlplane"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(plane, filepath.Join(bin, "controlplane")); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(filepath.Join(bin, "run"), "-bin", bin)
	run.Dir, run.SysProcAttr = checkout, &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	said, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	proposed := proposals(bufio.NewScanner(said))
	if len(proposed) < 8 {
		t.Errorf("it proposes %q", proposed)
	}
	do(t, proposed)
	if err := run.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	for rest := bufio.NewScanner(said); rest.Scan(); {
		t.Log(rest.Text())
	}
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
}

// proposals are the indented lines of what the demonstration says, until it has
// nothing to do but wait.
func proposals(said *bufio.Scanner) (lines []string) {
	for said.Scan() && !strings.Contains(said.Text(), "Ctrl-C") {
		if line, indented := strings.CutPrefix(said.Text(), "    "); indented {
			lines = append(lines, line)
		}
	}
	return lines
}

// do runs the commands, and expects of the questions what the edit makes of them.
func do(t *testing.T, commands []string) {
	t.Helper()
	settings, verdicts := "", []string{}
	for _, command := range commands {
		if strings.HasPrefix(command, "export ") || strings.HasPrefix(command, "umask ") {
			settings += command + "\n"
			continue
		}
		question := strings.Contains(command, "policy explain")
		out, err := shell(t.Context(), settings+command)
		if !question && err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		if question {
			verdict, _, _ := strings.Cut(out, ":")
			verdicts = append(verdicts, verdict)
		}
	}
	last := ""
	for begin := time.Now(); time.Since(begin) < time.Minute && len(verdicts) > 0; { // of the running citadel, in a moment
		out, _ := shell(t.Context(), settings+commands[len(commands)-1])
		if last, _, _ = strings.Cut(out, ":"); last == "CONFLICT" {
			break
		}
	}
	if got := fmt.Sprint(verdicts, last); len(verdicts) != 3 || verdicts[0] != "OK" || verdicts[1] != "CONFLICT" || last != "CONFLICT" {
		t.Errorf("the answers are %s", got)
	}
}

func shell(ctx context.Context, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", "-ec", script)
	cmd.Dir = checkout
	out, err := cmd.CombinedOutput()
	return string(out), err
}
