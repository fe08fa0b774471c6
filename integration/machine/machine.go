// Package machine makes hosts for tests out of namespaces of this machine: each
// boots a systemd of its own, and has its own processes, network, users and
// files, which are this machine's but for what the host changed.
//
// It needs root. It refuses to plug a host in: who makes hosts knows what network
// they are to be in.
package machine

import (
	"bytes"
	"context"
	_ "embed" // boot.sh
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Patience bounds what a host may take to boot, to power off, and for one command.
const Patience = 90 * time.Second

// Machine is a host: a folder that holds what differs from this machine, a
// network, and while it is on, a systemd. One goroutine switches it on and off.
type Machine struct {
	Name string

	dir, rooms string
	cable      *exec.Cmd // holds the network
	first      *exec.Cmd // the first process; nil while the host is off
	ended      chan struct{}
}

// New is a host that is off, with a network that leads nowhere. Its folder is
// made in rooms, whose name tells apart hosts of the same name.
func New(name, rooms string) (*Machine, error) {
	m := &Machine{Name: name, dir: filepath.Join(rooms, name), rooms: rooms}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return nil, err
	}
	m.cable = exec.Command("unshare", "--net", "sleep", "infinity")
	m.cable.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := m.cable.Start(); err != nil {
		return nil, fmt.Errorf("make the network of host %s: %w", name, err)
	}
	if err := m.awaitNetwork(); err != nil {
		m.Remove()
		return nil, err
	}
	return m, nil
}

// awaitNetwork waits until the cable's process has left our network.
func (m *Machine) awaitNetwork() error {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	return await(context.Background(), func() (bool, error) {
		theirs, err := os.Readlink(m.Network())
		return err == nil && theirs != ours, err
	})
}

// await asks until the answer is true, and gives up after Patience.
func await(ctx context.Context, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for {
		done, err := ask()
		if done {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// NetworkPID is a process in the host's network, on or off.
func (m *Machine) NetworkPID() int { return m.cable.Process.Pid }

// Network is the file of the host's network namespace.
func (m *Machine) Network() string { return fmt.Sprintf("/proc/%d/ns/net", m.NetworkPID()) }

// IP runs commands of ip(8) in the host's network.
func (m *Machine) IP(commands ...string) error {
	for _, command := range commands {
		args := append([]string{"--net=" + m.Network(), "ip"}, strings.Fields(command)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: ip %s: %w: %s", m.Name, command, err, out)
		}
	}
	return nil
}

//go:embed boot.sh
var bootScript string

// Boot switches the host on, and returns when services can be started. The host
// finds the folders in /run/test, as source and programs.
func (m *Machine) Boot(ctx context.Context, source, programs string) error {
	source, err := filepath.Abs(source)
	if err != nil {
		return err
	}
	console, err := os.OpenFile(filepath.Join(m.dir, "console"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer console.Close() // the process has its own copy
	m.first = exec.Command("nsenter", "--net="+m.Network(), "sh", "-c", bootScript)
	m.first.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOST=" + m.dir, "NAME=" + m.Name, "HIERARCHY=" + m.hierarchy(), "SOURCE=" + source, "PROGRAMS=" + programs}
	m.first.Stdout, m.first.Stderr = console, console
	m.first.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	if err := m.first.Start(); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	m.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // a power cut is no error
		close(ended)
	}(m.first, m.ended)
	// Certificates live for seconds here, on a machine that does much else.
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, m.first.Process.Pid, -10); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	return await(ctx, func() (bool, error) {
		select {
		case <-m.ended:
			return true, fmt.Errorf("%s ended at boot", m.Name)
		default:
			_, err := m.Shell(ctx, "systemctl is-active --quiet sysinit.target")
			return err == nil, err
		}
	})
}

// hierarchy is the name of the host's control groups.
func (m *Machine) hierarchy() string { return filepath.Base(m.rooms) + "-" + m.Name }

// PowerOff stops the host in order.
func (m *Machine) PowerOff() error {
	if _, err := m.Shell(context.Background(), "systemctl --no-block poweroff"); err != nil {
		return err
	}
	select {
	case <-m.ended:
		return nil
	case <-time.After(Patience):
		return fmt.Errorf("%s is not off after %s", m.Name, Patience)
	}
}

// CutPower ends every process of the host at once.
func (m *Machine) CutPower() {
	_ = m.first.Process.Kill() // that it is off already is fine
	<-m.ended
}

// Remove ends the host, and what the kernel keeps of it.
func (m *Machine) Remove() {
	if m.ended != nil {
		m.CutPower()
	}
	_ = m.cable.Process.Kill()
	_ = m.cable.Wait() // killed
	groups := exec.Command("unshare", "--mount", "sh", "-c", `mount -t cgroup -o none,name="$0" cgroup "$1" && find "$1" -mindepth 1 -depth -type d -exec rmdir {} +`, m.hierarchy(), filepath.Join(m.dir, "dev"))
	_ = groups.Run() // the next boot of this machine ends them otherwise
}

// Command is one that runs in the host.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	pid := fmt.Sprint(m.first.Process.Pid)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", pid, "--mount", "--pid", "--uts", "--ipc", "--net", "--wd=/", "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive"}
	cmd.WaitDelay = time.Second
	return cmd
}

// Shell runs lines of shell in the host, and returns what they print. The first
// that fails ends them.
func (m *Machine) Shell(ctx context.Context, lines string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := m.Command(ctx, "sh", "-ec", lines)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %s: %w: %s%s", m.Name, strings.TrimSpace(lines), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), err
}

// Write puts a file into the host.
func (m *Machine) Write(ctx context.Context, path, mode, text string) error {
	cmd := m.Command(ctx, "install", "-D", "-m", mode, "/dev/stdin", path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: write %s: %w: %s", m.Name, path, err, out)
	}
	return nil
}

// Journal is the end of what the host tells of itself.
func (m *Machine) Journal() string {
	out, err := m.Shell(context.Background(), "journalctl --no-pager --lines=60 --output=short-precise")
	console, _ := os.ReadFile(filepath.Join(m.dir, "console")) // what is not there is not shown
	return fmt.Sprintf("the end of %s's journal:\n%s\n%v\nits console:\n%s", m.Name, out, err, console)
}
