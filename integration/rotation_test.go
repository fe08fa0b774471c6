package integration

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"citadel/ca/trust"
)

// version is a Secret as it was written, and when.
type version struct {
	secret *corev1.Secret
	at     time.Time
}

// history follows the Secrets of a namespace until the test ends. Its result
// returns the versions so far, by name, oldest first.
func history(t *testing.T, namespace string) func() map[string][]version {
	t.Helper()
	list := must(plane.Client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}))(t)
	w := must(watchtools.NewRetryWatcherWithContext(t.Context(), list.ResourceVersion, &cache.ListWatch{ // an API server ends watches as it likes
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return plane.Client.CoreV1().Secrets(namespace).Watch(ctx, o)
		}}))(t)
	t.Cleanup(w.Stop)
	ask := make(chan chan map[string][]version)
	go record(w, ask)
	return func() map[string][]version {
		answer := make(chan map[string][]version)
		select {
		case ask <- answer:
			return <-answer
		case <-w.Done():
			t.Fatalf("the watch of the Secrets of %s ended for good", namespace)
			return nil
		}
	}
}

func record(w watch.Interface, ask <-chan chan map[string][]version) {
	seen := map[string][]version{}
	for {
		select {
		case event, open := <-w.ResultChan():
			if !open {
				return
			}
			if secret, ok := event.Object.(*corev1.Secret); ok {
				seen[secret.Name] = append(seen[secret.Name], version{secret, time.Now()})
			}
		case answer := <-ask:
			out := map[string][]version{}
			for name, versions := range seen {
				out[name] = slices.Clone(versions)
			}
			answer <- out
		}
	}
}

func TestCertificatesAreRenewedAtHalfOfTheirLife(t *testing.T) {
	t.Parallel()
	const ttl, count = 20 * time.Second, 20
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t, "--workload-cert-ttl", ttl.String())
	seen := history(t, ns)
	accounts := makeAccounts(t, ns, "sa", count)
	allRight(t, accounts, s.roots(t))
	within(t, patience, func() error { // four renewals each
		for _, sa := range accounts {
			if got := len(seen()["istio."+sa.Name]); got < 5 {
				return fmt.Errorf("Secret of %s has %d versions", sa.Name, got)
			}
		}
		return nil
	})
	for _, sa := range accounts {
		checkRenewals(t, wanted{account: sa, roots: s.roots(t)}, seen()["istio."+sa.Name], ttl)
	}
	if got := p.metric(t, "citadel_secret_controller_secrets"); got != count+1 {
		t.Errorf("metric says that %v Secrets are under management, want %d", got, count+1)
	}
}

// checkRenewals insists that each version came between 0.4 and 0.5 of the life
// of the one before; certificates cut off fractions of a second, and a busy
// machine adds some.
func checkRenewals(t *testing.T, want wanted, versions []version, ttl time.Duration) {
	t.Helper()
	for i, v := range versions {
		want.at = v.at
		if err := want.flaw(v.secret); err != nil {
			t.Errorf("version %d: %v", i, err)
		}
		if i == 0 {
			continue
		}
		before := versions[i-1]
		if err := different(before.secret, v.secret); err != nil {
			t.Errorf("version %d: %v", i, err)
		}
		if !bytes.Equal(before.secret.Data[rootKey], v.secret.Data[rootKey]) {
			t.Errorf("version %d of %s has other roots", i, v.secret.Name)
		}
		if left := leafOf(t, before.secret).NotAfter.Sub(v.at); left < ttl/2-5*time.Second || left > ttl*6/10+time.Second {
			t.Errorf("version %d of %s came when the one before had %s of its %s left", i, v.secret.Name, left, ttl)
		}
	}
}

