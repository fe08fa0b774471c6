package main

import (
	"bytes"
	"log/slog"
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
		{0, 501, 100, false},
		{0, min(limit.Max, 1_000_000), min(enforce.DefaultLimits.Connections, (int(min(limit.Max, 1_000_000))-101)/4), false},
		{100, 501, 100, false},
		{101, 501, 101, true},
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
