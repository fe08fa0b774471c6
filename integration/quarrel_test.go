package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTwoCitadelsOverOneNamespace: two that both manage it, each with a root of
// its own, come to write seldom, and tell people by the log, an Event and a
// metric. When one is stopped the other sets all right.
func TestTwoCitadelsOverOneNamespace(t *testing.T) {
	t.Parallel()
	ns := makeNamespace(t, nil)
	accounts := makeAccounts(t, ns, "sa", 30)
	first, second := newSite(t), newSite(t)
	flags := []string{"--listened-namespaces", ns, "--root-change-window=0"}
	a := first.start(t, flags...)
	b := second.start(t, flags...)
	a.says(t, "somebody else writes what citadel keeps")
	a.says(t, "is there a second citadel")
	within(t, patience, func() error {
		events, err := plane.Client.EventsV1().Events(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Reason == "SecretContended" && e.Regarding.Kind == "ServiceAccount" && strings.Contains(e.Note, ns+"/istio.") {
				return nil
			}
		}
		return fmt.Errorf("none of %d Events tells of the quarrel", len(events.Items))
	})
	within(t, patience, func() error {
		if n := a.metric(t, "citadel_secret_controller_contended_secrets"); n < 10 {
			return fmt.Errorf("%.0f Secrets contended", n)
		}
		return nil
	})
	const window, most = 15 * time.Second, 24 // of both, each once in two seconds and a little more
	within(t, 2*patience, func() error {
		since := now(t)
		<-time.After(window)
		n := len(writes(t, since, a.user, "secrets", ns, "")) + len(writes(t, since, b.user, "secrets", ns, ""))
		t.Logf("%d writes in %s", n, window)
		if n > most {
			return fmt.Errorf("%d writes in %s over %d Secrets", n, window, len(accounts))
		}
		return nil
	})
	b.stop(t)
	roots := first.roots(t)
	within(t, 2*patience, func() error {
		for _, sa := range accounts {
			if err := isOf(t, sa, "cluster.local", roots); err != nil {
				return err
			}
		}
		return nil
	})
}