func TestSecretsMadeTogetherAreNotRenewedTogether(t *testing.T) {
	t.Parallel()
	const count = 60
	s := newSite(t)
	ns := s.namespace(t)
	s.start(t, "--workload-cert-ttl", "30s", "--workload-cert-rotation-jitter", "0.4")
	seen := history(t, ns)
	accounts := makeAccounts(t, ns, "sa", count)
	perSecond := map[int64]int{}
	within(t, patience, func() error {
		clear(perSecond)
		all := seen()
		for _, sa := range accounts {
			versions := all["istio."+sa.Name]
			if len(versions) < 2 {
				return fmt.Errorf("Secret of %s has %d versions", sa.Name, len(versions))
			}
			perSecond[versions[1].at.Sub(versions[0].at).Milliseconds()/1000]++
		}
		return nil
	})
	// Evenly over the 12 seconds from 3 to 15: five in each.
	for second, renewals := range perSecond {
		if renewals > count/3 || second < 1 || second > 20 {
			t.Errorf("%d of %d Secrets were renewed in second %d of their life: %v", renewals, count, second, perSecond)
		}
	}
	if len(perSecond) < 6 {
		t.Errorf("renewals fell into %d seconds only: %v", len(perSecond), perSecond)
	}
}

func TestFreshCertificateIsNeverDue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags []string
		most  int // writes in 10s
	}{
		"TTL below the minimum grace": {[]string{"--workload-cert-ttl", "1m"}, 1},
		"all of life is grace":        {[]string{"--workload-cert-ttl", "1m", "--workload-cert-grace-period-ratio", "1"}, 4},
		"all of life is jitter":       {[]string{"--workload-cert-ttl", "1m", "--workload-cert-rotation-jitter", "1"}, 4},
		"TTL of two seconds":          {[]string{"--workload-cert-ttl", "2s"}, 12},
		"TTL of a second":             {[]string{"--workload-cert-ttl", "1s"}, 24},
		"TTL of a second, all grace":  {[]string{"--workload-cert-ttl", "1s", "--workload-cert-grace-period-ratio", "1"}, 24},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			ns := s.namespace(t)
			p := s.start(t, c.flags...)
			makeAccount(t, ns, "sleep")
			within(t, patience, func() error { _, err := getSecret(t.Context(), ns, "sleep"); return err })
			since, begin := now(t), time.Now()
			stays(t, 10*time.Second, func() error { return nil })
			allowed := c.most * int(time.Since(begin)/(10*time.Second)+1)
			if got := len(writes(t, since, p.user, "secrets", ns, "istio.sleep")); got > allowed {
				t.Errorf("Secret was written %d times in 10s, want at most %d", got, allowed)
			}
		})
	}
}

func TestSecretsThatExpiredWhileCitadelWasDownAreRenewedOnStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t, "--workload-cert-ttl", "3s")
	accounts := makeAccounts(t, ns, "sa", 20)
	old := allPresent(t, accounts)
	p.stop(t)
	for _, secret := range old {
		end := leafOf(t, secret).NotAfter
		within(t, patience, func() error {
			if time.Now().Before(end) {
				return fmt.Errorf("it ends at %s", end)
			}
			return nil
		})
	}
	p = s.start(t)
	allRight(t, accounts, s.roots(t))
	for _, sa := range accounts {
		if got := verbs(writes(t, p.since, p.user, "secrets", ns, "istio."+sa.Name)); fmt.Sprint(got) != "[update]" {
			t.Errorf("Secret of %s was renewed by %v, want one update", sa.Name, got)
		}
	}
}

// allPresent waits until all have a Secret that says for how long it is good.
func allPresent(t *testing.T, accounts []*corev1.ServiceAccount) []*corev1.Secret {
	t.Helper()
	var out []*corev1.Secret
	within(t, patience, func() error {
		out = out[:0]
		for _, sa := range accounts {
			secret, err := getSecret(t.Context(), sa.Namespace, sa.Name)
			if err != nil {
				return err
			}
			if _, err := trust.ParseCertificates(secret.Data[chainKey]); err != nil {
				return err
			}
			out = append(out, secret)
		}
		return nil
	})
	return out
}
