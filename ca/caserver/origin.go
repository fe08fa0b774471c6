package caserver

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/peer"
)

// originOf is whose a connection is: an IPv4 address, or the /64 of an IPv6 one,
// for whoever has one address there has all of them. What is no TCP has none, and
// so one that all share.
func originOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	origin, _ := ip.Prefix(bits) // fails for no address at all
	return origin
}

// callOrigin is that of a call's connection.
func callOrigin(ctx context.Context) netip.Prefix {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Prefix{}
	}
	return originOf(p.Addr)
}

// perOrigin bounds how many connections of a listener one origin has open. What
// is more is closed as soon as it is there.
type perOrigin struct {
	net.Listener
	most    int
	refused func(netip.Prefix)

	mu   sync.Mutex
	open map[netip.Prefix]int // guarded by mu: none is zero
}

// Accept is of net.Listener.
func (l *perOrigin) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		origin := originOf(conn.RemoteAddr())
		if l.enter(origin) {
			return &ofOrigin{Conn: conn, listener: l}, nil
		}
		_ = conn.Close() // nothing was written to it
		l.refused(origin)
	}
}

func (l *perOrigin) enter(origin netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[origin] >= l.most {
		return false
	}
	l.open[origin]++
	return true
}

func (l *perOrigin) leave(origin netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[origin]--; l.open[origin] == 0 {
		delete(l.open, origin)
	}
}

// ofOrigin is a connection that makes room when it is closed.
type ofOrigin struct {
	net.Conn
	listener *perOrigin
	closed   atomic.Bool
}

// Close is of net.Conn.
func (c *ofOrigin) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.listener.leave(originOf(c.RemoteAddr()))
	}
	return err
}
