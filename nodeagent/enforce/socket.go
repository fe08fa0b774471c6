package enforce

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is the TCP of a side. While it hurries it does not wait to read: where
// nothing has come it says errNothing. TLS above it can be read again after that,
// as after a deadline.
type socket struct {
	*net.TCPConn
	hurries bool    // for the one who reads
	fd      uintptr // while it hurries

	writing sync.Mutex // held while something is written
	cut     bool       // guarded by writing: a write has heard that it is cut off
	over    bool       // guarded by writing: a splice has heard that it is over, but not how: of one that has carried a part the kernel drops that
	had     uint64     // for the one who reads: bytes that were read, from the first on; see count
}

// hurry begins reads that do not wait, of a descriptor that is open until wait.
func (s *socket) hurry(fd uintptr) { s.hurries, s.fd = true, fd }

func (s *socket) wait() { s.hurries = false }

// Write notes a cut: the kernel tells of it once, and who reads after that hears
// of an end that was none.
func (s *socket) Write(b []byte) (n int, err error) {
	err = s.noting(func() (err error) { n, err = s.TCPConn.Write(b); return err })
	return n, err
}

func (s *socket) noting(write func() error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	err := write()
	s.cut = s.cut || isCut(err)
	return err
}

// isCut tells whether a connection was cut off, of which the kernel tells once:
// reset, given up, or out of reach. EPIPE is of one that has ended.
func isCut(err error) bool {
	errno, is := errors.AsType[syscall.Errno](err)
	return is && errno != syscall.EPIPE
}

// SetWriteDeadline does nothing: crypto/tls would give up on a peer that takes more
// than five seconds to take the last bytes. Those that count are set on the TCPConn.
func (*socket) SetWriteDeadline(time.Time) error { return nil }

// errNothing says that a socket which hurries has nothing to read yet.
var errNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing has come yet" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true } // what crypto/tls asks for before it gives up

// Read tells a reset of which a write has heard from an end.
func (s *socket) Read(b []byte) (n int, err error) {
	if s.hurries {
		n, err = s.try(b)
	} else {
		n, err = s.TCPConn.Read(b)
	}
	s.had += uint64(n)
	if err == io.EOF && s.wasReset() {
		return n, s.failed(syscall.ECONNRESET)
	}
	return n, err
}

// try reads what has come.
func (s *socket) try(b []byte) (n int, err error) {
	for n, err = syscall.Read(int(s.fd), b); err == syscall.EINTR; {
		n, err = syscall.Read(int(s.fd), b)
	}
	switch {
	case err == syscall.EAGAIN:
		return 0, errNothing
	case err != nil:
		return 0, s.failed(err)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *socket) failed(err error) error {
	return &net.OpError{Op: "read", Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError("read", err)}
}

// wasReset tells whether an end was none. Who writes at the same time knows it, and
// is done at once if the connection has ended in both directions; else it was no
// reset.
func (s *socket) wasReset() bool {
	if !s.closed() {
		return false
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.cut || s.over && s.info().Bytes_received == s.had // the kernel counts an end as one byte more
}

// ended is more than can have been read.
const ended = 1 << 63

// count begins to count what is read, before anybody reads. What has ended already
// is never found to be cut by that.
func (s *socket) count() {
	for {
		before, unread := s.info(), 0
		s.control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		now := s.info()
		switch {
		case now.Bytes_received != before.Bytes_received: // while it was asked
			continue
		case now.State != unix.BPF_TCP_ESTABLISHED:
			s.had = ended
		default:
			s.had = now.Bytes_received - uint64(unread)
		}
		return
	}
}

// closed tells whether the connection has ended in both directions.
func (s *socket) closed() bool { return s.info().State == unix.BPF_TCP_CLOSE }

// info is what the kernel knows of the connection; the zero value if it does not.
func (s *socket) info() (info unix.TCPInfo) {
	if s.hurries {
		return infoAt(s.fd)
	}
	s.control(func(fd uintptr) { info = infoAt(fd) })
	return info
}

// lost is what cut the connection off, or zero: it asks instead of who reads, for the
// kernel tells once. Any goroutine may ask.
func (s *socket) lost() (why syscall.Errno) {
	s.control(func(fd uintptr) {
		if infoAt(fd).State != unix.BPF_TCP_CLOSE {
			return
		}
		s.writing.Lock() // a write ends at once now
		defer s.writing.Unlock()
		if errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil {
			why = syscall.Errno(errno)
		}
		s.cut = s.cut || why != 0 && isCut(why)
	})
	return why
}

// unsent tells whether the other side has yet to take what was written.
func (s *socket) unsent() (is bool) {
	s.control(func(fd uintptr) {
		left, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
		is = err == nil && left > 0
	})
	return is
}

// control looks at the descriptor, unless it is closed here.
func (s *socket) control(look func(fd uintptr)) {
	if raw, err := s.SyscallConn(); err == nil {
		_ = raw.Control(look)
	}
}

func infoAt(fd uintptr) unix.TCPInfo {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return unix.TCPInfo{}
	}
	return *info
}
