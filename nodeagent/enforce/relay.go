package enforce

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Most connections are idle for most of their time, and hold the small buffer
// alone. One that has more to carry than that takes a big one for as long.
const (
	smallBuffer = 2 << 10
	bigBuffer   = 32 << 10
	spliceSize  = 1 << 20 // that the kernel carries before somebody looks again
)

var bigBuffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}

// side is one side of a connection that is carried: TCP, or TLS over it.
type side struct {
	net.Conn
	tcp *net.TCPConn
}

func plainSide(c *net.TCPConn) side            { return side{c, c} }
func tlsSide(c *tls.Conn, t *net.TCPConn) side { return side{c, t} }

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
	var back error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if fromB, back = carry(a, b); back != nil {
			cut()
		}
	}()
	if fromA, err = carry(b, a); err != nil {
		if isWrite(err) { // b is gone, and may have said why
			select {
			case <-done:
			case <-time.After(lastWord):
			}
		}
		cut()
	}
	<-done
	a.tcp.Close()
	b.tcp.Close()
	if errors.Is(err, net.ErrClosed) || err == nil || isAlert(back) { // the other direction has the cause
		err = errors.Join(back)
	}
	if ctx.Err() != nil {
		err = errStopped
	}
	return fromA, fromB, err
}

// lastWord is how long it may take to read what a side has said that is gone: it
// has come already, and an error is behind it.
const lastWord = time.Second

func isWrite(err error) bool {
	op, is := errors.AsType[*net.OpError](err)
	return is && op.Op == "write"
}

var errStopped = errors.New("the agent stopped before the connection ended")

// carry carries one direction to its end.
func carry(to, from side) (n int64, err error) {
	small := make([]byte, smallBuffer)
	var big *[bigBuffer]byte
	defer func() {
		if big != nil {
			bigBuffers.Put(big)
		}
	}()
	buffer := small
	for {
		got, readErr := from.Read(buffer)
		if got > 0 {
			n += int64(got)
			if _, err := to.Write(buffer[:got]); err != nil {
				return n, err
			}
		}
		switch {
		case readErr == io.EOF:
			return n, to.closeWrite()
		case readErr != nil:
			return n, readErr
		case got == len(buffer) && big == nil:
			big = bigBuffers.Get().(*[bigBuffer]byte)
			buffer = big[:]
		case got == len(buffer) && from.plain() && to.plain():
			moved, err := splice(to.tcp, from.tcp)
			n += moved
			if err != nil {
				return n, err
			}
		case got < bigBuffer/2 && big != nil: // less than a record of TLS: maybe there is no more for long
			bigBuffers.Put(big)
			big, buffer = nil, small
		}
	}
}

// splice has the kernel carry, for as long as much comes.
func splice(to, from *net.TCPConn) (n int64, err error) {
	for moved := int64(spliceSize); moved == spliceSize && err == nil; n += moved {
		moved, err = io.CopyN(to, from, spliceSize)
	}
	if err == io.EOF { // who reads next sees it, too
		err = nil
	}
	return n, err
}
