package kube

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// layouts are the two ways in which an operator may store a CA.
func layouts(t *testing.T, now time.Time) (pem, tls map[string][]byte, issuing *catest.Issuer) {
	t.Helper()
	issuing = catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, catest.Spec{Name: "upper"}).
		Intermediate(t, now, catest.Spec{Name: "issuing"})
	key, chain, root := catest.KeyPEM(t, issuing.Key), trust.MarshalCertificates(issuing.Chain()), issuing.Root().PEM()
	return map[string][]byte{"ca-cert.pem": issuing.PEM(), "ca-key.pem": key, "cert-chain.pem": chain, "root-cert.pem": root},
		map[string][]byte{"tls.crt": chain, "tls.key": key, "ca.crt": root}, issuing
}

// plugged is the source of nothing but an operator's CA.
func (s *store) plugged() Source {
	source := s.selfSigned()
	source.Choice = OnlyPlugged
	return source
}

func TestPluggedLayouts(t *testing.T) { // compatibility 3.2; 9, complaint 24
	synctest.Test(t, func(t *testing.T) {
		pem, tls, want := layouts(t, time.Now())
		_, strangers, _ := layouts(t, time.Now())
		strangers["ca.crt"] = []byte("x")
		both := maps.Clone(strangers)
		maps.Copy(both, pem)
		for name, data := range map[string]map[string][]byte{"the four .pem names": pem, "cert-manager's": tls, "both: .pem counts": both} {
			s := newStore(caSecret(PluggedSecret, data))
			found, err := s.plugged().Load(t.Context())
			if err != nil || found.Made || found.Secret != PluggedSecret {
				t.Fatalf("%s: found in %q, error %v", name, found.Secret, err)
			}
			if !found.Cert().Equal(want.Cert) || len(found.Chain()) != 2 || !found.Roots()[0].Equal(want.Root().Cert) {
				t.Errorf("%s: another chain", name)
			}
			if twice := len(s.told) == 1 && errors.Is(s.told[0], ErrBothLayouts); twice != (len(data) == 7) {
				t.Errorf("%s: told %v", name, s.told)
			}
			s.untouched(t)
		}
	})
}

// TestPluggedNamesWhatIsMissing: an incomplete set stops the start, and says
// which key it is.
func TestPluggedNamesWhatIsMissing(t *testing.T) { // specifications 9.10
	synctest.Test(t, func(t *testing.T) {
		pem, tls, _ := layouts(t, time.Now())
		for missing, of := range map[string]map[string][]byte{
			"ca-cert.pem": pem, "ca-key.pem": pem, "root-cert.pem": pem, "tls.key": tls, "ca.crt": tls,
		} {
			data := maps.Clone(of)
			delete(data, missing)
			_, err := newStore(caSecret(PluggedSecret, data)).plugged().Load(t.Context())
			if err == nil || !strings.Contains(err.Error(), "Secret istio-system/cacerts key "+missing+": is missing or empty") {
				t.Errorf("without %s: %v", missing, err)
			}
		}
		_, err := newStore(caSecret(PluggedSecret, nil)).plugged().Load(t.Context())
		if err == nil || !strings.Contains(err.Error(), "key ca-cert.pem (there is none of [ca-cert.pem ca-key.pem cert-chain.pem root-cert.pem], nor of [tls.crt tls.key ca.crt]): is missing or empty") {
			t.Errorf("empty: %v", err)
		}
	})
}

func TestPluggedIsAbsent(t *testing.T) {
	secret, _ := stored(t, time.Now())
	s := newStore(secret)
	if _, err := s.plugged().Load(t.Context()); !errors.Is(err, ErrNoSigner) || len(s.told) > 0 {
		t.Errorf("error %v, told %v", err, s.told)
	}
	s.untouched(t)
}

// TestPluggedFailureIsNoAbsence: taking it for one would make a root that
// nobody asked for.
func TestPluggedFailureIsNoAbsence(t *testing.T) {
	for name, failure := range failures() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pem, _, _ := layouts(t, time.Now())
				s := newStore(caSecret(PluggedSecret, pem)).fail("get", 7, failure)
				source := s.selfSigned()
				source.Choice = Either
				begun := time.Now()
				found, err := source.Load(t.Context())
				if took := time.Since(begun); err != nil || found.Secret != PluggedSecret || took != 45500*time.Millisecond {
					t.Errorf("after %s (want 0.5+1+2+4+8+15+15 s): found in %q, error %v", took, found.Secret, err)
				}
				if len(s.told) != 7 || !slices.ContainsFunc(s.told, func(e error) bool { return errors.Is(e, failure) }) ||
					!strings.HasPrefix(s.told[0].Error(), "read Secret istio-system/cacerts: ") {
					t.Errorf("told %v", s.told)
				}

				s = newStore().fail("get", 1<<30, failure)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				source.Client, source.Tell = s, s.tell
				if found, err := source.Load(ctx); found.Signer != nil || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("until its context ended: %v, error %v", found.Signer != nil, err)
				}
				s.untouched(t)
			})
		})
	}
}
