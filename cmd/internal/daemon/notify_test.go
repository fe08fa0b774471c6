package daemon

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"citadel/cmd/internal/daemontest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestReadyOnce: a unit starts once, whatever comes later.
func TestReadyOnce(t *testing.T) {
	s := daemontest.NewSystemd(t, "")
	n := NewNotifier(quiet())
	for _, ready := range []bool{false, true, false, true} {
		n.Tell("so", ready)
	}
	n.Beat() // there is no watchdog
	n.Stopping()
	want := []string{"STATUS=so", "READY=1", "STATUS=so", "STATUS=so", "STATUS=so", "STOPPING=1", "STATUS=stopping"}
	if lines := s.Heard(); !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
	if !n.Heard() {
		t.Error("nobody listens")
	}
}

// TestWatchdogIsFedByTheLoop alone (D-2), and often enough.
func TestWatchdogIsFedByTheLoop(t *testing.T) {
	s := daemontest.NewSystemd(t, "30000000")
	n := NewNotifier(quiet())
	if n.Every(time.Minute) != 10*time.Second || n.Every(time.Second) != time.Second {
		t.Errorf("every %s", n.Every(time.Minute))
	}
	n.Tell("so", true)
	n.Stopping()
	if lines := s.Heard(); slices.Contains(lines, "WATCHDOG=1") {
		t.Errorf("%q", lines)
	}
	n.Beat()
	if lines := s.Heard(); !slices.Equal(lines, []string{"WATCHDOG=1"}) {
		t.Errorf("%q", lines)
	}
	daemontest.NewSystemd(t, "soon")
	if n := NewNotifier(quiet()); n.watchdog != 0 || n.Every(time.Minute) != time.Minute {
		t.Errorf("%s", n.watchdog)
	}
	t.Setenv("NOTIFY_SOCKET", "/nowhere/notify") // and nothing is the matter
	n.Beat()
	t.Setenv("NOTIFY_SOCKET", "")
	n.Beat()
	if n.Heard() {
		t.Error("somebody listens")
	}
}
