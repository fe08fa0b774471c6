package nodeagent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"citadel/ca"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/nodeagent/certdir"
)

// TestLaptopSleep: all that a host can prove itself by has expired at once
// (specifications 9.20). It says what to bring, takes it without a restart, and
// what was in the files stays until then.
func TestLaptopSleep(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(90 * time.Minute)
		r.joins()
		r.join.Bearer = "used"
		r.set.Token = func() (string, error) { return "expired", nil }
		r.breaks(func(cfg caclient.Config) error {
			if cfg.Token == "fresh" {
				return nil
			}
			return &caclient.Error{Kind: caclient.NotProven, Reason: "it expired"}
		})
		r.run()
		r.pass(time.Hour)
		s := r.agent.Status()
		if want := "expired certificate: it expired; token: it expired; join token: it expired: bring a fresh join token"; !strings.Contains(s.LastError, want) || s.ID != web {
			t.Errorf("%+v", s)
		}
		if _, installed := r.count(); installed != 0 {
			t.Error("something was installed")
		}
		r.mu.Lock()
		r.join.Bearer = "fresh"
		r.mu.Unlock()
		r.pass(lastRetry)
		if s := r.agent.Status(); !s.Valid(time.Now()) || s.RenewedBy != "join token" {
			t.Errorf("%+v", s)
		}
	})
}

// TestFreshTokenLeadsElsewhere: nobody answers where the CA was, and the token
// that a person brings names where it is.
func TestFreshTokenLeadsElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(90 * time.Minute)
		r.breaks(func(cfg caclient.Config) error {
			if cfg.Address == "ca:8060" {
				return unreachable(cfg)
			}
			return nil
		})
		r.joins()
		r.run()
		if s := r.agent.Status(); s.RenewedBy != "join token" || s.CA != "joined:8060" {
			t.Errorf("%+v", s)
		}
	})
}

// TestBanned: the host's owner learns whom to ask.
func TestBanned(t *testing.T) {
	err := explain([]error{&caclient.Error{Kind: caclient.Refused, Reason: "DENIED: identity a is banned (stolen)"}})
	if want := "identity a is banned (stolen): ask who runs the CA (citadelctl identity list and unban)"; !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
}

// TestJoiningAddressIsShown: what is dialled, and not a default that nobody asks.
func TestJoiningAddressIsShown(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.joins()
		r.breaks(unreachable)
		r.run()
		r.mu.Lock()
		defer r.mu.Unlock()
		if s := r.agent.Status(); s.CA != "joined:8060" || r.events[0].Status.CA != "joined:8060" {
			t.Errorf("%+v, %+v", s, r.events)
		}
	})
}

// TestEndsInTheSameSecond: root and leaf end together, and their last second
// counts (specifications 9.19).
func TestEndsInTheSameSecond(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		end := time.Now().Add(30 * time.Minute)
		r.root = catest.Root(t, time.Now(), catest.Spec{Name: "root", Edit: func(c *x509.Certificate) { c.NotAfter = end }})
		key := catest.Key(t, trust.ECDSAP256, "held")
		issued := caclient.Issued{Chain: []*x509.Certificate{leafFor(r, web, key.Public(), func(c *x509.Certificate) { c.NotAfter = end })}, Roots: []*x509.Certificate{r.root.Cert}}
		set, err := check(end, issued, key, web)
		if err != nil {
			t.Fatalf("in its last second: %v", err)
		}
		if _, err := check(end.Add(time.Second), issued, key, web); err == nil || !strings.Contains(err.Error(), "expired at") {
			t.Errorf("a second later: %v", err)
		}
		r.set.Held = func() (certdir.Set, error) { return set, nil }
		r.breaks(unreachable)
		r.run()
		r.pass(time.Until(end))
		if s := r.agent.Status(); !s.Valid(time.Now()) || expired(time.Now(), set.SVID) {
			t.Errorf("in its last second: %+v", s)
		}
		r.pass(time.Second)
		if s := r.agent.Status(); s.Valid(time.Now()) || !expired(time.Now(), set.SVID) {
			t.Errorf("a second later: %+v", s)
		}
	})
}

