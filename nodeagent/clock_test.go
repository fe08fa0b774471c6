package nodeagent

import (
	"testing"
	"time"

	"citadel/ca/caclient"
)

// TestClockThatJumps: times are the wall's, looked at each minute (D-10). Sleep
// is a jump ahead; a clock set back must not make it wait for what has been.
func TestClockThatJumps(t *testing.T) {
	a := &Agent{set: Settings{Renewal: DefaultRenewal}}
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	a.retryAt = now.Add(4 * time.Minute)
	for ahead, want := range map[time.Duration]time.Duration{0: 4 * time.Minute, time.Hour: 0, -time.Hour: 0} {
		if wait := a.nextAsk(now.Add(ahead)).Sub(now.Add(ahead)); wait != want {
			t.Errorf("the clock went ahead by %s: it waits %s, want %s", ahead, wait, want)
		}
	}
}

// TestClockOfAnotherYear: set back, it must not put off what was to be tried
// again, and a certificate of the future is asked about at once, for the CA's
// answer says what is wrong. The files stay.
func TestClockOfAnotherYear(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(-365 * 24 * time.Hour)
		r.breaks(func(caclient.Config) error {
			return &caclient.Error{Kind: caclient.NotTheCA, Reason: "x: " + caclient.CompareClock + " 2000, compare it"}
		})
		r.run()
		if s := r.agent.Status(); s.Valid(time.Now()) || s.LastError != "certificate: x: this host's clock says 2000, compare it" {
			t.Errorf("%+v", s)
		}
		r.pass(time.Hour)
		if asked, installed := r.count(); installed != 0 || asked > 40 {
			t.Errorf("asked %d times, installed %d", asked, installed)
		}
	})
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	a := &Agent{owed: true, owedAt: now.Add(time.Minute)}
	if a.nextReload(now) != now.Add(time.Minute) || a.nextReload(now.Add(-time.Hour)) != now.Add(-time.Hour) {
		t.Error("a reload waits for what has been")
	}
}
