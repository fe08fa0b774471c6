package ca_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestIssueIsSafeForConcurrentUse mixes both profiles, refusals and readers;
// the race detector watches.
func TestIssueIsSafeForConcurrentUse(t *testing.T) {
	a, log := namesSetup(t)
	csrs := [][]byte{workloadCSR(t), catest.CSR(t, catest.Key(t, trust.RSA2048, "workload"))}
	const workers, each = 16, 20
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { work(t, a, w, each, csrs) })
	}
	wg.Wait()
	checkPaired(t, log.Records(), workers*each)
}

func work(t *testing.T, a *ca.Authority, w, each int, csrs [][]byte) {
	id := spiffeid.RequireFromString(fmt.Sprintf("spiffe://cluster.local/ns/default/sa/w%d", w))
	own := ca.NewCaller(id, "test", "")
	for i := range each {
		chain, err := a.Issue(now, own, ca.Request{CSR: csrs[i%len(csrs)]})
		if err != nil || chain[0].URIs[0].String() != id.String() {
			t.Errorf("%s: error %v, or somebody else's certificate", id, err)
			return
		}
		if _, err := a.Issue(now, own, ca.Request{CSR: csrs[0], TTL: maxTTL + 1}); err == nil || a.Ready(now) != nil {
			t.Errorf("%s: too long a life is granted, or the authority is not ready", id)
		}
	}
}

// checkPaired: each serial number stands in one record before and one after
// its signature, in this order, and in no other.
func checkPaired(t *testing.T, records []ca.AuditRecord, signatures int) {
	t.Helper()
	stages := map[string]string{}
	for _, r := range records {
		if r.Stage != ca.AuditRefused {
			stages[r.Serial] += r.Stage + " "
		}
	}
	if len(stages) != signatures {
		t.Errorf("R-1: %d serial numbers for %d signatures", len(stages), signatures)
	}
	for serial, got := range stages {
		if got != "signing signed " {
			t.Errorf("serial number %s has records %q", serial, got)
		}
	}
}