// TestTwoRootsOfOneName: which of them signed is told by its key
// (specifications 9.18).
func TestTwoRootsOfOneName(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(time.Minute)
		r.run()
		r.pass(10 * time.Second)
		twin := catest.Root(t, time.Now().Add(time.Second), catest.Spec{Name: "root"})
		if twin.Cert.Subject.String() != r.root.Cert.Subject.String() || twin.Cert.Equal(r.root.Cert) {
			t.Fatal("they are not twins")
		}
		for _, both := range [][]*x509.Certificate{{twin.Cert, r.root.Cert}, {r.root.Cert, twin.Cert}} {
			r.told(caclient.Roots{Certificates: both})
			r.pass(0)
		}
		if asked, installed := r.count(); asked != 0 || installed != 1 || len(r.newest().Roots.X509Authorities()) != 2 {
			t.Errorf("asked %d, installed %d", asked, installed)
		}
		r.told(caclient.Roots{Certificates: []*x509.Certificate{twin.Cert}})
		r.mu.Lock()
		r.ca = catest.Authority(t, time.Now(), ca.Config{Signer: twin.Signer(t, time.Now())})
		r.mu.Unlock()
		r.pass(10 * time.Second)
		set := r.newest()
		if err := verifies(time.Now(), set.SVID, set.Roots); err != nil || set.Roots.HasX509Authority(r.root.Cert) {
			t.Errorf("the twin alone: %v", err)
		}
	})
}

// TestFilesThatSomebodyPutsThere are taken without a restart, be they late, or
// repaired.
func TestFilesThatSomebodyPutsThere(t *testing.T) {
	for name, first := range map[string]error{"nothing": fmt.Errorf("no key: %w", fs.ErrNotExist), "damaged": errors.New("key.pem holds no PEM private key")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.holds(time.Minute)
				held, err := r.set.Held()
				if err != nil {
					t.Fatal(err)
				}
				result := first
				r.set.Held = func() (certdir.Set, error) {
					r.mu.Lock()
					defer r.mu.Unlock()
					return held, result
				}
				r.run()
				r.pass(10 * time.Minute)
				if s := r.agent.Status(); s.Valid(time.Now()) || strings.Contains(s.LastError, "certificate files are not usable") != (name == "damaged") || strings.Contains(s.LastError, "PEM") != (name == "damaged") {
					t.Errorf("%+v", s)
				}
				r.mu.Lock()
				result = nil
				r.mu.Unlock()
				r.pass(lastRetry)
				if asked, _ := r.count(); asked != 0 || !r.agent.Status().Valid(time.Now()) || r.agent.Status().LastError != "" {
					t.Errorf("asked %d times: %+v", asked, r.agent.Status())
				}
			})
		})
	}
}

// TestWhatIsMissingIsNamed: a file that a person gave, by its name.
func TestWhatIsMissingIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.set.Token = func() (string, error) { return "", fmt.Errorf("read the token: open /typo: %w", fs.ErrNotExist) }
		r.set.Wrong = nil
		r.run()
		if s := r.agent.Status(); !strings.Contains(s.LastError, "there is nothing to join with (read the token: open /typo: file does not exist): give a join token") {
			t.Error(s.LastError)
		}
	})
}

// TestWhatWasWrongBeforeTheStart is told for as long as it may be the reason.
func TestWhatWasWrongBeforeTheStart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(40 * time.Minute)
		r.set.Wrong = []error{errors.New("joined.json is damaged")}
		r.breaks(unreachable)
		r.run()
		if s := r.agent.Status(); !strings.HasPrefix(s.LastError, "joined.json is damaged; certificate: ca:8060 does not answer: connection refused: ") {
			t.Error(s.LastError)
		}
	})
}

