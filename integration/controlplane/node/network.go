package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
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

// widest is the length of the widest prefix that counts: routes of a whole private
// range, as VPNs have, are meant to give way to narrower ones.
const widest = 9

// Clash is the first of the machine's prefixes that has addresses of the link; it
// is false where there is none.
func (l Link) Clash(machine []netip.Prefix) (netip.Prefix, bool) {
	for _, taken := range machine {
		if taken.Bits() >= widest && (taken.Overlaps(l.Host.Masked()) || taken.Overlaps(l.Pods)) {
			return taken, true
		}
	}
	return netip.Prefix{}, false
}

// MachinePrefixes are the IPv4 networks that this machine reaches, by its main
// table of routes, and those of its own addresses.
func MachinePrefixes() ([]netip.Prefix, error) {
	text, err := os.ReadFile("/proc/self/net/route")
	if err != nil {
		return nil, fmt.Errorf("read the machine's routes: %w", err)
	}
	prefixes, err := parseRoutes(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the machine's routes: %w", err)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the machine's addresses: %w", err)
	}
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Addr().Is4() {
			prefixes = append(prefixes, prefix.Masked())
		}
	}
	return prefixes, nil
}

// parseRoutes reads the kernel's table: destination and mask are its second and
// eighth words, numbers in the machine's order of bytes.
func parseRoutes(text string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines[1:] {
		words := strings.Fields(line)
		if len(words) < 8 {
			return nil, fmt.Errorf("line %q has %d words", line, len(words))
		}
		destination, err := strconv.ParseUint(words[1], 16, 32)
		mask, err2 := strconv.ParseUint(words[7], 16, 32)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		var address [4]byte
		binary.NativeEndian.PutUint32(address[:], uint32(destination))
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4(address), bits.OnesCount32(uint32(mask))))
	}
	return prefixes, nil
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
