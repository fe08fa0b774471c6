package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"citadel/ca/catest"
)

// publishing is a source of a cluster in which roots are known already.
func (s *store) publishing(choice Choice, roots ...*catest.Issuer) Source {
	source := s.selfSigned()
	source.Choice = choice
	source.Published = func(context.Context) (certs []*x509.Certificate, err error) {
		for _, root := range roots {
			certs = append(certs, root.Cert)
		}
		return certs, nil
	}
	return source
}

// TestNoSecondRoot: a CA secret that is lost does not come back as another root,
// not even when no replica is left, until somebody says that it may.
func TestNoSecondRoot(t *testing.T) { // compatibility 9, complaints 7 and 8
	for _, choice := range []Choice{Either, OnlyCASecret} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			begun := time.Now()
			source := s.publishing(choice, catest.Root(t, time.Now(), catest.Spec{Name: "lost"}))
			published := source.Published
			source.Published = func(ctx context.Context) ([]*x509.Certificate, error) {
				if time.Since(begun) > time.Hour {
					return nil, nil // the operator has deleted it
				}
				return published(ctx)
			}
			if _, made, err := source.load(t.Context()); err != nil || !made || time.Since(begun) < time.Hour {
				t.Errorf("made %v after %s, error %v", made, time.Since(begun), err)
			}
			if len(s.told) < 200 || !errors.Is(s.told[0], ErrOtherRoots) || !strings.Contains(s.told[0].Error(), "there is no Secret istio-system/istio-ca-secret, and roots are published (CN=lost") ||
				!strings.Contains(s.told[0].Error(), "delete ConfigMap istio-system/istio-security") {
				t.Errorf("told %d times, %v", len(s.told), s.told[0])
			}
		})
	}
}

// TestLostCASecretComesBack, or the operator's does.
func TestLostCASecretComesBack(t *testing.T) {
	for _, name := range []string{CASecret, PluggedSecret} {
		synctest.Test(t, func(t *testing.T) {
			root := catest.Root(t, time.Now(), catest.Spec{Name: "lost"})
			s := newStore()
			time.AfterFunc(10*time.Minute, func() {
				data := map[string][]byte{CACertKey: root.PEM(), CAKeyKey: catest.KeyPEM(t, root.Key), PluggedRootKey: root.PEM()}
				if err := s.Tracker().Add(caSecret(name, data)); err != nil {
					t.Error(err)
				}
			})
			begun := time.Now()
			found, err := s.publishing(Either, root).Load(t.Context())
			if err != nil || found.Made || !found.Cert().Equal(root.Cert) || found.Secret != name || time.Since(begun) > 11*time.Minute {
				t.Errorf("found in %q after %s, error %v", found.Secret, time.Since(begun), err)
			}
		})
	}
}

// TestRootsThatEndedHinderNobody: there is no mesh left to cut in two.
func TestRootsThatEndedHinderNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := catest.Root(t, time.Now(), catest.Spec{Name: "ended", Edit: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute) }})
		time.Sleep(2 * time.Minute)
		s := newStore()
		if _, made, err := s.publishing(Either, ended).load(t.Context()); err != nil || !made || len(s.told) > 0 {
			t.Errorf("made %v, error %v, told %v", made, err, s.told)
		}
	})
}

// TestNoFallBackOnAnOldRoot: with the operator's CA gone, a CA secret of before
// it is not what the mesh trusts; who wants it nevertheless says so.
func TestNoFallBackOnAnOldRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := catest.Root(t, time.Now(), catest.Spec{Name: "operator's root"})
		secret, old := stored(t, time.Now())
		s := newStore(secret)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if found, err := s.publishing(Either, root).Load(ctx); found.Signer != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a signer: %v, error %v", found.Signer != nil, err)
		}
		if len(s.told) < 200 || !errors.Is(s.told[0], ErrOtherRoots) || !strings.Contains(s.told[0].Error(), "restore Secret istio-system/cacerts") {
			t.Errorf("told %v", s.told)
		}
		s.untouched(t)
		for name, source := range map[string]Source{
			"chosen":         s.publishing(OnlyCASecret, root),
			"published too":  s.publishing(Either, root, &catest.Issuer{Cert: old.Cert()}),
			"none published": s.publishing(Either),
		} {
			if found, err := source.Load(t.Context()); err != nil || !found.Cert().Equal(old.Cert()) || found.Secret != CASecret {
				t.Errorf("%s: found in %q, error %v", name, found.Secret, err)
			}
		}
	})
}

// TestNoRootBeforeItMay: nobody makes one while MayMake objects.
func TestNoRootBeforeItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		begun := time.Now()
		root := s.selfSigned()
		root.MayMake = func(context.Context) error {
			if time.Since(begun) < time.Hour {
				return errBroken
			}
			return nil
		}
		if _, made, err := root.load(t.Context()); err != nil || !made || time.Since(begun) < time.Hour {
			t.Errorf("made %v after %s, error %v", made, time.Since(begun), err)
		}
	})
}

// TestUnknownRootsAreNotNone: not to know is not to be the first.
func TestUnknownRootsAreNotNone(t *testing.T) {
	for _, name := range []string{"no CA secret", "an old one"} {
		for what, failure := range failures() {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				secret, old := stored(t, begun)
				s := newStore()
				if name == "an old one" {
					s = newStore(secret)
				}
				source := s.publishing(Either)
				source.Published = func(context.Context) ([]*x509.Certificate, error) {
					if time.Since(begun) < 5*time.Minute {
						return nil, failure
					}
					return []*x509.Certificate{old.Cert()}, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				if found, err := source.Load(ctx); found.Made || (err == nil) != (name == "an old one") || time.Since(begun) < 5*time.Minute {
					t.Errorf("%s, %s: made %v after %s, error %v", name, what, found.Made, time.Since(begun), err)
				}
			})
		}
	}
}
