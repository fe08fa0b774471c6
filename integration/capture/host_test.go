package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"citadel/nodeagent/redirect"
)

// patience is what a loaded machine may take for what is done at once.
const patience = 20 * time.Second

// host is a network of its own.
type host struct {
	t    *testing.T
	name string
	net  *os.File // the namespace
}

func newHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{t: t, name: name}
	err := apart(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			h.net, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.net.Close() })
	h.run("ip", "link", "set", "lo", "up")
	return h
}

// neighbours are two hosts with a cable between them.
func neighbours(t *testing.T) (here, there *host) {
	t.Helper()
	here, there = newHost(t, "here"), newHost(t, "there")
	here.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
	here.run("ip", "link", "set", "peer0", "netns", there.path(), "name", "eth0")
	for h, n := range map[*host]int{here: 1, there: 2} {
		h.run("ip", "address", "add", fmt.Sprintf("10.99.0.%d/24", n), "dev", "eth0")
		h.run("ip", "address", "add", fmt.Sprintf("fd99::%d/64", n), "dev", "eth0", "nodad")
		h.run("ip", "link", "set", "eth0", "up")
	}
	return here, there
}

// path is the network's, for other processes.
func (h *host) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.net.Fd()) }

// apart runs f on a thread of its own, which ends with it: what f makes of the
// thread nobody inherits.
func apart(f func() error) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ended <- f()
	}()
	return <-ended
}

// in runs f in the host, as a user and a group.
func (h *host) in(uid, gid int, f func() error) error {
	return apart(func() error {
		if err := unix.Setns(int(h.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", h.name, err)
		}
		// Of this thread alone: Go's own functions do it for all.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			return errno
		}
		return f()
	})
}

// attempt runs a program in the host as root.
func (h *host) attempt(args ...string) (out string, err error) {
	err = h.in(0, 0, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		said, err := cmd.CombinedOutput()
		out = string(said)
		return err
	})
	return out, err
}

func (h *host) run(args ...string) string {
	h.t.Helper()
	out, err := h.attempt(args...)
	if err != nil {
		h.t.Fatalf("%s: %.300q: %v: %s", h.name, args, err, out)
	}
	return out
}

// install runs node_agent redirect install in the host.
func (h *host) install(flags ...string) {
	h.t.Helper()
	h.run(append([]string{agent, "redirect", "install"}, flags...)...)
}

// rules are what nft sees.
func (h *host) rules() string {
	h.t.Helper()
	return h.run("nft", "list", "ruleset")
}

// listen accepts connections in the host until the test ends, and hands each to
// serve, which need not close it.
func (h *host) listen(address string, serve func(*net.TCPConn)) {
	h.t.Helper()
	var listener net.Listener
	if err := h.in(0, 0, func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(context.Background(), network(address), address)
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	h.t.Cleanup(func() {
		listener.Close()
		open.Wait()
	})
}

// network is tcp4 for addresses of IPv4: a listener for all of those of IPv6 is
// one of both.
func network(address string) string {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// says is a server that says who it is.
func says(text string) func(*net.TCPConn) {
	return func(c *net.TCPConn) { fmt.Fprintln(c, text) }
}

// originals is a server that says where connections were meant for.
func originals(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		at, err := redirect.Original(c)
		if errors.Is(err, redirect.ErrNotRedirected) {
			fmt.Fprintln(c, name, "not redirected")
			return
		}
		fmt.Fprintln(c, name, at, err)
	}
}

// call connects from the host as a user and a group, and returns what the server
// says, or why there is none.
func (h *host) call(uid, gid int, address string) string {
	c, err := h.dial(uid, gid, address)
	if err != nil {
		return reason(err)
	}
	defer c.Close()
	return heard(c)
}

// tell connects from an address, says a line and returns what is answered until the
// connection is reset.
func (h *host) tell(uid int, from netip.AddrPort, to, line string) (answer string) {
	var c net.Conn
	err := h.in(uid, someGID, func() (err error) {
		c, err = (&net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(from)}).Dial("tcp", to)
		return err
	})
	if err != nil {
		return reason(err)
	}
	defer c.Close()
	fmt.Fprintln(c, line)
	_ = c.SetDeadline(time.Now().Add(patience))
	all, _ := io.ReadAll(c) // to the reset
	return strings.TrimSpace(string(all))
}

func heard(c net.Conn) string {
	_ = c.SetDeadline(time.Now().Add(patience)) // of a connection that is open
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return reason(err)
	}
	return strings.TrimSpace(line)
}

func (h *host) dial(uid, gid int, address string) (c net.Conn, err error) {
	err = h.in(uid, gid, func() error {
		c, err = (&net.Dialer{Timeout: patience}).Dial("tcp", address)
		return err
	})
	return c, err
}

func reason(err error) string {
	if errno, is := errors.AsType[syscall.Errno](err); is {
		return errno.Error()
	}
	return err.Error()
}
