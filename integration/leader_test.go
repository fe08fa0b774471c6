package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/integration/proxy"
)

// shortLease makes a silent leader's place free after 4s.
var shortLease = []string{"--lease-duration", "4s", "--lease-renew-deadline", "2s", "--lease-retry-period", "300ms"}

// pair is two replicas of one site, under accounts of their own so that the
// audit log tells them apart.
type pair struct {
	*site
	namespace string
	leader    *process
	other     *process
	lease     []string // flags
}

func startPair(t *testing.T, lease ...string) *pair {
	t.Helper()
	s := newSite(t)
	p := &pair{site: s, namespace: s.namespace(t), lease: lease}
	p.leader = s.start(t, lease...)
	within(t, patience, func() error { return leads(t, p.leader) })
	p.other = p.replica(t, "citadel-b")
	return p
}

// replica starts one more.
func (p *pair) replica(t *testing.T, account string) *process {
	t.Helper()
	r := p.launch(t, launch{account: p.newAccount(t, account)}, p.lease...)
	r.ready(t) // without leading: it can sign
	return r
}

func leads(t *testing.T, p *process) error {
	t.Helper()
	got, err := p.Metric(t.Context(), "citadel_leader")
	if err == nil && got != 1 {
		err = fmt.Errorf("%s does not lead", p.user)
	}
	return err
}

// objects are a process's writes of what it manages; the lease is not of that.
func objects(t *testing.T, since mark, p *process) []request {
	t.Helper()
	return slices.DeleteFunc(writes(t, since, p.user, "", "", ""), func(r request) bool { return r.of("leases", "", "") })
}

func TestOneReplicaWritesAndAllSign(t *testing.T) {
	t.Parallel()
	p := startPair(t) // with the usual lease: the leader is to stay it, on a busy machine too
	accounts := makeAccounts(t, p.namespace, "sa", 30)
	allRight(t, accounts, p.roots(t))
	if got := objects(t, p.other.since, p.other); len(got) > 0 {
		t.Errorf("the replica that does not lead wrote %v", got)
	}
	if got := p.other.metric(t, "citadel_leader"); got != 0 {
		t.Errorf("the replica that does not lead says that it does: %v", got)
	}
	p.other.answers(t, "/readyz", 200)
}

func TestLeaseIsGivenBackOnSIGTERM(t *testing.T) {
	t.Parallel()
	p := startPair(t, shortLease...)
	p.leader.stop(t)
	begin := time.Now()
	right(t, makeAccount(t, p.namespace, "after"), p.roots(t))
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the other replica took over %s after the leader's end: it waited for the lease to run out", took)
	}
	if got := verbs(writes(t, p.other.since, p.other.user, "secrets", p.namespace, "istio.after")); fmt.Sprint(got) != "[create]" {
		t.Errorf("the other replica wrote %v", got)
	}
}

func TestKilledLeaderIsReplacedWhenItsLeaseRunsOut(t *testing.T) {
	t.Parallel()
	p := startPair(t, shortLease...)
	accounts := makeAccounts(t, p.namespace, "sa", 50)
	p.leader.kill() // in the midst of it
	begin := time.Now()
	within(t, patience, func() error { return leads(t, p.other) })
	if took := time.Since(begin); took < time.Second || took > 20*time.Second {
		t.Errorf("the other replica took over after %s, want about 4s", took)
	}
	allRight(t, accounts, p.roots(t))
	checkWrittenOnce(t, accounts, p.leader, p.other)
}

// checkWrittenOnce insists that nothing but a create of each Secret came to
// something, and of each one. That one may be missing: the audit log does not
// tell what became of a request that lost its sender or its API server.
func checkWrittenOnce(t *testing.T, accounts []*corev1.ServiceAccount, by ...*process) {
	t.Helper()
	done := map[string][]string{}
	for _, p := range by {
		for _, r := range writes(t, p.since, p.user, "secrets", accounts[0].Namespace, "") {
			if r.done() {
				done[r.ObjectRef.Name] = append(done[r.ObjectRef.Name], r.Verb)
			}
		}
	}
	missing := 0
	for _, sa := range accounts {
		switch got := done["istio."+sa.Name]; {
		case len(got) == 0:
			missing++
		case len(got) > 1 || got[0] != "create":
			t.Errorf("Secret istio.%s was written by %v, want one create", sa.Name, got)
		}
	}
	if missing > 64 { // of both replicas' workers
		t.Errorf("the audit log lacks %d of %d writes", missing, len(accounts))
	}
}

// A leader that was suspended past its lease, in the midst of its work, must
// not go on with it when it wakes.
func TestFrozenLeaderWritesNothingWhenItWakes(t *testing.T) {
	t.Parallel()
	p := startPair(t, shortLease...)
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			accounts := makeAccounts(t, p.namespace, fmt.Sprintf("sa-%d", round), 100)
			within(t, patience, func() error { // some are done and some are not
				if len(objects(t, p.leader.since, p.leader)) == 0 {
					return fmt.Errorf("nothing is written yet")
				}
				return nil
			})
			freeze(t, p.leader)
			within(t, patience, func() error { return leads(t, p.other) })
			allRight(t, accounts, p.roots(t))
			pending := must(getSecret(t.Context(), p.namespace, accounts[0].Name))(t)
			since := now(t)
			thaw(t, p.leader)
			deleteSecret(t, pending)
			repaired(t, pending, wanted{account: accounts[0], roots: p.roots(t)})
			stays(t, 3*time.Second, func() error { return wroteNothing(t, since, p.leader) })
			p.leader.answers(t, "/readyz", 200)
			checkWrittenOnce(t, accounts[1:], p.leader, p.other)
			p.leader, p.other = p.other, p.leader
		})
	}
}

// wroteNothing is nil when no write of the process came to anything. What was
// half sent when it froze, by a few of its 32 workers, ends now.
func wroteNothing(t *testing.T, since mark, p *process) error {
	t.Helper()
	const halfSent = 6
	tried := objects(t, since, p)
	if done := verbs(tried); len(done) > 0 || len(tried) > halfSent {
		return fmt.Errorf("the leader of before tried %d writes when it woke, of which %v came to something: %v", len(tried), done, tried)
	}
	return nil
}

// A Citadel that cannot reach the API server stops writing before its lease is
// another's.
func TestLeaderWithoutAPIServerGivesUpAndComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	middle := newProxy(t)
	middle.Server.StartTLS()
	p := s.launch(t, launch{account: s.account.via(t, middle)}, shortLease...)
	p.ready(t)
	within(t, patience, func() error { return leads(t, p) })
	middle.Break(proxy.Unreachable)
	middle.Server.CloseClientConnections()
	within(t, patience, func() error {
		if leads(t, p) == nil {
			return fmt.Errorf("it still leads")
		}
		return nil
	})
	p.answers(t, "/healthz", 200)
	accounts := makeAccounts(t, ns, "sa", 20)
	middle.Break(nil)
	allRight(t, accounts, s.roots(t))
	checkWrittenOnce(t, accounts, p)
	lease := must(plane.Client.CoordinationV1().Leases(s.storage).Get(t.Context(), "istio-citadel", metav1.GetOptions{}))(t)
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		t.Error("nobody holds the lease")
	}
}
