package main

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"citadel/cmd/internal/daemon"
	"citadel/cmd/internal/daemontest"
)

// TestSiteTellsSystemd: the unit has started when hosts can have certificates
// (D-1), the watchdog is fed (D-2), and a stop is told.
func TestSiteTellsSystemd(t *testing.T) {
	systemd := daemontest.NewSystemd(t, "3000000")
	s := launchSite(t, filepath.Join(t.TempDir(), "state"), "--trust-domain", "example.org")
	lines := systemd.HeardUntil(patience, func(line string) bool { return line == "READY=1" })
	if !slices.Contains(lines, "READY=1") {
		t.Fatalf("it did not start: %q\n%s", lines, s.log)
	}
	if _, err := s.page("/readyz"); err != nil {
		t.Errorf("it started before it was ready: %v", err)
	}
	fed := func(line string) bool { return line == "WATCHDOG=1" }
	lines = append(systemd.HeardUntil(patience, fed), systemd.HeardUntil(patience, fed)...)
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "STATUS=CSR API on port ") }) || slices.Contains(lines, "READY=1") {
		t.Errorf("%q", lines)
	}
	s.stop(t)
	if lines := systemd.Heard(); len(lines) < 2 || !slices.Equal(lines[len(lines)-2:], []string{"STOPPING=1", "STATUS=stopping"}) {
		t.Errorf("%q", lines)
	}
}

// TestTroubleIsTold: what no restart mends feeds the watchdog and says why the
// unit has not started; what hangs does not.
func TestTroubleIsTold(t *testing.T) {
	systemd := daemontest.NewSystemd(t, "300000")
	p := &process{cfg: &config{options: &options{serverOnly: true, apiOptions: apiOptions{grpcPort: 1}}}, audit: &auditStream{out: full{}, last: io.ErrShortWrite},
		notify: daemon.NewNotifier(slog.New(slog.DiscardHandler))}
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{})
	go func() { defer close(told); p.tellSystemd(ctx) }()
	lines := systemd.HeardUntil(patience, func(line string) bool { return line == "STATUS=nothing is signed: Istio CA is not ready" })
	if !slices.Contains(lines, "WATCHDOG=1") || slices.Contains(lines, "READY=1") {
		t.Errorf("%q", lines)
	}
	p.apiServed.Store(true) // on a port where nobody answers
	lines = systemd.HeardUntil(patience, func(line string) bool { return strings.HasPrefix(line, "STATUS=the CSR API does not answer: ") })
	if len(lines) == 0 {
		t.Error("silence")
	}
	if lines := systemd.HeardUntil(time.Second, func(line string) bool { return line == "WATCHDOG=1" }); slices.Contains(lines, "WATCHDOG=1") {
		t.Errorf("%q", lines)
	}
	cancel()
	<-told
}
