package enforce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
)

// An agent that calls itself does so without end: connections that lead to its
// own listeners are not opened, and those that a redirect brings back are found by
// where they come from.

// serves tells whether this host's own agent answers at an address of this host,
// HOST:PORT. The agent's connections to its own host are redirected to nobody:
// elsewhere the application itself answers.
func (e *Enforcer) serves(address string) bool {
	at, err := netip.ParseAddrPort(address)
	return err == nil && e.listener(at) == Inbound
}

// listener is which way those go who come to an address of this host; empty where
// that is no listener of the agent's own.
func (e *Enforcer) listener(at netip.AddrPort) Direction {
	switch port, has := e.port(at); {
	case !has:
		return ""
	case port == nil:
		return Outbound
	}
	return Inbound
}

// port is that of the agent's own listener at an address of this host; nil for one
// that leads out.
func (e *Enforcer) port(at netip.AddrPort) (p *Port, has bool) {
	all := []netip.Addr{at.Addr(), netip.IPv6Unspecified()} // which is of IPv4, too
	if at.Addr().Is4() {
		all = append(all, netip.IPv4Unspecified())
	}
	for _, addr := range all {
		if own, has := e.listeners.Load(netip.AddrPortFrom(addr, at.Port())); has {
			return own.(*Port), true
		}
	}
	return nil, false
}

// leads is which way those go who come to an address, of whatever host; empty
// where that is no listener of the agent's own.
func (e *Enforcer) leads(address string) Direction {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	addr := at.Addr().Unmap().WithZone("")
	switch addr { // what Linux connects to in place of these
	case netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	at = netip.AddrPortFrom(addr, at.Port())
	way := e.listener(at)
	if way == "" || addr.IsLoopback() {
		return way
	}
	own, err := net.InterfaceAddrs()
	if err != nil || !slices.ContainsFunc(own, func(a net.Addr) bool {
		network, is := a.(*net.IPNet)
		return is && network.IP.Equal(addr.AsSlice())
	}) {
		return ""
	}
	return way
}

// dial opens a connection within Limits.Dial, to no listener of the agent's own
// for which loops is true. It is known by v until the connection of v has ended.
func (e *Enforcer) dial(ctx context.Context, address string, v *Event, loops func(Direction) bool) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.limits().Dial)
	defer cancel()
	opened := func() {}
	if _, err := netip.ParseAddrPort(address); err == nil { // to look a name up takes long, and files of its own
		e.files.RLock()
		opened = sync.OnceFunc(e.files.RUnlock)
		defer opened()
	}
	dialer := *e.Dialer
	dialer.ControlContext = func(_ context.Context, network, address string, raw syscall.RawConn) error {
		opened()
		if v.captured {
			mark(network, raw)
		}
		if loops(e.leads(address)) {
			return failure{Loop, fmt.Errorf("%s is a listener of the agent's own, which would call itself", address)}
		}
		return nil
	}
	c, err := dialer.DialContext(ctx, "tcp", address)
	for again := 0; v.captured && again < otherPorts && errors.Is(err, syscall.ECONNREFUSED); again++ {
		c, err = dialer.DialContext(ctx, "tcp", address)
	}
	if isOutOfFiles(err) {
		err = failure{TooMany, err}
	}
	if err != nil {
		return nil, err
	}
	between := ends{localOf(c), remoteOf(c)}
	e.dialled.Store(between, nil)
	v.dialled = append(v.dialled, between)
	return c.(*net.TCPConn), nil
}

// otherPorts is how many more are tried where a connection is refused: the redirect
// refuses those that come from the port of a program which has just called the same
// destination, for the kernel would lead them to the agent, too.
const otherPorts = 2

// ends are those of one connection. No two that are open have the same.
type ends struct{ from, to netip.AddrPort }

// circles tells whether a connection to the listener, or to where it was meant for
// before a redirect, is one that the agent itself has opened.
// A redirect may give a program's connection the port of one of the agent's own, so
// that their ends are alike: unmarked tells them apart.
func (e *Enforcer) circles(v *Event, listener, meant netip.AddrPort, unmarked func() bool) error {
	_, straight := e.dialled.Load(ends{v.Remote, listener})
	_, led := e.dialled.Load(ends{v.Remote, meant})
	if !straight && !led || v.captured && unmarked() {
		return nil
	}
	v.Fix = fmt.Sprintf("have the redirect leave out the user that the agent runs as: node_agent redirect install --exclude-uids %d", os.Getuid())
	return failure{Loop, errors.New("it comes from the agent itself, whose connections the redirect captures, too")}
}

// forget ends what is known of the connections that were opened for one.
func (e *Enforcer) forget(v *Event) {
	for _, between := range v.dialled {
		e.dialled.Delete(between)
	}
	v.dialled = nil
}
