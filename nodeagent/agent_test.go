package nodeagent

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func TestJoinsAndRenews(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.joins()
		var joined string
		r.set.Joined = func(address string) error { joined = address; return nil }
		r.set.Organization = "Juju org"
		r.run()
		if s := r.agent.Status(); !s.Valid(time.Now()) || s.ID != web || s.RenewedBy != "join token" || s.CA != "joined:8060" || joined != "joined:8060" {
			t.Fatalf("%+v", s)
		}
		if r.asked[0].Address != "joined:8060" || r.asked[0].Token != "secret" || r.asked[0].Certificate != nil || len(r.asked[0].Fingerprints) != 1 {
			t.Errorf("asked %+v", r.asked[0])
		}
		first := r.newest()
		for range 3 { // of an hour, so each within the second quarter or before half of it
			r.pass(31 * time.Minute)
		}
		if asked, installed := r.count(); asked != 4 || installed != 4 {
			t.Errorf("asked %d times, installed %d", asked, installed)
		}
		if trust.SamePublicKey(first.SVID.PrivateKey.Public(), r.newest().SVID.PrivateKey.Public()) {
			t.Error("the key is the old one")
		}
		if last := r.asked[3]; last.Token != "" || last.Certificate == nil || last.Address != "joined:8060" || len(last.Roots) != 1 {
			t.Errorf("asked %+v", last)
		}
		if csr := r.csrs[3]; len(csr.URIs) != 1 || csr.URIs[0].String() != web.String() || csr.Subject.Organization[0] != "Juju org" {
			t.Errorf("the request names %v, %v", csr.URIs, csr.Subject)
		}
	})
}

// TestNothingDueNothingAsked: a restart costs the CA nothing.
func TestNothingDueNothingAsked(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(10 * time.Minute)
		r.run()
		r.pass(10 * time.Minute)
		if asked, _ := r.count(); asked != 0 {
			t.Errorf("asked %d times", asked)
		}
		r.agent.Renew()
		r.pass(0)
		if asked, installed := r.count(); asked != 1 || installed != 1 {
			t.Errorf("told to renew: asked %d times", asked)
		}
	})
}

// TestChangedSettingsCountAtOnce: a person who sets another TTL and restarts
// does not wait for the next renewal.
func TestChangedSettingsCountAtOnce(t *testing.T) {
	for name, edit := range map[string]func(*rig){
		"TTL":      func(r *rig) { r.set.TTL = 2 * time.Hour },
		"key type": func(r *rig) { r.set.KeyType = trust.ECDSAP384 },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.holds(time.Minute)
				edit(r)
				r.run()
				if asked, installed := r.count(); asked != 1 || installed != 1 {
					t.Errorf("asked %d times", asked)
				}
			})
		})
	}
}

// TestOutage: what is valid stays, tries are spread and never stop, and the
// host recovers by itself, by its expired certificate.
func TestOutage(t *testing.T) { // compatibility 9, complaint 11
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(25 * time.Minute)
		r.breaks(unreachable)
		r.run()
		r.pass(5 * time.Hour)
		asked, installed := r.count()
		if installed != 0 || asked < 5*60/5 || asked > 5*60/2 {
			t.Errorf("asked %d times, installed %d", asked, installed)
		}
		s := r.agent.Status()
		if s.Failures != asked || s.LastError != "expired certificate: ca:8060 does not answer: connection refused: is that the CA's address (--ca-address), and does it run and let this host through? It is asked again" || s.Valid(time.Now()) || s.ID != web {
			t.Errorf("%+v", s)
		}
		r.breaks(nil)
		r.pass(5 * time.Minute)
		if s := r.agent.Status(); !s.Valid(time.Now()) || s.RenewedBy != "expired certificate" || s.Failures != 0 || s.LastError != "" {
			t.Errorf("%+v", s)
		}
	})
}

func TestBackOff(t *testing.T) {
	for failures, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: lastRetry, 1000: lastRetry} {
		for range 100 {
			if wait := retryIn(failures, 0); wait < most/2 || wait > most {
				t.Fatalf("%d failures: %s", failures, wait)
			}
		}
	}
	if wait := retryIn(1, time.Minute); wait != time.Minute {
		t.Errorf("asked to wait a minute: %s", wait)
	}
	if wait := retryIn(1, 24*time.Hour); wait != lastRetry {
		t.Errorf("asked to wait a day: %s", wait)
	}
}

