package enforce

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Most connections are idle for most of their time, and hold the small buffer
// alone. One that has more to carry than that takes a big one for as long: what
// has come by then, of which TLS gives out 16 KiB at a time, is written at once.
const (
	smallBuffer = 2 << 10
	bigBuffer   = 64 << 10
	spliceSize  = 1 << 20 // that the kernel carries before somebody looks again
)

// spliceWait is how long the kernel may wait for more: it holds a pipe meanwhile.
var spliceWait = time.Second

var bigBuffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}

// side is one side of a connection that is carried: TCP, or TLS over it.
type side struct {
	net.Conn
	tcp *socket
}

func plainSide(c *net.TCPConn) side {
	s := &socket{TCPConn: c}
	return side{s, s}
}

func tlsSide(c *tls.Conn, under *socket) side { return side{c, under} }

func (s side) plain() bool { return s.Conn == net.Conn(s.tcp) }

// closeWrite tells the other side that no more comes.
func (s side) closeWrite() error {
	if t, is := s.Conn.(*tls.Conn); is {
		return t.CloseWrite()
	}
	return s.tcp.CloseWrite()
}

// relay carries bytes both ways until both sides have ended, and closes them. A
// side that has no more to say leaves the other time to answer; one that is cut
// cuts the other. The end of ctx cuts both.
func relay(ctx context.Context, a, b side) (fromA, fromB int64, err error) {
	cut := func() { reset(a.tcp); reset(b.tcp) }
	stop := context.AfterFunc(ctx, cut)
	defer stop()
	there, back := make(chan struct{}), make(chan struct{})
	one := func(to, from side, n *int64, ended chan<- struct{}, other <-chan struct{}) (err error) {
		*n, err = carry(to, from)
		close(ended)
		if err != nil {
			if _, is := errors.AsType[gone](err); is {
				select { // it may have said why, and that has come already
				case <-other:
				case <-time.After(lastWord):
				}
			}
			cut()
		}
		return err
	}
	var answer error
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer = one(a, b, &fromB, back, there)
	}()
	err = one(b, a, &fromA, there, back)
	<-done
	a.tcp.Close()
	b.tcp.Close()
	if errors.Is(err, net.ErrClosed) || err == nil || isAlert(answer) { // the other direction has the cause
		err = errors.Join(answer)
	}
	if ctx.Err() != nil {
		err = errStopped
	}
	return fromA, fromB, err
}

// lastWord is how long it may take to read what a side has said that is gone.
const lastWord = time.Second

// gone is the error of a side that was written to, or maybe was.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

var errStopped = errors.New("the agent stopped before the connection ended")

// carry carries one direction to its end.
func carry(to, from side) (n int64, err error) {
	small := make([]byte, smallBuffer)
	for err == nil {
		var moved int64
		moved, err = turn(to, from, small)
		n += moved
	}
	switch {
	case err != io.EOF:
		return n, err
	case from.tcp.cut.Load():
		return n, &net.OpError{Op: "read", Net: "tcp", Source: from.LocalAddr(), Addr: from.RemoteAddr(), Err: syscall.ECONNRESET}
	}
	if failed := to.closeWrite(); failed != nil {
		return n, gone{failed}
	}
	return n, nil
}

// turn waits for something to carry, and carries what there is. The error is
// io.EOF at the end.
func turn(to, from side, small []byte) (int64, error) {
	got, err := from.Read(small)
	if got < len(small) || err != nil {
		return pass(to, small[:got], err)
	}
	n, err := burst(to, from, small)
	if err == errMuch {
		var moved int64
		moved, err = splice(to.tcp.TCPConn, from.tcp.TCPConn)
		n += moved
		to.tcp.note(err)
	}
	return n, err
}

// pass writes what was read, and returns the error of that, or else of the read.
func pass(to side, b []byte, err error) (int64, error) {
	if len(b) == 0 {
		return 0, err
	}
	n, failed := to.Write(b)
	if failed != nil {
		err = gone{failed}
	}
	return int64(n), err
}

// errMuch says that the kernel had better carry what comes.
var errMuch = errors.New("much comes, and it is plain on both sides")

// burst carries what begins with first, and all else that has come.
func burst(to, from side, first []byte) (n int64, err error) {
	big := bigBuffers.Get().(*[bigBuffer]byte)
	defer bigBuffers.Put(big)
	from.tcp.hurries = true
	defer func() { from.tcp.hurries = false }()
	have := copy(big[:], first)
	for {
		got, err := from.Read(big[have:])
		have += got
		full := have == len(big)
		if err == nil && !full && !from.plain() {
			continue // there may be another record
		}
		moved, err := pass(to, big[:have], err)
		n, have = n+moved, 0
		switch {
		case err == error(errNothing):
			return n, nil
		case err != nil:
			return n, err
		case full && from.plain() && to.plain():
			return n, errMuch
		}
	}
}

// splice has the kernel carry, for as long as much comes.
func splice(to, from *net.TCPConn) (n int64, err error) {
	for moved := int64(spliceSize); moved == spliceSize && err == nil; n += moved {
		_ = from.SetReadDeadline(time.Now().Add(spliceWait))
		moved, err = io.CopyN(to, from, spliceSize)
	}
	_ = from.SetReadDeadline(time.Time{})
	if err == io.EOF || isTimeout(err) { // who reads next sees it, too
		return n, nil
	}
	if err != nil {
		err = gone{err} // whichever of the two it is
	}
	return n, err
}
