package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells systemd how a daemon goes (sd_notify(3)); where there is none it
// only remembers. Safe for concurrent use.
type Notifier struct {
	log      *slog.Logger
	watchdog time.Duration // 0: none

	mu    sync.Mutex
	ready bool      // guarded by mu: READY=1 was said
	last  time.Time // guarded by mu: the loop's last turn
}

// NewNotifier reads what systemd put into the environment.
func NewNotifier(log *slog.Logger) *Notifier {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog's variables are not understood: it is not fed", "err", err)
	}
	return &Notifier{log: log, watchdog: watchdog, last: time.Now()}
}

// Heard says whether anybody listens.
func (n *Notifier) Heard() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Every is how often the daemon's loop must turn: most, or sooner where the
// watchdog wants to be fed sooner.
func (n *Notifier) Every(most time.Duration) time.Duration {
	if n.watchdog > 0 {
		return min(most, n.watchdog/3)
	}
	return most
}

// Beat says that the loop has turned. Only the loop itself may call it.
func (n *Notifier) Beat() {
	n.mu.Lock()
	n.last = time.Now()
	n.mu.Unlock()
	if n.watchdog > 0 {
		n.say(daemon.SdNotifyWatchdog)
	}
}

// Late is an error when the loop has not turned for longer than after.
func (n *Notifier) Late(after time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ago := time.Since(n.last); ago > after {
		return fmt.Errorf("the loop has not turned for %s", ago.Round(time.Second))
	}
	return nil
}

// Tell says in a line how it goes, and the first time that the daemon is ready,
// that the unit has started (D-1).
func (n *Notifier) Tell(status string, ready bool) {
	text := "STATUS=" + status
	n.mu.Lock()
	first := ready && !n.ready
	n.ready = n.ready || ready
	n.mu.Unlock()
	if first {
		text = daemon.SdNotifyReady + "\n" + text
	}
	n.say(text)
}

// Stopping says that the daemon ends in order.
func (n *Notifier) Stopping() { n.say(daemon.SdNotifyStopping + "\nSTATUS=stopping") }

func (n *Notifier) say(text string) {
	if _, err := daemon.SdNotify(false, text); err != nil {
		n.log.Debug("systemd is not told", "err", err)
	}
}
