package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRedirected is Original's of a connection whose client meant the address
// at which it was accepted.
var ErrNotRedirected = errors.New("the connection was not redirected: who connects to the agent's own port is not served")

// originalV6 is IP6T_SO_ORIGINAL_DST, which has the number of the IPv4 one.
const originalV6 = unix.SO_ORIGINAL_DST

// Original tells where an accepted connection was meant for before it was
// redirected. It returns ErrNotRedirected for one that was not.
func Original(conn *net.TCPConn) (netip.AddrPort, error) {
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	var original netip.AddrPort
	ask := ask6
	if local.Addr().Unmap().Is4() { // also on a socket of IPv6 that takes both
		ask = ask4
	}
	if controlErr := raw.Control(func(fd uintptr) { original, err = ask(int(fd)) }); controlErr != nil {
		err = controlErr
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOPROTOOPT) { // the kernel follows no connections, or not this one
		return netip.AddrPort{}, ErrNotRedirected
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", os.NewSyscallError("getsockopt", err))
	}
	if same(original, local) {
		return netip.AddrPort{}, ErrNotRedirected
	}
	return original, nil
}

// same compares without zones, which one of the two may have by name.
func same(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().WithZone("") == b.Addr().Unmap().WithZone("")
}

// ask4 has a struct sockaddr_in (family, port, address) in what x/sys offers for
// another option.
func ask4(fd int) (netip.AddrPort, error) {
	got, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := got.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

// ask6 has a struct sockaddr_in6, likewise.
func ask6(fd int) (netip.AddrPort, error) {
	got, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, originalV6)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, got.Addr.Port))
	address := netip.AddrFrom16(got.Addr.Addr)
	if got.Addr.Scope_id != 0 {
		address = address.WithZone(fmt.Sprint(got.Addr.Scope_id))
	}
	return netip.AddrPortFrom(address, port), nil
}
