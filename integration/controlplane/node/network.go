package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Link is the wire between the machine and a node: an interface on each end.
type Link struct {
	Name string       // of the machine's end; the node's is eth0
	Host netip.Prefix // the machine's address
	Node netip.Prefix // the node's
	Pods netip.Prefix // its pods', which the machine reaches by the node
}

// Links is how many nodes one machine can have at once.
const Links = 250

// Free tells whether the machine has no such interface yet.
func (l Link) Free() bool {
	_, err := os.Stat("/sys/class/net/" + l.Name)
	return errors.Is(err, os.ErrNotExist)
}

// NumberedLink is one of the links that a machine can have.
func NumberedLink(i int) Link {
	host := netip.AddrFrom4([4]byte{10, 250, byte(i), 1})
	pods := netip.AddrFrom4([4]byte{10, 244, byte(i), 0})
	return Link{
		Name: fmt.Sprintf("cpnode%d", i), Host: netip.PrefixFrom(host, 30), Node: netip.PrefixFrom(host.Next(), 30),
		Pods: netip.PrefixFrom(pods, 24),
	}
}

// freePeriod is how long the kernel may take to end a namespace, which it does
// after the last process is gone.
const freePeriod = 30 * time.Second

func (l Link) awaitFree(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, freePeriod, fmt.Errorf("not in %v", freePeriod))
	defer cancel()
	for !l.Free() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of the former %s: %w", l.Name, context.Cause(ctx))
		case <-time.After(sweepInterval):
		}
	}
	return nil
}

// Connect lays the link from the machine into the namespace of the process, once
// the kernel has taken away that of a former one.
func (l Link) Connect(ctx context.Context, pid int) error {
	if err := l.awaitFree(ctx); err != nil {
		return err
	}
	return run(ctx,
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", l.Name, pid),
		fmt.Sprintf("ip address add %s dev %s", l.Host, l.Name),
		fmt.Sprintf("ip link set %s up", l.Name),
		fmt.Sprintf("ip route add %s via %s", l.Pods, l.Node.Addr()))
}

// answer sets up the node's end, and forwarding for its pods, who reach the
// machine by the node's address.
func (n Node) answer(ctx context.Context) error {
	err := run(ctx,
		"ip link set lo up",
		fmt.Sprintf("ip address add %s dev eth0", n.Link.Node),
		"ip link set eth0 up",
		fmt.Sprintf("ip route add default via %s", n.Link.Host.Addr()))
	if err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("forward packets of pods: %w", err)
	}
	rules := exec.CommandContext(ctx, "nft", "-f", "-")
	rules.Stdin = strings.NewReader(fmt.Sprintf(`table ip controlplane {
	chain leaving {
		type nat hook postrouting priority srcnat;
		ip saddr %s oifname "eth0" masquerade
	}
}
`, n.Link.Pods))
	if out, err := rules.CombinedOutput(); err != nil {
		return fmt.Errorf("set up nftables: %w: %s", err, out)
	}
	return nil
}

// run carries out commands up to the first that fails.
func run(ctx context.Context, commands ...string) error {
	for _, text := range commands {
		words := strings.Fields(text)
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", text, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
