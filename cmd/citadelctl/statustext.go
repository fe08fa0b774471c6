package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"citadel/cmd/citadelctl/health"
)

// writeStatus is the one screen: numbers first, then what needs a person.
func writeStatus(w io.Writer, now time.Time, r health.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	writeAuthority(t, now, r.Authority)
	writeRoots(t, now, r.Roots)
	writeReplicas(t, now, r.Replicas, r.Leader)
	writeSecretCounts(t, now, r.Secrets)
	if err := t.Flush(); err != nil {
		return err
	}
	var err error
	for _, part := range []struct {
		title   string
		outcome health.Outcome
	}{{"Needs a person", health.Failed}, {"Worth knowing", health.Warned}, {"Unknown", health.Unknown}} {
		err = writeOutcome(w, part.title, part.outcome, r.Checks)
	}
	if health.Verdict(r.Checks) == health.Passed {
		_, err = fmt.Fprintln(w, "\nAll is well.")
	}
	return err
}

func writeOutcome(w io.Writer, title string, outcome health.Outcome, checks []health.Check) (err error) {
	for _, c := range checks {
		if c.Outcome != outcome {
			continue
		}
		if title != "" {
			fmt.Fprintf(w, "\n%s:\n", title)
			title = ""
		}
		_, err = fmt.Fprintf(w, "  - %s: %s\n", c.Name, printable(c.Message))
		if c.Remedy != "" {
			_, err = fmt.Fprintf(w, "    remedy: %s\n", printable(c.Remedy))
		}
	}
	return err
}

func writeAuthority(t io.Writer, now time.Time, a health.Authority) {
	switch {
	case a.Unknown != "":
		field(t, "CA", "unknown: "+a.Unknown)
		return
	case a.Subject == "":
		field(t, "CA", "none that can sign")
		return
	}
	kind := "below an operator's root"
	if a.SelfSigned {
		kind = "self-signed"
	}
	field(t, "CA", fmt.Sprintf("%s, %s, %s, in %s", a.Subject, a.KeyType, kind, a.Source))
	field(t, "  ends", moment(a.NotAfter)+" ("+expiry(now, a.NotAfter)+")")
}

func writeRoots(t io.Writer, now time.Time, r health.Roots) {
	switch {
	case len(r.Certificates) > 0:
		field(t, "Roots", fmt.Sprintf("%d in force, of %s", len(r.Certificates), r.From))
	case r.Unknown == "":
		field(t, "Roots", "none in force")
	}
	for _, root := range r.Certificates {
		field(t, "  ends", fmt.Sprintf("%s (%s): %s, %s", moment(root.NotAfter), expiry(now, root.NotAfter), root.Subject, root.KeyType))
	}
	if r.Unknown != "" {
		field(t, "Roots published", "unknown: "+r.Unknown)
		return
	}
	field(t, "  published", fmt.Sprintf("in %d of %s", r.Published, count(r.Namespaces, "namespace")))
}

func writeReplicas(t io.Writer, now time.Time, r health.Replicas, l health.Leader) {
	switch {
	case r.Unknown != "":
		field(t, "Replicas", "unknown: "+r.Unknown)
	case !r.Deployed:
		field(t, "Replicas", "no Deployment")
	default:
		field(t, "Replicas", fmt.Sprintf("%d of %d ready", r.Ready, r.Wanted))
	}
	for _, p := range r.Pods {
		state := "ready"
		if !p.Ready {
			state = p.State
		}
		field(t, "  pod", fmt.Sprintf("%s: %s, %s", p.Name, state, count(p.Restarts, "restart")))
	}
	switch {
	case l.Unknown != "":
		field(t, "Leader", "unknown: "+l.Unknown)
	case l.Holder == "":
		field(t, "Leader", "none")
	case l.Expired:
		field(t, "Leader", fmt.Sprintf("none: the lease of %s has run out, renewed %s", l.Holder, when(now, l.RenewedAt)))
	default:
		field(t, "Leader", fmt.Sprintf("%s, renewed %s", l.Holder, when(now, l.RenewedAt)))
	}
}

func writeSecretCounts(t io.Writer, now time.Time, s health.Secrets) {
	if s.Unknown != "" {
		field(t, "Secrets", "unknown: "+s.Unknown)
		return
	}
	field(t, "Secrets", fmt.Sprintf("%d right of %s in %s", s.Right, count(s.Accounts, "service account"), count(s.Namespaces, "namespace")))
	for _, n := range []struct {
		name  string
		count int
	}{{"too new", s.Pending}, {"missing", s.Missing}, {"wrong", s.Wrong}, {"past grace", s.PastGrace}, {"orphaned", s.Orphans}} {
		if n.count > 0 {
			field(t, "  "+n.name, fmt.Sprint(n.count))
		}
	}
	if !s.SoonestExpiry.IsZero() {
		field(t, "  first end", expiry(now, s.SoonestExpiry))
	}
	if !s.SoonestRenewal.IsZero() {
		field(t, "  next renewal", when(now, s.SoonestRenewal))
	}
}
