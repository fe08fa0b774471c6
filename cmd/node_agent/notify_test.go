package main

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"citadel/cmd/internal/daemon"
	"citadel/cmd/internal/daemontest"
	"citadel/nodeagent"
	"citadel/nodeagent/policycache"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func supplied() nodeagent.Status {
	now := time.Now().Round(time.Second)
	return nodeagent.Status{Identity: "spiffe://a/b", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), RenewAt: now.Add(30 * time.Minute), NextTry: now.Add(30 * time.Minute)}
}

// TestReadyWithACertificate alone (specifications D-1), once.
func TestReadyWithACertificate(t *testing.T) {
	s := daemontest.NewSystemd(t, "")
	n := daemon.NewNotifier(quiet())
	future, past := supplied(), supplied()
	future.NotBefore = time.Now().Add(time.Minute)
	past.NotAfter = time.Now().Add(-time.Second)
	for name, status := range map[string]nodeagent.Status{
		"nothing yet": {}, "a failure": {LastError: "x", Failures: 1}, "of the future": future, "of the past": past,
	} {
		tellSystemd(n, status)
		tellSystemd(n, status)
		if lines := s.Heard(); len(lines) != 2 || !strings.HasPrefix(lines[0], "STATUS=") {
			t.Errorf("%s: %q", name, lines)
		}
	}
	tellSystemd(n, supplied())
	if lines := s.Heard(); len(lines) != 2 || lines[0] != "READY=1" || !strings.HasPrefix(lines[1], "STATUS=spiffe://a/b, ") {
		t.Errorf("%q", lines)
	}
	tellSystemd(n, supplied())
	tellSystemd(n, past)
	n.Stopping()
	if lines := s.Heard(); len(lines) != 4 || slices.Contains(lines, "READY=1") || lines[2] != "STOPPING=1" || lines[3] != "STATUS=stopping" {
		t.Errorf("%q", lines)
	}
}

// TestAgentTellsSystemd: the whole program. READY comes when the files are
// there, and the watchdog is fed by its loop.
func TestAgentTellsSystemd(t *testing.T) {
	s := daemontest.NewSystemd(t, "3000000")
	h, c := newHost(t), newCitadel(t, 0)
	h.runs(`msg="no new certificate"`)
	if lines := s.Heard(); slices.Contains(lines, "READY=1") || !slices.Contains(lines, "WATCHDOG=1") ||
		!strings.HasPrefix(lines[0], "STATUS=no certificate yet") || !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, nothingToJoinWith) }) {
		t.Errorf("%q", lines)
	}
	h.runs("CSR is approved successfully", joins(h, c.join(t, time.Now()))...)
	lines := s.Heard()
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
		p := &process{notify: daemon.NewNotifier(quiet())}
		<-time.After(lateAfter)
		if err := p.alive(); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		if err := p.alive(); err == nil || err.Error() != "the loop has not turned for 3m1s" {
			t.Error(err)
		}
		tellSystemd(p.notify, nodeagent.Status{}) // is not the loop's turn
		if p.alive() == nil {
			t.Error("words count as turns")
		}
		p.notify.Beat()
		if err := p.alive(); err != nil {
			t.Error(err)
		}
	})
}

// TestMetricNames: dashboards and alerts ask for them.
func TestMetricNames(t *testing.T) {
	now, policy := nodeagent.Status{}, (*policycache.Status)(nil)
	m := newMetrics(func() status { return status{Status: now, Policy: policy} })
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
	now = supplied()
	now.LastRenewal = time.Now()
	policy = &policycache.Status{Source: policycache.Disk, Heard: time.Now(), Updated: time.Now()}
	m.observe(nodeagent.Event{By: "join token"})
	m.observe(nodeagent.Event{Err: io.EOF})
	want := append(always, "cert_expiry_seconds", "citadel_agent_certificate_expiry_timestamp", "citadel_agent_next_try_timestamp",
		"citadel_agent_last_renewal_timestamp", "citadel_agent_roots", "citadel_agent_renewals_total",
		"citadel_agent_policy_known", "citadel_agent_policy_served", "citadel_agent_policy_heard_timestamp",
		"citadel_agent_policy_info", "citadel_agent_policy_updated_timestamp")
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
