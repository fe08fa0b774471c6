package main

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"citadel/nodeagent"
)

// notifier tells systemd how it goes; where there is none it only remembers.
type notifier struct {
	log      *slog.Logger
	watchdog time.Duration // 0: none

	mu    sync.Mutex
	ready bool      // guarded by mu: READY=1 was said
	last  time.Time // guarded by mu: the loop's last turn
}

func newNotifier(log *slog.Logger) *notifier {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog's variables are not understood: it is not fed", "err", err)
	}
	return &notifier{log: log, watchdog: watchdog, last: time.Now()}
}

// every is how often the loop must turn.
func (n *notifier) every(most time.Duration) time.Duration {
	if n.watchdog > 0 {
		return min(most, n.watchdog/3)
	}
	return most
}

// beat says that the loop has turned.
func (n *notifier) beat(s nodeagent.Status) {
	n.mu.Lock()
	n.last = time.Now()
	n.mu.Unlock()
	if n.watchdog > 0 {
		n.say(daemon.SdNotifyWatchdog)
	}
	n.tell(s)
}

// lateAfter is when a loop that has not turned is called stuck: longer than
// asking the CA and reloading programs may take together.
const lateAfter = 3 * time.Minute

func (n *notifier) late() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ago := time.Since(n.last); ago > lateAfter {
		return fmt.Errorf("the loop has not turned for %s", ago.Round(time.Second))
	}
	return nil
}

// tell says in a line how it goes, and the first time that there is a
// certificate, that the unit has started (D-1).
func (n *notifier) tell(s nodeagent.Status) {
	now := time.Now()
	text := "STATUS=" + summary(s, now)
	n.mu.Lock()
	first := !n.ready && s.Valid(now)
	n.ready = n.ready || first
	n.mu.Unlock()
	if first {
		text = daemon.SdNotifyReady + "\n" + text
	}
	n.say(text)
}

func (n *notifier) stopping() { n.say(daemon.SdNotifyStopping + "\nSTATUS=stopping") }

func (n *notifier) say(text string) {
	if _, err := daemon.SdNotify(false, text); err != nil {
		n.log.Debug("systemd is not told", "err", err)
	}
}

// summary is one line for a person.
func summary(s nodeagent.Status, now time.Time) string {
	text := "no certificate yet"
	if !s.NotAfter.IsZero() {
		text = fmt.Sprintf("%s, %s, renewal at %s", s.Identity, left(s, now), s.RenewAt.UTC().Format(time.RFC3339))
	}
	if s.LastError != "" {
		text += fmt.Sprintf("; failed %d times, next try at %s: %s", s.Failures, s.NextTry.UTC().Format(time.RFC3339), s.LastError)
	}
	if s.ReloadOwed {
		text += "; programs were not made to read the files"
		if s.ReloadError != "" {
			text += ": " + s.ReloadError
		}
	}
	return text
}
