package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/statedir"
	"citadel/ca/trust"
)

// TestNobodyIsIssuedAnythingPastUnreadBans: the bans of before hold for the time
// of their store; then nothing is made, and it is told why, until they are read.
func TestNobodyIsIssuedAnythingPastUnreadBans(t *testing.T) {
	for name, c := range map[string]struct {
		stores func(*process) stores
		hold   time.Duration
	}{
		"folder":  {func(p *process) stores { return p.directory(nil) }, 30 * time.Second},
		"cluster": {func(p *process) stores { return p.cluster(nil) }, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said output
				td := spiffeid.RequireTrustDomainFromString("cluster.local")
				p := newProcess(&config{options: &options{serverOnly: true}, td: td}, slog.New(slog.NewTextHandler(&said, nil)), &auditStream{})
				authority := catest.Authority(t, time.Now(), ca.Config{})
				p.authority.Store(authority)
				var unread error
				s := c.stores(p)
				s.bans = func(context.Context) (ca.BanList, error) { return ca.BanList{}, unread }
				if err := p.mayIssue(); err == nil {
					t.Error("certificates are made before the bans were ever read")
				}
				caller := ca.NewCaller(spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/web"), "test", "")
				check := func(when, want string) {
					t.Helper()
					csr := catest.CSR(t, catest.Key(t, trust.ECDSAP256, "host"))
					_, issueErr := authority.Issue(time.Now(), caller, ca.Request{CSR: csr, TTL: time.Hour})
					for what, err := range map[string]error{"API": p.mayIssue(), "/readyz": p.ready(), "authority": issueErr} {
						if (err != nil) != (want != "") || err != nil && what != "authority" && !strings.Contains(err.Error(), want) {
							t.Errorf("%s: %s: %v, want %q", when, what, err, want)
						}
					}
				}
				if err := p.readBans(t.Context(), s, authority); err != nil {
					t.Fatal(err)
				}
				check("read", "")
				unread = errors.New("too many open files")
				for range c.hold/bansEvery - 1 {
					time.Sleep(bansEvery)
					if p.readBans(t.Context(), s, authority) == nil {
						t.Fatal("they were read")
					}
					check("within their time", "")
				}
				if strings.Contains(said.String(), "nothing is issued before they are") {
					t.Errorf("too early it says %s", said.String())
				}
				time.Sleep(bansEvery)
				_ = p.readBans(t.Context(), s, authority) // it fails
				check("too old", "nothing is issued before it is: too many open files")
				if !strings.Contains(said.String(), `level=ERROR msg="the bans are not read, and nothing is issued before they are" err="too many open files"`) {
					t.Errorf("it says %s", said.String())
				}
				unread = nil
				if err := p.readBans(t.Context(), s, authority); err != nil {
					t.Fatal(err)
				}
				check("read again", "")
				time.Sleep(c.hold)
				check("nobody reads any more", "has not been read for too long")
			})
		})
	}
}

// TestForeignBansAreTold once for each list: they ban nobody here.
func TestForeignBansAreTold(t *testing.T) {
	var said output
	td := spiffeid.RequireTrustDomainFromString("example.org")
	p := newProcess(&config{options: &options{}, td: td}, slog.New(slog.NewTextHandler(&said, nil)), &auditStream{})
	authority := catest.Authority(t, time.Now(), ca.Config{TrustDomain: td})
	for i, c := range []struct {
		list ca.BanList
		want int
	}{
		{ca.BanList{"spiffe://example.org/ns/vm/sa/web": {}, "5f0a417c5f0a417c": {}}, 0},
		{ca.BanList{"spiffe://cluster.local/ns/vm/sa/web": {}}, 1},
		{ca.BanList{"spiffe://cluster.local/ns/vm/sa/web": {}, "5f0a417c5f0a417c": {}}, 1},
		{ca.BanList{}, 1},
		{ca.BanList{"spiffe://cluster.local/ns/vm/sa/web": {}}, 2},
	} {
		s := stores{bansHold: time.Hour, bans: func(context.Context) (ca.BanList, error) { return c.list, nil }}
		if err := p.readBans(t.Context(), s, authority); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(said.String(), "level=WARN"); got != c.want {
			t.Errorf("list %d: %d warnings, want %d: %s", i, got, c.want, said.String())
		}
	}
	if !strings.Contains(said.String(), "banned=[spiffe://cluster.local/ns/vm/sa/web] trustDomain=example.org") {
		t.Errorf("it says %s", said.String())
	}
}

// TestServedTrustDomainIsKept in the folder, whatever its root is of: citadelctl
// would ban somebody else.
func TestServedTrustDomainIsKept(t *testing.T) {
	dir, err := statedir.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, name := range []string{"cluster.local", "example.org"} {
		td := spiffeid.RequireTrustDomainFromString(name)
		c := &config{options: &options{selfSignedTTL: 24 * time.Hour}, td: td, caKey: trust.ECDSAP256, source: sourceStateDir}
		if _, err := c.loadFrom(dir, quiet()); err != nil {
			t.Fatal(err)
		}
		if kept, err := dir.TrustDomain(); err != nil || kept != td {
			t.Errorf("%s: kept %v, %v", name, kept, err)
		}
	}
}
