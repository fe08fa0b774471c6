package enforce

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// socket is the TCP of a side. While it hurries it does not wait to read: where
// nothing has come it says errNothing. TLS above it can be read again after that,
// as after a deadline.
type socket struct {
	*net.TCPConn
	hurries bool // for the one who reads
	cut     atomic.Bool
}

// Write notes a reset: the kernel tells of it once, and who reads after that hears
// of an end that was none.
func (s *socket) Write(b []byte) (int, error) {
	n, err := s.TCPConn.Write(b)
	s.note(err)
	return n, err
}

func (s *socket) note(err error) {
	if errors.Is(err, syscall.ECONNRESET) {
		s.cut.Store(true)
	}
}

// errNothing says that a socket which hurries has nothing to read yet.
var errNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing has come yet" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true } // what crypto/tls asks for before it gives up

func (s *socket) Read(b []byte) (n int, err error) {
	if !s.hurries {
		return s.TCPConn.Read(b)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	if closed := raw.Read(func(fd uintptr) bool {
		for n, err = syscall.Read(int(fd), b); err == syscall.EINTR; {
			n, err = syscall.Read(int(fd), b)
		}
		return true
	}); closed != nil {
		return 0, closed
	}
	switch {
	case err == syscall.EAGAIN:
		return 0, errNothing
	case err != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError("read", err)}
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}
