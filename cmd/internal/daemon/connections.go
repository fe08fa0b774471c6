package daemon

import (
	"net"
	"sync/atomic"
)

// LimitConnections bounds how many connections of a listener are open at once.
// What is more is closed as soon as it is there, and refused is told: a queue of
// them would be no better for who waits, and each takes a file descriptor.
// Refused must be quick; nil tells nobody.
func LimitConnections(listener net.Listener, most int, refused func()) net.Listener {
	if refused == nil {
		refused = func() {}
	}
	return &limited{Listener: listener, most: int64(most), refused: refused}
}

type limited struct {
	net.Listener
	most    int64
	refused func()
	open    atomic.Int64
}

// Accept is of net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			return &counted{Conn: conn, open: &l.open}, nil
		}
		l.open.Add(-1)
		_ = conn.Close() // nothing was written to it
		l.refused()
	}
}

// counted is a connection that makes room when it is closed.
type counted struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

// Close is of net.Conn.
func (c *counted) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return err
}
