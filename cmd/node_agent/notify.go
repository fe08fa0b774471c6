package main

import (
	"fmt"
	"time"

	"citadel/cmd/internal/daemon"
	"citadel/nodeagent"
)

// lateAfter is when a loop that has not turned is called stuck: longer than asking
// the CA, once by each proof, may take.
const lateAfter = 3 * time.Minute

// tellSystemd says how it goes. The unit has started when there is a certificate.
func tellSystemd(n *daemon.Notifier, s nodeagent.Status) {
	now := time.Now()
	n.Tell(summary(s, now), s.Valid(now))
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
