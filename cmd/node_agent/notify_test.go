package main

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"citadel/nodeagent"
)

// systemd is its side of the notify socket.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

// newSystemd is one that wants to hear from us every two watchdogs; 0: never.
func newSystemd(t *testing.T, watchdog string) *systemd {
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
	return &systemd{t, conn}
}

// heard is all that it has been told since it was asked last, by line.
func (s *systemd) heard() (lines []string) {
	s.t.Helper()
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			s.t.Fatal(err)
		}
		text := make([]byte, 1<<16)
		n, err := s.conn.Read(text)
		if err != nil {
			return lines
		}
		lines = append(lines, strings.Split(string(text[:n]), "\n")...)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func supplied() nodeagent.Status {
	now := time.Now().Round(time.Second)
	return nodeagent.Status{Identity: "spiffe://a/b", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), RenewAt: now.Add(30 * time.Minute), NextTry: now.Add(30 * time.Minute)}
}

// TestReadyWithACertificate alone (specifications D-1), once.
func TestReadyWithACertificate(t *testing.T) {
	s := newSystemd(t, "")
	n := newNotifier(quiet())
	future, past := supplied(), supplied()
	future.NotBefore = time.Now().Add(time.Minute)
	past.NotAfter = time.Now().Add(-time.Second)
	for name, status := range map[string]nodeagent.Status{
		"nothing yet": {}, "a failure": {LastError: "x", Failures: 1}, "of the future": future, "of the past": past,
	} {
		n.tell(status)
		n.beat(status)
		if lines := s.heard(); len(lines) != 2 || !strings.HasPrefix(lines[0], "STATUS=") {
			t.Errorf("%s: %q", name, lines)
		}
	}
	n.tell(supplied())
	if lines := s.heard(); len(lines) != 2 || lines[0] != "READY=1" || !strings.HasPrefix(lines[1], "STATUS=spiffe://a/b, ") {
		t.Errorf("%q", lines)
	}
	n.tell(supplied())
	n.tell(past)
	n.stopping()
	if lines := s.heard(); len(lines) != 4 || slices.Contains(lines, "READY=1") || lines[2] != "STOPPING=1" || lines[3] != "STATUS=stopping" {
		t.Errorf("%q", lines)
	}
}

// TestWatchdogIsFedByTheLoop alone (D-2), and often enough.
func TestWatchdogIsFedByTheLoop(t *testing.T) {
	s := newSystemd(t, "30000000")
	n := newNotifier(quiet())
	if n.every(time.Minute) != 10*time.Second || n.every(time.Second) != time.Second {
		t.Errorf("every %s", n.every(time.Minute))
	}
	n.tell(supplied())
	n.stopping()
	if lines := s.heard(); slices.Contains(lines, "WATCHDOG=1") {
		t.Errorf("%q", lines)
	}
	n.beat(supplied())
	if lines := s.heard(); !slices.Contains(lines, "WATCHDOG=1") {
		t.Errorf("%q", lines)
	}
	newSystemd(t, "soon")
	if n := newNotifier(quiet()); n.watchdog != 0 || n.every(time.Minute) != time.Minute {
		t.Errorf("%s", n.watchdog)
	}
	t.Setenv("NOTIFY_SOCKET", "/nowhere/notify") // and nothing is the matter
	n.beat(supplied())
	t.Setenv("NOTIFY_SOCKET", "")
	n.beat(supplied())
}

// TestAgentTellsSystemd: the whole program. READY comes when the files are
// there, and the watchdog is fed by its loop.
func TestAgentTellsSystemd(t *testing.T) {
	s := newSystemd(t, "3000000")
	h, c := newHost(t), newCitadel(t, 0)
	h.runs(`msg="no new certificate"`)
	if lines := s.heard(); slices.Contains(lines, "READY=1") || !slices.Contains(lines, "WATCHDOG=1") ||
		!strings.HasPrefix(lines[0], "STATUS=no certificate yet") || !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, nothingToJoinWith) }) {
		t.Errorf("%q", lines)
	}
	h.runs("CSR is approved successfully", joins(h, c.join(t, time.Now()))...)
	lines := s.heard()
	if !slices.Contains(lines, "READY=1") || !slices.Contains(lines, "STOPPING=1") {
		t.Errorf("%q", lines)
	}
	for _, line := range lines {
		if strings.Contains(line, "citadel-join") || strings.Contains(line, "PRIVATE") {
			t.Errorf("a secret: %q", line)
		}
	}
}

