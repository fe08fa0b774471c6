package hosts

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// host is a machine: a folder that holds what differs from this one, a network,
// and while it is on, a systemd.
type host struct {
	name, dir string
	number    int
	cable     *exec.Cmd // holds the network
	first     *exec.Cmd // the first process; nil while the host is off
	ended     chan struct{}
}

var hosts atomic.Int32

// newHost is one that is off, with its cable plugged into the authority's switch.
func newHost(name string) (*host, error) {
	h := &host{name: name, dir: filepath.Join(rooms, name), number: int(hosts.Add(1))}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return nil, err
	}
	h.cable = exec.Command("unshare", "--net", "sleep", "infinity")
	h.cable.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := h.cable.Start(); err != nil {
		return nil, err
	}
	return h, errors.Join(h.awaitNetwork(), h.plugIn())
}

// awaitNetwork waits until the cable's process has left our network.
func (h *host) awaitNetwork() error {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	return poll(10*time.Second, func() error {
		theirs, err := os.Readlink(h.network())
		if err == nil && theirs == ours {
			err = errors.New("the network is still ours")
		}
		return err
	})
}

func (h *host) network() string { return fmt.Sprintf("/proc/%d/ns/net", h.cable.Process.Pid) }

// address is the host's own.
func (h *host) address() string { return fmt.Sprintf("10.77.0.%d", h.number) }

// plugIn gives the host its address, on a link to the bridge in the first
// host's network.
func (h *host) plugIn() error {
	if h.number == 1 {
		return h.ip("link set lo up", "link add switch address 02:00:00:00:00:01 type bridge", // its own: else it is a port's, and changes with them
			"addr add 10.77.0.1/24 dev switch", "link set switch up")
	}
	port := h.port()
	return errors.Join(
		h.ip("link set lo up", fmt.Sprintf("link add eth0 type veth peer name %s netns %d", port, authority.cable.Process.Pid),
			"addr add "+h.address()+"/24 dev eth0", "link set eth0 up"),
		authority.ip("link set "+port+" master switch", "link set "+port+" up"))
}

func (h *host) port() string { return fmt.Sprintf("port%d", h.number) }

// ip runs commands of ip(8) in the host's network.
func (h *host) ip(commands ...string) error {
	for _, command := range commands {
		args := append([]string{"--net=" + h.network(), "ip"}, strings.Fields(command)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: ip %s: %w: %s", h.name, command, err, out)
		}
	}
	return nil
}

//go:embed testdata/boot.sh
var bootScript string

// boot switches the host on, and returns when services can be started.
func (h *host) boot() error {
	console, err := os.OpenFile(filepath.Join(h.dir, "console"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer console.Close() // the process has its own copy
	source, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	h.first = exec.Command("nsenter", "--net="+h.network(), "sh", "-c", bootScript)
	h.first.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOST=" + h.dir, "NAME=" + h.name, "HIERARCHY=" + h.hierarchy(), "SOURCE=" + source, "PROGRAMS=" + programs}
	h.first.Stdout, h.first.Stderr = console, console
	h.first.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	if err := h.first.Start(); err != nil {
		return err
	}
	// Certificates live for seconds here, on a machine that does much else.
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, h.first.Process.Pid, -10); err != nil {
		return err
	}
	h.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // a power cut is no error
		close(ended)
	}(h.first, h.ended)
	return poll(patience, func() error {
		select {
		case <-h.ended:
			return enough{fmt.Errorf("%s ended at boot", h.name)}
		default:
			_, err := h.sh("systemctl is-active --quiet sysinit.target")
			return err
		}
	})
}

// hierarchy is the name of the host's control groups.
func (h *host) hierarchy() string { return filepath.Base(rooms) + "-" + h.name }

// powerOff stops the host in order.
func (h *host) powerOff() error {
	if _, err := h.sh("systemctl --no-block poweroff"); err != nil {
		return err
	}
	select {
	case <-h.ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s is not off after %s", h.name, patience)
	}
}

// cutPower ends every process of the host at once.
func (h *host) cutPower() {
	_ = h.first.Process.Kill() // that it is off already is fine
	<-h.ended
}

// remove ends the host, and what the kernel keeps of it.
func (h *host) remove() {
	if h.first != nil {
		h.cutPower()
	}
	_ = h.cable.Process.Kill()
	_ = h.cable.Wait()
	groups := exec.Command("unshare", "--mount", "sh", "-c", `mount -t cgroup -o none,name="$0" cgroup "$1" && find "$1" -mindepth 1 -depth -type d -exec rmdir {} +`, h.hierarchy(), filepath.Join(h.dir, "dev"))
	_ = groups.Run() // the next boot of this machine ends them otherwise
}

// command is one that runs in the host.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	pid := fmt.Sprint(h.first.Process.Pid)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", pid, "--mount", "--pid", "--uts", "--ipc", "--net", "--wd=/", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive"}
	cmd.WaitDelay = time.Second
	return cmd
}

// sh runs lines of shell in the host, and returns what they print. The first
// that fails ends them.
func (h *host) sh(lines string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := h.command(ctx, "sh", "-ec", lines)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %s: %w: %s%s", h.name, strings.TrimSpace(lines), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), err
}

// run is sh for what must succeed.
func (h *host) run(t *testing.T, lines string) string {
	t.Helper()
	out, err := h.sh(lines)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// write puts a file into the host.
func (h *host) write(t *testing.T, path, mode, text string) {
	t.Helper()
	cmd := h.command(t.Context(), "install", "-D", "-m", mode, "/dev/stdin", path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: write %s: %v: %s", h.name, path, err, out)
	}
}

// journal is the end of what the host tells of itself.
func (h *host) journal() string {
	out, err := h.sh("journalctl --no-pager --lines=60 --output=short-precise")
	console, _ := os.ReadFile(filepath.Join(h.dir, "console")) // what is not there is not shown
	return fmt.Sprintf("the end of %s's journal:\n%s\n%v\nits console:\n%s", h.name, out, err, console)
}

// start is a new host that is on, until the test's end.
func start(t *testing.T, name string) *host {
	t.Helper()
	h, err := newHost(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.remove)
	if err := h.boot(); err != nil {
		t.Fatalf("%v\n%s", err, h.journal())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.journal())
		}
	})
	return h
}
