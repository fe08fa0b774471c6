package main

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"citadel/ca/policy"
	"citadel/nodeagent/enforce"
)

// TestRoom: who names no limit of connections has as many as files are allowed:
// two for each, in both directions.
func TestRoom(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		asked int
		files uint64
		want  int
		warns bool
	}{
		{0, 573, 100, false},
		{0, min(limit.Max, 1_000_000), min(enforce.DefaultLimits.Connections, (int(min(limit.Max, 1_000_000))*7/8-102)/4), false},
		{100, 573, 100, false},
		{101, 573, 101, true},
	} {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: c.files, Max: limit.Max}); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		cfg := &enforcement{limits: enforce.Limits{Connections: c.asked}, listeners: []listening{{way: waySOCKS, at: netip.MustParseAddrPort("127.0.0.1:0")}}}
		e, err := newEnforcing(cfg, "text", func() *policy.Snapshot { return nil }, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			t.Fatal(err)
		}
		e.tellStart()
		if err := e.close(); err != nil {
			t.Error(err)
		}
		if got := e.cfg.Load().rules().Limits.Connections; got != c.want || strings.Contains(said.String(), "LimitNOFILE") != c.warns {
			t.Errorf("asked for %d with %d files: %d\n%s", c.asked, c.files, got, &said)
		}
	}
}

// TestNoMultipath: a captured connection of MPTCP would not tell where it was meant
// for, RFC 8684 3.1: who asks for it is served by TCP.
func TestNoMultipath(t *testing.T) {
	l, err := listenTCP(listening{at: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	client, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if multipath, err := c.(*net.TCPConn).MultipathTCP(); multipath || err != nil {
		t.Errorf("MPTCP: %v, %v", multipath, err)
	}
}
