package enforce

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// markedTTL is how far packets of the agent's own go where connections are captured:
// far enough, and not as far as those of others.
const markedTTL = 63

// mark makes a connection known as one of the agent's own to who takes it.
func mark(network string, raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		if network == "tcp6" {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, markedTTL)
			return
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, markedTTL)
	})
}

// keepMarks has a listener keep what tells marked connections.
func keepMarks(l net.Listener) {
	if tcp, is := l.(*net.TCPListener); is {
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1) })
		}
	}
}

// unmarked tells whether a connection is surely not of the agent's own: its first
// packet came with another TTL. It can be asked once.
func unmarked(c *net.TCPConn) (is bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		syn := savedSYN(fd)
		switch {
		case len(syn) < 20:
		case syn[0]>>4 == 4: // RFC 791 3.1
			is = syn[8] != markedTTL
		case syn[0]>>4 == 6: // RFC 8200 3
			is = syn[7] != markedTTL
		}
	})
	return is
}

func savedSYN(fd uintptr) []byte {
	var syn [256]byte
	length := uint32(len(syn))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
		uintptr(unsafe.Pointer(&syn)), uintptr(unsafe.Pointer(&length)), 0); errno != 0 {
		return nil
	}
	return syn[:length]
}
