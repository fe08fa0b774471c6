package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A kill -9 at any moment of the first 1,000 Secrets, again and again, ends with
// exactly 1,000 right Secrets, none written after it was right.
func TestCrashesInTheMidstOfAThousandSecretsLoseNothing(t *testing.T) {
	t.Parallel()
	const count, crashes, seed = 1000, 8, 20260602
	s := newSite(t)
	ns := s.namespace(t)
	accounts := makeAccounts(t, ns, "sa", count)
	seen := history(t, ns)
	lease := []string{"--lease-duration", "2s", "--lease-renew-deadline", "1s", "--lease-retry-period", "200ms"}
	since := now(t)
	t.Logf("seed %d", seed)
	for _, moment := range moments(seed, crashes, count) {
		p := s.launch(t, launch{}, lease...)
		within(t, patience, func() error {
			if got := len(seen()); got < moment {
				return fmt.Errorf("%d Secrets are made, want %d", got, moment)
			}
			return nil
		})
		p.kill()
		t.Logf("killed at %d Secrets, there were %d", moment, countSecrets(t, ns))
	}
	s.start(t, lease...)
	allRight(t, accounts, s.roots(t))
	if got := countSecrets(t, ns); got != count+1 { // and that of the account "default"
		t.Errorf("there are %d Secrets, want %d", got, count+1)
	}
	for name, versions := range seen() {
		if len(versions) != 1 {
			t.Errorf("Secret %s was written %d times", name, len(versions))
		}
	}
	if got := verbs(writes(t, since, s.user, "secrets", s.storage, "istio-ca-secret")); fmt.Sprint(got) != "[create]" {
		t.Errorf("the CA secret was written by %v", got)
	}
}

// moments are how many Secrets there are when it happens; the first falls into
// the start itself.
func moments(seed uint64, crashes, count int) []int {
	dice := rand.New(rand.NewPCG(seed, 0))
	out := []int{0}
	for range crashes - 1 {
		out = append(out, 1+dice.IntN(count*9/10))
	}
	slices.Sort(out)
	return out
}

func countSecrets(t *testing.T, namespace string) int {
	t.Helper()
	return len(must(plane.Client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}))(t).Items)
}

// A restart finds its work done.
func TestRestartWritesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	accounts := makeAccounts(t, ns, "sa", 100)
	before := allRight(t, accounts, s.roots(t))
	p.stop(t)
	p = s.start(t)
	right(t, makeAccount(t, ns, "last"), s.roots(t))
	for _, r := range objects(t, p.since, p) {
		if r.ObjectRef.Name != "istio.last" {
			t.Errorf("a restart wrote %s", r)
		}
	}
	for name, secret := range allRight(t, accounts, s.roots(t)) {
		if old := before[name]; old != nil && old.ResourceVersion != secret.ResourceVersion {
			t.Errorf("Secret %s was written", name)
		}
	}
	within(t, patience, func() error { // and knows of it
		if got := p.metric(t, "citadel_secret_controller_secrets"); got != float64(len(accounts)+2) {
			return fmt.Errorf("%v Secrets are under management", got)
		}
		return nil
	})
}