// TestLadder: which proof is tried after which, and where it ends.
func TestLadder(t *testing.T) {
	answer := func(kind caclient.Kind) error { return &caclient.Error{Kind: kind, Reason: "so"} }
	name := func(cfg caclient.Config) string {
		switch {
		case cfg.Certificate != nil:
			return "certificate"
		case cfg.Token == "secret":
			return "join"
		}
		return "token"
	}
	for test, c := range map[string]struct {
		answers map[string]error
		tried   string
		by      string
		text    string
	}{
		"the first does":            {nil, "certificate", "expired certificate", ""},
		"the second does":           {map[string]error{"certificate": answer(caclient.NotProven)}, "certificate token", "token", ""},
		"the last does":             {map[string]error{"certificate": answer(caclient.NotProven), "token": answer(caclient.NotProven)}, "certificate token join", "join token", ""},
		"other roots, but a token":  {map[string]error{"certificate": answer(caclient.NotTheCA), "token": answer(caclient.NotTheCA)}, "certificate token join", "join token", ""},
		"nobody answers":            {map[string]error{"certificate": answer(caclient.Unreachable)}, "certificate", "", "expired certificate: ca:8060 does not answer: so"},
		"banned":                    {map[string]error{"certificate": answer(caclient.Refused)}, "certificate", "", "expired certificate: so"},
		"none of them does":         {map[string]error{"certificate": answer(caclient.NotProven), "token": answer(caclient.NotProven), "join": answer(caclient.NotProven)}, "certificate token join", "", "bring a fresh join token (citadelctl token create)"},
		"the CA is another by now":  {map[string]error{"certificate": answer(caclient.NotTheCA), "token": answer(caclient.NotTheCA), "join": answer(caclient.NotTheCA)}, "certificate token join", "", "compare --ca-address"},
		"broken answers lead along": {map[string]error{"certificate": answer(caclient.Broken)}, "certificate token", "token", ""},
	} {
		t.Run(test, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.holds(90 * time.Minute)
				r.joins()
				r.join.Address = r.set.Address
				r.set.Token = func() (string, error) { return "jwt", nil }
				r.breaks(func(cfg caclient.Config) error { return c.answers[name(cfg)] })
				r.run()
				var tried []string
				for _, cfg := range r.asked {
					tried = append(tried, name(cfg))
				}
				s := r.agent.Status()
				if strings.Join(tried, " ") != c.tried || s.RenewedBy != c.by || !strings.Contains(s.LastError, c.text) || (s.LastError == "") != (c.text == "") {
					t.Errorf("tried %v, got one by %q: %s", tried, s.RenewedBy, s.LastError)
				}
			})
		})
	}
}

func TestNothingToJoinWith(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.run()
		if s := r.agent.Status(); !strings.Contains(s.LastError, "there is nothing to join with: give a join token") {
			t.Errorf("%+v", s)
		}
		r.mu.Lock()
		r.joins() // somebody brings one
		r.mu.Unlock()
		r.pass(5 * time.Second)
		if s := r.agent.Status(); !s.Valid(time.Now()) {
			t.Errorf("%+v", s)
		}
	})
}

func TestNoRootIsKnown(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.set.Token = func() (string, error) { return "jwt", nil }
		r.run()
		if s := r.agent.Status(); !strings.Contains(s.LastError, "no root of the CA is known: give --ca-root") {
			t.Errorf("%+v", s)
		}
		if asked, _ := r.count(); asked != 0 {
			t.Error("an unknown server was asked")
		}
	})
}

// TestJoinKeyIsKept: a token counts its uses by key, so a join that failed or
// whose answer was lost asks with the key that it asked with.
func TestJoinKeyIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.joins()
		r.breaks(unreachable)
		r.run()
		r.pass(10 * time.Second)
		r.mu.Lock()
		kept, first := r.joinKey, r.csrs[0]
		for i, csr := range r.csrs {
			if string(csr.RawSubjectPublicKeyInfo) != string(first.RawSubjectPublicKeyInfo) {
				t.Errorf("request %d has another key", i)
			}
		}
		r.mu.Unlock()
		if kept == nil {
			t.Fatal("the key is not kept")
		}
		r.breaks(nil)
		r.pass(time.Minute)
		if !trust.SamePublicKey(r.newest().SVID.PrivateKey.Public(), kept.Public()) {
			t.Error("it joined with another key")
		}
		if r.joinKey != nil {
			t.Error("the key is left behind")
		}
	})
}

