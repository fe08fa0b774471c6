// Package daemontest stands in for what runs daemons, for tests of both.
//
// It refuses to be linked into a program, and to know what a daemon does.
package daemontest

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Systemd is its side of the notify socket.
type Systemd struct {
	t    testing.TB
	conn *net.UnixConn
}

// NewSystemd has the environment of this test name a socket, and a watchdog that
// wants to be fed within so many microseconds; empty: none.
func NewSystemd(t *testing.T, watchdog string) *Systemd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", "")
	return &Systemd{t, conn}
}

// Heard is all that it has been told since it was asked last, by line.
func (s *Systemd) Heard() []string { return s.HeardUntil(20*time.Millisecond, nil) }

// HeardUntil listens until a line is the one that is waited for, at most for so
// long, and returns all lines.
func (s *Systemd) HeardUntil(limit time.Duration, found func(line string) bool) (lines []string) {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		s.t.Fatal(err)
	}
	for {
		text := make([]byte, 1<<16)
		n, err := s.conn.Read(text)
		if err != nil {
			return lines
		}
		for line := range strings.SplitSeq(string(text[:n]), "\n") {
			lines = append(lines, line)
			if found != nil && found(line) {
				return lines
			}
		}
	}
}
