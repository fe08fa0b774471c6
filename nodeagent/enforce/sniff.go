package enforce

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// firstOfTLS is the first byte of each TLS handshake, RFC 8446 5.1.
const firstOfTLS = 22

// sniffed is a connection whose first bytes were read to see what they are.
// Until passed says that they were understood, what is read is kept, and nothing
// is written: it may turn out that somebody else must have it all as it came.
type sniffed struct {
	net.Conn
	kept   []byte // read from Conn, in order
	at     int    // of kept, what the reader has had
	passed bool
	shaken bool // the handshake is done
	total  int  // bytes until then
}

// longestHandshake is more than a client says until its handshake is done: a hello,
// and a chain. What may say more must first show who it is.
const longestHandshake = 32 << 10

var (
	errLongHandshake = fmt.Errorf("the client says more than %d bytes before its handshake is done", longestHandshake)
	errNotTLS        = errors.New("it begins like TLS, and goes on like something else")
)

// whole is what TLS reads from: crypto/tls takes the end of a connection between
// two records for the end of TLS, which anybody on the way can make. RFC 8446 6.1
// wants a close_notify.
type whole struct{ net.Conn }

// errCut is the end of a connection that TLS had not announced.
var errCut = errors.New("the connection ended, and TLS did not say that it would")

func (w whole) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

// first reads the first byte.
func (s *sniffed) first() (byte, error) {
	s.kept = make([]byte, 1, 512)
	n, err := s.Conn.Read(s.kept)
	s.kept = s.kept[:n]
	if n == 1 {
		return s.kept[0], nil
	}
	return 0, err
}

// Read gives what was kept first.
func (s *sniffed) Read(b []byte) (int, error) {
	if s.at < len(s.kept) {
		n := copy(b, s.kept[s.at:])
		s.at += n
		return n, nil
	}
	if s.passed {
		s.kept = nil
		s.at = 0
		n, err := whole{s.Conn}.Read(b)
		return n, s.measure(n, err)
	}
	n, err := whole{s.Conn}.Read(b)
	s.kept = append(s.kept, b[:n]...)
	s.at += n
	if err == nil && len(s.kept) > 1 && s.kept[1] != 3 { // RFC 8446 5.1: the version of a record
		err = errNotTLS
	}
	return n, s.measure(n, err)
}

// measure bounds what one may say who has shown nothing.
func (s *sniffed) measure(n int, err error) error {
	if s.shaken {
		return err
	}
	if s.total += n; err == nil && s.total > longestHandshake {
		return errLongHandshake
	}
	return err
}

// Write swallows the alerts of a handshake that is not ours to answer.
func (s *sniffed) Write(b []byte) (int, error) {
	if !s.passed {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

// Close leaves the connection open for whom it is passed on to.
func (s *sniffed) Close() error {
	if !s.passed {
		return nil
	}
	return s.Conn.Close()
}

// errForeign says that what came is none of the mesh's.
var errForeign = errors.New("no TLS of the mesh")

// meshTLS reads a ClientHello. If it offers a protocol of the mesh, the
// handshake goes on by config. If it is TLS of the application's own, or only
// begins like TLS, the error is errForeign, and s.kept has what came.
func meshTLS(s *sniffed, config func(*tls.ClientHelloInfo) (*tls.Config, error)) (*tls.Conn, error) {
	understood := false
	conn := tls.Server(s, &tls.Config{MinVersion: tls.VersionTLS10, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		understood = true
		if !ofMesh(hello) {
			return nil, errForeign
		}
		s.passed = true
		return config(hello)
	}})
	err := conn.Handshake()
	switch {
	case err == nil || s.passed:
		return conn, err
	case errors.Is(err, errForeign):
		return nil, errForeign
	case !understood && !isTimeout(err) && (!isEnd(err) || errors.Is(err, errCut)):
		return nil, errForeign // it was read, and is no ClientHello
	}
	return nil, err
}

// isTimeout tells whether a deadline has passed.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// within sets the time in which the next reads must succeed; 0 is without end.
func within(c net.Conn, d time.Duration) {
	if d == 0 {
		_ = c.SetDeadline(time.Time{})
		return
	}
	_ = c.SetDeadline(time.Now().Add(d))
}