// TestJoinIsKeptBeforeItCounts: whoever is stopped after the files are there
// must know where to renew; where that cannot be kept, nothing is installed,
// and the token is asked with again.
func TestJoinIsKeptBeforeItCounts(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.joins()
		full := errDisk
		var before []int
		r.set.Joined = func(string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			before = append(before, len(r.installed))
			return full
		}
		r.run()
		r.mu.Lock()
		if s := r.agent.Status(); s.LastError != errDisk.Error() || r.joinKey == nil || !slices.Equal(before, []int{0}) {
			t.Errorf("%+v", s)
		}
		full = nil
		r.mu.Unlock()
		r.pass(10 * time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if s := r.agent.Status(); !s.Valid(time.Now()) || !slices.Equal(before, []int{0, 0}) || r.joinKey != nil {
			t.Errorf("%+v, %v", s, before)
		}
	})
}

// TestStoppedWhileInstalling: what has been installed counts, and its joining
// key goes.
func TestStoppedWhileInstalling(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.joins()
		ctx, cancel := context.WithCancel(t.Context())
		r.set.Sinks = []Sink{sinkFunc(func(certdir.Set) error { cancel(); return nil })}
		a := New(r.set)
		a.Run(ctx)
		if s := a.Status(); !s.Valid(time.Now()) || r.joinKey != nil || s.CA != "joined:8060" {
			t.Errorf("%+v", s)
		}
	})
}

type sinkFunc func(certdir.Set) error

func (f sinkFunc) Install(set certdir.Set) error { return f(set) }

// TestReloadIsOwedOverARestart: it is noted before the files change.
func TestReloadIsOwedOverARestart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var noted []string
		r.set.Owes = func(owed bool) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			noted = append(noted, fmt.Sprintf("%v after %d", owed, len(r.installed)))
			return errDisk // which stops nothing
		}
		r.set.Owed, r.set.Reload = true, r.reload
		r.holds(time.Minute)
		r.run()
		r.mu.Lock()
		if r.reloads != 1 || !slices.Equal(noted, []string{"false after 0"}) {
			t.Errorf("%d reloads, noted %v", r.reloads, noted)
		}
		r.mu.Unlock()
		r.agent.Renew()
		r.pass(time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.reloads != 2 || len(r.installed) != 1 || !slices.Equal(noted[1:], []string{"true after 0", "false after 1"}) {
			t.Errorf("%d reloads, noted %v", r.reloads, noted)
		}
	})
}

// TestReloadThatHangs: neither the loop nor what it waits for waits for it, and
// what was installed meanwhile is told of once it has ended, once.
func TestReloadThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hang := make(chan struct{})
		r.set.Owed = true
		r.set.Reload = func(ctx context.Context) error {
			if err := r.reload(ctx); err != nil {
				return err
			}
			select {
			case <-hang:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		last, longest := time.Now(), time.Duration(0)
		r.set.Every = 10 * time.Second
		r.set.Beat = func() { longest, last = max(longest, time.Since(last)), time.Now() }
		r.holds(time.Minute)
		r.run()
		r.agent.Renew()
		r.pass(time.Second)
		if s := r.agent.Status(); s.Renewals != 1 || !s.ReloadOwed {
			t.Errorf("told to renew: %+v", s)
		}
		next := catest.Root(t, time.Now(), catest.Spec{Name: "next"})
		r.told(caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert, next.Cert}})
		r.pass(30 * time.Second)
		if s := r.agent.Status(); s.Roots != 2 || longest > 10*time.Second || r.reloads != 1 {
			t.Errorf("%+v; once it did not beat for %s; %d reloads", s, longest, r.reloads)
		}
		close(hang)
		r.pass(time.Minute)
		if s := r.agent.Status(); s.ReloadOwed || r.reloads != 2 {
			t.Errorf("%+v after %d reloads", s, r.reloads)
		}
	})
}