func TestSummary(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	good := nodeagent.Status{Identity: "spiffe://a/b", NotBefore: now, NotAfter: now.Add(time.Hour), RenewAt: now.Add(30 * time.Minute)}
	failed, late, early, owed := good, good, good, good
	early.NotBefore = now.Add(time.Minute)
	failed.Failures, failed.LastError, failed.NextTry = 2, "so", now.Add(time.Minute)
	late.NotAfter = now.Add(-time.Minute)
	owed.ReloadOwed, owed.ReloadError = true, "no unit"
	for want, s := range map[string]nodeagent.Status{
		"no certificate yet": {},
		"no certificate yet; failed 1 times, next try at 0001-01-01T00:00:00Z: x":                                          {Failures: 1, LastError: "x"},
		"spiffe://a/b, 1h0m0s left, renewal at 2026-05-01T12:30:00Z":                                                       good,
		"spiffe://a/b, 1h0m0s left, renewal at 2026-05-01T12:30:00Z; failed 2 times, next try at 2026-05-01T12:01:00Z: so": failed,
		"spiffe://a/b, not valid before 2026-05-01T12:01:00Z, renewal at 2026-05-01T12:30:00Z":                             early,
		"spiffe://a/b, expired 1m0s ago, renewal at 2026-05-01T12:30:00Z":                                                  late,
		"spiffe://a/b, 1h0m0s left, renewal at 2026-05-01T12:30:00Z; programs were not made to read the files: no unit":    owed,
	} {
		if got := summary(s, now); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestLateLoop: without a watchdog, /healthz says it.
func TestLateLoop(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	synctest.Test(t, func(t *testing.T) {
		p := &process{notify: newNotifier(quiet())}
		<-time.After(lateAfter)
		if err := p.alive(); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		if err := p.alive(); err == nil || err.Error() != "the loop has not turned for 3m1s" {
			t.Error(err)
		}
		p.notify.tell(nodeagent.Status{}) // is not the loop's turn
		if p.alive() == nil {
			t.Error("words count as turns")
		}
		p.notify.beat(nodeagent.Status{})
		if err := p.alive(); err != nil {
			t.Error(err)
		}
	})
}

// TestMetricNames: dashboards and alerts ask for them.
func TestMetricNames(t *testing.T) {
	status := nodeagent.Status{}
	m := newMetrics(func() nodeagent.Status { return status })
	names := func() map[string]bool {
		families, err := m.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{}
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "go_") && !strings.HasPrefix(f.GetName(), "process_") {
				all[f.GetName()] = true
			}
		}
		return all
	}
	always := []string{"citadel_agent_failures_in_a_row", "citadel_agent_failures_total", "citadel_agent_reload_owed", "istio_build"}
	if got := slices.Sorted(maps.Keys(names())); !slices.Equal(got, always) {
		t.Errorf("before the first certificate: %q", got)
	}
	status = supplied()
	status.LastRenewal = time.Now()
	m.observe(nodeagent.Event{By: "join token"})
	m.observe(nodeagent.Event{Err: io.EOF})
	want := append(always, "cert_expiry_seconds", "citadel_agent_certificate_expiry_timestamp", "citadel_agent_next_try_timestamp",
		"citadel_agent_last_renewal_timestamp", "citadel_agent_roots", "citadel_agent_renewals_total")
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(names())); !slices.Equal(got, want) {
		t.Errorf("with one: %q", got)
	}
}

// TestReadiness: programs have a certificate that counts, or why not.
func TestReadiness(t *testing.T) {
	held := madeAt(t, newCitadel(t, 0).root, time.Now())
	for want, set := range map[string]nodeagent.Settings{"": {Held: setOf(held, nil)}, "there is no valid certificate: ": {Held: setOf(held, errors.New("x"))}} {
		p := &process{agent: nodeagent.New(set)}
		if err := p.ready(); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
