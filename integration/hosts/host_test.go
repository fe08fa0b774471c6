package hosts

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"citadel/integration/machine"
)

// host is a machine that is plugged into the authority's switch.
type host struct {
	*machine.Machine
	number int
}

var hosts atomic.Int32

// newHost is one that is off, with its cable plugged in.
func newHost(name string) (*host, error) {
	m, err := machine.New(name, rooms)
	if err != nil {
		return nil, err
	}
	h := &host{m, int(hosts.Add(1))}
	return h, h.plugIn()
}

// address is the host's own.
func (h *host) address() string { return fmt.Sprintf("10.77.0.%d", h.number) }

// plugIn gives the host its address, on a link to the bridge in the first
// host's network.
func (h *host) plugIn() error {
	if h.number == 1 {
		return h.IP("link set lo up", "link add switch address 02:00:00:00:00:01 type bridge", // its own: else it is a port's, and changes with them
			"addr add 10.77.0.1/24 dev switch", "link set switch up")
	}
	port := h.port()
	return errors.Join(
		h.IP("link set lo up", fmt.Sprintf("link add eth0 type veth peer name %s netns %d", port, authority.NetworkPID()),
			"addr add "+h.address()+"/24 dev eth0", "link set eth0 up"),
		authority.IP("link set "+port+" master switch", "link set "+port+" up"))
}

func (h *host) port() string { return fmt.Sprintf("port%d", h.number) }

// boot switches the host on.
func (h *host) boot() error { return h.Boot(context.Background(), "../..", programs) }

// sh runs lines of shell in the host, and returns what they print. The first
// that fails ends them.
func (h *host) sh(lines string) (string, error) { return h.Shell(context.Background(), lines) }

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
	if err := h.Write(t.Context(), path, mode, text); err != nil {
		t.Fatal(err)
	}
}

// start is a new host that is on, until the test's end.
func start(t *testing.T, name string) *host {
	t.Helper()
	h, err := newHost(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Remove)
	if err := h.boot(); err != nil {
		t.Fatalf("%v\n%s", err, h.Journal())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.Journal())
		}
	})
	return h
}