// TestAnswersThatAreNotInstalled: everything is checked before anything is
// touched (compatibility 9, complaint 12).
func TestAnswersThatAreNotInstalled(t *testing.T) {
	other := spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/other")
	for name, c := range map[string]struct {
		spoil func(*rig, *caclient.Issued)
		text  string
	}{
		"another key": {func(r *rig, i *caclient.Issued) {
			i.Chain[0] = r.root.Leaf(r.t, time.Now(), web).Cert
		}, "for another key"},
		"another's identity": {func(r *rig, i *caclient.Issued) { i.Chain[0] = leafFor(r, other, i.Chain[0].PublicKey) },
			"the CA answered with the certificate of spiffe://cluster.local/ns/vm/sa/other, and this host is spiffe://cluster.local/ns/vm/sa/web"},
		"no identity": {func(r *rig, i *caclient.Issued) { i.Chain[0] = leafFor(r, spiffeid.ID{}, i.Chain[0].PublicKey) }, "names no workload"},
		"other roots": {func(r *rig, i *caclient.Issued) {
			i.Roots = []*x509.Certificate{catest.Root(r.t, time.Now(), catest.Spec{Name: "x"}).Cert}
		}, "does not verify to the roots that came with it"},
		"no roots": {func(_ *rig, i *caclient.Issued) { i.Roots = nil }, "no certificate or no roots"},
		"expired": {func(r *rig, i *caclient.Issued) {
			i.Chain[0] = leafFor(r, web, i.Chain[0].PublicKey, lasts(-2*time.Hour))
		}, "compare it"},
		"not yet valid": {func(r *rig, i *caclient.Issued) {
			i.Chain[0] = leafFor(r, web, i.Chain[0].PublicKey, lasts(2*time.Hour))
		}, "compare it"},
		"for one side":   {func(r *rig, i *caclient.Issued) { i.Chain[0] = leafFor(r, web, i.Chain[0].PublicKey, serverOnly) }, "not for servers and clients alike"},
		"a CA's own":     {func(r *rig, i *caclient.Issued) { i.Chain = i.Roots }, "another key"},
		"nothing at all": {func(_ *rig, i *caclient.Issued) { i.Chain = nil }, "no certificate"},
		"the CA's domain": {func(r *rig, i *caclient.Issued) {
			i.Chain[0] = leafFor(r, spiffeid.RequireFromString("spiffe://cluster.local"), i.Chain[0].PublicKey)
		}, "this host is"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.holds(40 * time.Minute)
				r.spoil = func(i *caclient.Issued) { c.spoil(r, i) }
				r.run()
				s := r.agent.Status()
				if _, installed := r.count(); installed != 0 || !strings.Contains(s.LastError, c.text) || !s.Valid(time.Now()) {
					t.Errorf("installed %d: %s", installed, s.LastError)
				}
			})
		})
	}
}

func TestSinkThatFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(40 * time.Minute)
		r.sinkErr = errDisk
		r.run()
		if s := r.agent.Status(); s.LastError != errDisk.Error() || s.Failures != 1 || !s.Valid(time.Now()) {
			t.Errorf("%+v", s)
		}
		r.mu.Lock()
		r.sinkErr = nil
		r.mu.Unlock()
		r.pass(5 * time.Second)
		if s := r.agent.Status(); s.Failures != 0 || s.Renewals != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestReloadIsOwedUntilItWorks(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.set.Reload = r.reload
		r.reloadErr = errors.New("unit not loaded")
		r.joins()
		r.run()
		r.pass(10 * time.Second)
		if s := r.agent.Status(); !s.ReloadOwed || !s.Valid(time.Now()) || r.reloads < 3 {
			t.Errorf("%+v after %d reloads", s, r.reloads)
		}
		if last := r.events[len(r.events)-1]; last.Err == nil || !strings.Contains(last.What, "programs were not made to read them") {
			t.Errorf("%+v", last)
		}
		r.mu.Lock()
		r.reloadErr, r.reloads = nil, 0
		r.mu.Unlock()
		r.pass(20 * time.Second)
		if s := r.agent.Status(); s.ReloadOwed || r.reloads != 1 {
			t.Errorf("%+v after %d reloads", s, r.reloads)
		}
	})
}

