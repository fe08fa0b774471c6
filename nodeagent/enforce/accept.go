package enforce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// longestWait is between two looks at who comes when no file is left.
const longestWait = 50 * time.Millisecond

// accept takes connections until the listener is closed by the end of ctx. One for
// which no file is left is taken with the error, and is reset already. files is
// locked while the file to spare is open to all.
func accept(ctx context.Context, listener net.Listener, files sync.Locker, take func(*net.TCPConn, error)) error {
	d := door{Listener: listener, files: files}
	defer func() { d.spare.Close() }()
	wait := time.Duration(0)
	for {
		c, err := d.next()
		tcp, is := c.(*net.TCPConn)
		switch {
		case is:
			wait = 0
			take(tcp, err)
		case c != nil:
			c.Close()
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // a client that was gone, or no file is left for the next
			wait = min(max(2*wait, 5*time.Millisecond), longestWait)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
	}
}

// door is a listener with a file to spare, so that who comes when no other is left
// can be told, and does not wait.
type door struct {
	net.Listener
	files sync.Locker
	spare *os.File // nil for none
}

var openSpare = func() (*os.File, error) { return os.Open(os.DevNull) }

// next is the next connection. An error that comes with one is why it must be
// refused.
func (d *door) next() (net.Conn, error) {
	if d.spare == nil {
		d.spare, _ = openSpare() // without it, who comes waits
	}
	c, err := d.Accept()
	if !isOutOfFiles(err) || d.spare == nil || !d.waits() {
		return c, err
	}
	d.files.Lock()
	defer d.files.Unlock()
	d.spare.Close()
	c, err = d.Accept()
	spare, full := openSpare()
	if tcp, is := c.(*net.TCPConn); is && full != nil {
		reset(tcp) // gives the file back
		spare, _ = openSpare()
		err = failure{TooMany, fmt.Errorf("no file is left for it: %w", full)}
	}
	d.spare = spare
	return c, err
}

// waits tells whether somebody surely may be taken: the kernel says that no file is
// left before it looks who is there.
func (d *door) waits() (is bool) {
	listener, known := d.Listener.(syscall.Conn)
	if !known {
		return true
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		is = err == nil && n > 0
	})
	return is
}

// isOutOfFiles tells whether the agent, or the host, has as many files open as it
// may.
func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