// TestStorms: whoever asks for renewals without a pause gets one a second, and
// roots that are told again cost nothing.
func TestStorms(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(time.Minute)
		r.set.Reload = r.reload
		r.run()
		r.pass(10 * time.Second)
		roots := caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert}, RenewIssuedBefore: time.Now().Add(24 * 365 * time.Hour)} // by a wrong clock
		for range 1000 {
			r.agent.Renew()
			r.told(roots)
			r.pass(10 * time.Millisecond)
		}
		if asked, installed := r.count(); asked < 8 || asked > 12 || installed != asked || r.reloads > asked {
			t.Errorf("in 10 s it asked %d times, installed %d and reloaded %d", asked, installed, r.reloads)
		}
	})
}

// TestBeatsWhileTheCAHangs: each rung takes all of its time, and a watchdog
// hears of the loop between.
func TestBeatsWhileTheCAHangs(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(90 * time.Minute)
		r.joins()
		r.set.Token = func() (string, error) { return "jwt", nil }
		r.set.Sign = func(ctx context.Context, _ caclient.Config, _ []byte, _ time.Duration) (caclient.Issued, error) {
			<-ctx.Done()
			return caclient.Issued{}, &caclient.Error{Kind: caclient.NotProven, Reason: "slowly"}
		}
		last, longest := time.Now(), time.Duration(0)
		r.set.Every = 10 * time.Second
		r.set.Beat = func() { longest, last = max(longest, time.Since(last)), time.Now() }
		r.run()
		r.pass(10 * time.Minute)
		if longest != askLimit {
			t.Errorf("once it did not beat for %s", longest)
		}
	})
}

// TestOneLine: texts of others go to terminals, and into systemd's protocol,
// where each line is a word of its own.
func TestOneLine(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(40 * time.Minute)
		r.breaks(func(caclient.Config) error {
			return &caclient.Error{Kind: caclient.Refused, Reason: "valid for a\nMAINPID=1\r\n\x1b[2J\x00\u009b\u2028, not b " + strings.Repeat("\xff", 1<<20)}
		})
		r.run()
		s := r.agent.Status()
		if !strings.HasPrefix(s.LastError, "certificate: valid for a MAINPID=1 [2J , not b ") || len(s.LastError) > 3*longestError || strings.ContainsAny(s.LastError, "\n\r\x1b\x00\u009b\u2028") {
			t.Errorf("%.100q, %d bytes", s.LastError, len(s.LastError))
		}
	})
}

// TestWatchTrustsTheRootsOfNow: a connection that was made by a root that has
// been removed is given up (specifications 9.2).
func TestWatchTrustsTheRootsOfNow(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(time.Minute)
		next := catest.Root(t, time.Now(), catest.Spec{Name: "next"})
		var trusted []int
		watch := r.set.Watch
		r.set.Watch = func(ctx context.Context, cfg caclient.Config, told func(caclient.Roots)) error {
			r.mu.Lock()
			trusted = append(trusted, len(cfg.Roots))
			r.mu.Unlock()
			return watch(ctx, cfg, told)
		}
		r.run()
		r.pass(time.Hour / 4)
		r.told(caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert, next.Cert}})
		r.pass(time.Minute)
		r.told(caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert}})
		r.pass(time.Minute)
		r.told(caclient.Roots{Certificates: []*x509.Certificate{r.root.Cert}})
		r.pass(time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		if !slices.Equal(trusted, []int{1, 2, 1}) {
			t.Errorf("it watched by %v roots", trusted)
		}
	})
}

// TestStoppedWhileAsking: that a question was cut off is no failure to tell of.
func TestStoppedWhileAsking(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.holds(40 * time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r.set.Sign = func(ctx context.Context, _ caclient.Config, _ []byte, _ time.Duration) (caclient.Issued, error) {
			<-ctx.Done()
			return caclient.Issued{}, &caclient.Error{Kind: caclient.Unreachable, Reason: "canceled"}
		}
		a := New(r.set)
		a.Run(ctx)
		if s := a.Status(); s.Failures != 0 || s.LastError != "" || len(r.events) != 0 {
			t.Errorf("%+v", s)
		}
	})
}