func TestRootsThatTheCAAnnounces(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(time.Minute)
		r.set.Reload = r.reload
		r.run()
		r.pass(10 * time.Second) // the watch has begun
		tell := func(roots caclient.Roots) {
			r.told(roots)
			r.pass(0)
		}
		both := caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert, catest.Root(t, time.Now(), catest.Spec{Name: "next"}).Cert}}
		tell(caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert}})
		if _, installed := r.count(); installed != 0 {
			t.Error("the same roots were installed")
		}
		tell(both)
		if asked, installed := r.count(); asked != 0 || installed != 1 || len(r.newest().Roots.X509Authorities()) != 2 || r.reloads != 1 {
			t.Errorf("asked %d, installed %d, reloaded %d", asked, installed, r.reloads)
		}
		both.RenewIssuedBefore = time.Now().Add(-time.Hour)
		tell(both)
		if asked, _ := r.count(); asked != 0 {
			t.Error("a certificate made after was renewed")
		}
		both.RenewIssuedBefore = time.Now()
		tell(both)
		if asked, _ := r.count(); asked != 1 {
			t.Error("a certificate made before was not renewed")
		}
	})
}

// TestCertificateOfAnotherSigner is renewed at once, long before the roots of
// the signer of before are taken away.
func TestCertificateOfAnotherSigner(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(time.Minute)
		r.run()
		r.pass(10 * time.Second)
		next := catest.Root(t, time.Now(), catest.Spec{Name: "next"})
		same := caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert, next.Cert}, Signer: r.root.Cert}
		r.told(same)
		r.pass(0)
		if asked, _ := r.count(); asked != 0 {
			t.Error("a certificate of the signer in use was renewed")
		}
		r.ca = catest.Authority(t, time.Now(), ca.Config{Signer: next.Signer(t, time.Now())})
		same.Signer = next.Cert
		r.told(same)
		r.pass(time.Second)
		if asked, _ := r.count(); asked != 1 || r.newest().SVID.Certificates[0].CheckSignatureFrom(next.Cert) != nil {
			t.Errorf("asked %d times", asked)
		}
		r.told(same)
		r.pass(time.Second)
		if asked, _ := r.count(); asked != 1 {
			t.Error("what was renewed is renewed again")
		}
	})
}

// TestCertificateOfNoRootAnyMore is renewed at once, and the roots come with it.
func TestCertificateOfNoRootAnyMore(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(time.Minute)
		r.run()
		r.pass(10 * time.Second)
		next := catest.Root(t, time.Now(), catest.Spec{Name: "next"})
		r.ca = catest.Authority(t, time.Now(), ca.Config{Signer: next.Signer(t, time.Now())})
		r.breaks(unreachable)
		r.told(caclient.Roots{Certificates: []*x509.Certificate{next.Cert}})
		r.pass(0)
		if asked, installed := r.count(); asked != 1 || installed != 0 {
			t.Errorf("asked %d, installed %d: roots without a certificate of theirs", asked, installed)
		}
		r.breaks(nil)
		r.pass(10 * time.Second)
		if set := r.newest(); !set.Roots.HasX509Authority(next.Cert) || !set.SVID.Certificates[0].Equal(r.newest().SVID.Certificates[0]) {
			t.Error("the new set is not of the new root")
		}
	})
}

func TestDueAt(t *testing.T) {
	begin := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	leaf := catest.Root(t, begin, catest.Spec{Name: "root"}).Leaf(t, begin, web).Cert // of an hour
	if due := (Renewal{Ratio: 0.5}).dueAt(leaf, time.Time{}); !due.Equal(begin.Add(30 * time.Minute)) {
		t.Errorf("due at %s", due)
	}
	due := DefaultRenewal.dueAt(leaf, time.Time{})
	if due.Before(begin.Add(24*time.Minute)) || due.After(begin.Add(30*time.Minute)) || !due.Equal(DefaultRenewal.dueAt(leaf, due.Add(time.Hour))) {
		t.Errorf("due at %s", due)
	}
	if by := begin.Add(time.Minute); !DefaultRenewal.dueAt(leaf, by).Equal(by) {
		t.Error("the CA's word does not count")
	}
}
