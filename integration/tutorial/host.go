package tutorial

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"citadel/integration/machine"
)

// host is a machine outside of the cluster, in reach of its pods.
type host struct{ *machine.Machine }

// hostLink is the wire between the node and the host.
var hostLink = netip.MustParsePrefix("10.251.0.0/30")

// The two ends of it.
const (
	hostAddress = "10.251.0.2"
	nodeAddress = "10.251.0.1"
)

// hostName is what the company's DNS has for the host, which the cluster's does
// not know.
const hostName = "web.vm.example.org"

// newHost boots a host that reaches the cluster's services by the node, and has
// the agent's package, and httpbin at loopback.
func (w *World) newHost(ctx context.Context) error {
	m, err := machine.New("web-1", w.dir)
	if err != nil {
		return err
	}
	w.host = &host{m}
	if err := w.host.plugIn(w.nodePID); err != nil {
		return err
	}
	if err := w.packages(ctx); err != nil {
		return err
	}
	if err := w.host.Boot(ctx, w.checkout, w.programs()); err != nil {
		return fmt.Errorf("%w\n%s", err, w.host.Journal())
	}
	_, err = w.host.Shell(ctx, hostSetup)
	return err
}

// plugIn lays a wire from the node to the host.
func (h *host) plugIn(node int) error {
	err := h.IP("link set lo up", fmt.Sprintf("link add eth0 type veth peer name web-1 netns %d", node),
		"addr add "+hostAddress+"/30 dev eth0", "link set eth0 up")
	if err != nil {
		return err
	}
	for _, command := range []string{"addr add " + nodeAddress + "/30 dev web-1", "link set web-1 up"} {
		args := append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", node), "ip"}, strings.Fields(command)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("connect the host: ip %s: %w: %s", command, err, out)
		}
	}
	return h.IP("route add default via " + nodeAddress)
}

// hostSetup is what an administrator has done before the tutorial begins.
const hostSetup = `
	rm -f /etc/resolv.conf
	printf 'nameserver 10.96.0.10\nsearch svc.cluster.local cluster.local\noptions ndots:5\n' >/etc/resolv.conf
	printf '[Service]\nExecStart=/run/test/programs/go-httpbin -host=127.0.0.1 -port=8080\nDynamicUser=yes\n' >/etc/systemd/system/httpbin.service
	systemctl daemon-reload
	systemctl start httpbin`

// packages makes the agent's.
func (w *World) packages(ctx context.Context) error {
	make := exec.CommandContext(ctx, "make", "-C", w.checkout, "packages", "BIN="+w.programs(), "ARCH="+runtime.GOARCH)
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", make.Args, err, out)
	}
	return nil
}

// programs is the folder of what was built.
func (w *World) programs() string { return filepath.Join(w.dir, "programs") }
