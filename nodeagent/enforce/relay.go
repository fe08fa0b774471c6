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
	s.count()
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
	there, back := newFlow(b, a, cut), newFlow(a, b, cut)
	go back.run(there)
	there.run(back)
	<-back.done
	a.tcp.Close()
	b.tcp.Close()
	err = there.cause
	if errors.Is(err, net.ErrClosed) || err == nil || isAlert(back.cause) { // the other direction has the cause
		err = back.cause
	}
	if ctx.Err() != nil {
		err = errStopped
	}
	return there.n, back.n, err
}

// lastWord is how long it may take to read what a side has said that is gone.
var lastWord = time.Second

// gone is the error of a side that was written to.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

var errStopped = errors.New("the agent stopped before the connection ended")

// flow is one direction.
type flow struct {
	to, from side
	cut      func()                // cuts both sides
	unread   *watch                // of from
	raw      syscall.RawConn       // of from
	come     func(fd uintptr) bool // is take

	buffer *[bufferSize]byte // while something is in it
	have   int
	err    error // that ended the reading

	n           int64         // bytes that were carried
	cause       error         // of the end of both sides, if this direction has it
	ended, done chan struct{} // closed when it carries no more, and when cause is known
}

func newFlow(to, from side, cut func()) *flow {
	f := &flow{to: to, from: from, cut: cut, unread: newWatch(from.tcp, to.tcp, cut), ended: make(chan struct{}), done: make(chan struct{})}
	f.come = f.take
	return f
}

// run carries one direction until the other has ended, too.
func (f *flow) run(other *flow) {
	defer close(f.done)
	f.cause = f.carry()
	close(f.ended)
	if f.cause == nil {
		f.unread.over.Store(true)
		f.unread.begin()
		<-other.ended
		f.unread.end()
	}
	if f.unread.found.Load() {
		f.cause = f.from.tcp.failed(syscall.ECONNRESET)
	} else if f.cause != nil {
		f.hearOut(other)
		f.cut()
	}
}

// hearOut leaves a side that can be told nothing any more time for its last word: it
// may have said why, and that has come already.
func (f *flow) hearOut(other *flow) {
	if _, is := errors.AsType[gone](f.cause); !is {
		return
	}
	select {
	case <-other.ended:
	case <-time.After(lastWord):
	}
}

// carry carries to the end.
func (f *flow) carry() (err error) {
	if f.raw, err = f.from.tcp.SyscallConn(); err != nil {
		return err
	}
	for err == nil {
		var moved int64
		moved, err = f.turn()
		f.n += moved
	}
	if err != io.EOF {
		return err
	}
	if failed := f.to.closeWrite(); failed != nil {
		return gone{failed}
	}
	return nil
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
			to.over = to.over || errors.Is(err, syscall.EPIPE)
		}
		if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) || isCut(err) && from.closed() {
			heard, err = err, nil
		}
		return err
	})
	_ = from.SetReadDeadline(time.Time{})
	from.had += uint64(n)
	switch {
	case err != nil:
		return n, gone{err}
	case isCut(heard):
		return n, heard
	}
	return n, nil // who reads next sees the end, or the deadline, too
}
