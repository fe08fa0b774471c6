package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// Namespaces are what the first process of a node is started in.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// First is the first process in the node's namespaces: it makes them a place to
// run pods in, and then buries the dead until the context ends.
func (n Node) First(ctx context.Context) error {
	if os.Getpid() != 1 {
		return errors.New("the first process of a node must be started in new namespaces")
	}
	if err := n.mounts(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(n.Name)); err != nil {
		return fmt.Errorf("name the node: %w", err)
	}
	if err := makeCgroup(n.Cgroup()); err != nil {
		return err
	}
	if err := awaitInterface(ctx); err != nil {
		return err
	}
	if err := n.answer(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(n.ReadyFile(), nil, 0o600); err != nil {
		return fmt.Errorf("tell that the node is ready: %w", err)
	}
	bury(ctx)
	return nil
}

// networkCache is where network plugins keep notes, wherever they are told to.
const networkCache = "/var/lib/cni"

// mounts gives the node what it must not share: its view of processes and of
// its network, and the directories whose place in the file system is fixed.
func (n Node) mounts() error {
	if err := os.MkdirAll(networkCache, 0o755); err != nil { // to mount on
		return fmt.Errorf("make a place for the network plugins' notes: %w", err)
	}
	for _, m := range []struct {
		kind, target string
		flags        uintptr
	}{
		{"", "/", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/var/log", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", networkCache, unix.MS_NOSUID | unix.MS_NODEV},
		{"", "/", unix.MS_REC | unix.MS_SHARED}, // for volumes: within the node's namespace
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// awaitInterface returns when the machine has connected the node.
func awaitInterface(ctx context.Context) error {
	for {
		_, err := os.Stat("/proc/sys/net/ipv4/conf/eth0")
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the network of the node: %w", context.Cause(ctx))
		case <-time.After(sweepInterval):
		}
	}
}

// bury reaps every process whose parent is gone.
func bury(ctx context.Context) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	for {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		select {
		case <-died:
		case <-ctx.Done():
			return
		}
	}
}
