package enforce

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Most connections are idle for most of their time, and hold no buffer then. What
// has come is read into one, of which TLS gives out 16 KiB at a time, and is
// written at once.
const (
	bufferSize = 64 << 10
	wordSize   = 2 << 10 // below which what TLS gives out is taken for all there is
	spliceSize = 1 << 20 // that the kernel carries before somebody looks again
)

// spliceWait is how long the kernel may wait for more: it holds a pipe meanwhile.
var spliceWait = time.Second

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// side is one side of a connection that is carried: tcp, or TLS over it. All that is
// read from Conn is read through tcp.
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
		unread := newWatch(from.tcp, to.tcp, cut)
		*n, err = carry(to, from, unread)
		close(ended)
		if err == nil {
			unread.over.Store(true)
			unread.begin()
			<-other
			unread.end()
		}
		if unread.found.Load() {
			return from.tcp.failed(syscall.ECONNRESET)
		}
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
var lastWord = time.Second

// gone is the error of a side that was written to.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

var errStopped = errors.New("the agent stopped before the connection ended")

// carry carries one direction to its end. unread watches from while it is not read.
func carry(to, from side, unread *watch) (n int64, err error) {
	f := flow{to: to, from: from, unread: unread}
	f.come = f.take
	if f.raw, err = from.tcp.SyscallConn(); err != nil {
		return 0, err
	}
	for err == nil {
		var moved int64
		moved, err = f.turn()
		n += moved
	}
	if err != io.EOF {
		return n, err
	}
	if failed := to.closeWrite(); failed != nil {
		return n, gone{failed}
	}
	return n, nil
}

// flow is one direction.
type flow struct {
	to, from side
	raw      syscall.RawConn       // of from
	come     func(fd uintptr) bool // is take
	unread   *watch                // of from

	buffer *[bufferSize]byte // while something is in it
	have   int
	err    error // that ended the reading
}

// turn waits for something to carry, and carries what there is. The error is
// io.EOF at the end.
func (f *flow) turn() (n int64, err error) {
	if err := f.raw.Read(f.come); err != nil {
		return 0, err
	}
	f.unread.begin()
	defer f.unread.end()
	if f.buffer != nil {
		if n, err = f.pass(); err != nil {
			return n, err
		}
	}
	if f.err != nil || n < bufferSize || !f.from.plain() || !f.to.plain() {
		return n, f.err
	}
	leave, ok := takePipe()
	if !ok {
		return n, nil
	}
	defer leave()
	moved, err := splice(f.to.tcp, f.from.tcp)
	return n + moved, err
}

// take reads what has come, and tells whether anything has.
func (f *flow) take(fd uintptr) bool {
	f.buffer, f.have = buffers.Get().(*[bufferSize]byte), 0
	f.from.tcp.hurry(fd)
	defer f.from.tcp.wait()
	for f.err == nil && f.have < bufferSize {
		var got int
		got, f.err = f.from.Read(f.buffer[f.have:])
		f.have += got
		if got < wordSize || f.from.plain() {
			break
		}
	}
	waits := f.err == error(errNothing)
	if waits {
		f.err = nil
	}
	if f.have == 0 {
		f.drop()
	}
	return f.have > 0 || !waits
}

// pass writes what was read.
func (f *flow) pass() (int64, error) {
	defer f.drop()
	n, err := f.to.Write(f.buffer[:f.have])
	if err != nil {
		err = gone{err}
	}
	return int64(n), err
}

func (f *flow) drop() {
	buffers.Put(f.buffer)
	f.buffer = nil
}

// splice has the kernel carry, for as long as much comes.
func splice(to, from *socket) (n int64, err error) {
	var heard error // of from
	err = to.noting(func() (err error) {
		for moved := int64(spliceSize); moved == spliceSize && err == nil; n += moved {
			_ = from.SetReadDeadline(time.Now().Add(spliceWait))
			moved, err = io.CopyN(to.TCPConn, from.TCPConn, spliceSize)
		}
		if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) || isCut(err) && from.closed() {
			heard, err = err, nil
		}
		return err
	})
	_ = from.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		return n, gone{err}
	case isCut(heard):
		return n, heard
	}
	return n, nil // who reads next sees the end, or the deadline, too
}
