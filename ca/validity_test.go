package ca_test

import (
	"crypto/x509"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"citadel/ca"
	"citadel/ca/catest"
)

// ending makes an authority whose signer ends at that time.
func ending(t *testing.T, at time.Time) *ca.Authority {
	t.Helper()
	root := catest.Root(t, now, catest.Spec{Name: "root", Edit: func(c *x509.Certificate) { c.NotAfter = at }})
	return catest.Authority(t, now, ca.Config{Signer: root.Signer(t, now)})
}

// wantClass checks that err is of the class, and has the text.
func wantClass(t *testing.T, err error, class ca.Class, text string) {
	t.Helper()
	e, ok := errors.AsType[*ca.Error](err)
	if !ok || e.Class != class || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want class %s and %q", err, class, text)
	}
}

func TestTTLWithinTheMaximumIsKeptToTheSecond(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{})
	for name, c := range map[string]struct{ ask, want time.Duration }{
		"zero means the default":         {0, defaultTTL},
		"negative means the default":     {-time.Second, defaultTTL},
		"most negative means it too":     {math.MinInt64, defaultTTL},
		"five minutes (C-5)":             {5 * time.Minute, 5 * time.Minute},
		"an odd number of seconds (C-5)": {61*time.Minute + 7*time.Second, 61*time.Minute + 7*time.Second},
		"one second":                     {time.Second, time.Second},
		"equal to the maximum":           {maxTTL, maxTTL},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := issue(t, a, now, ca.Request{CSR: workloadCSR(t), TTL: c.ask})
			if want := now.Add(c.want).Truncate(time.Second); !leaf.NotAfter.Equal(want) {
				t.Errorf("not after %s, want %s", leaf.NotAfter, want)
			}
		})
	}
}

func TestTTLAboveTheMaximumIsRefusedNotClamped(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{})
	for ttl, text := range map[time.Duration]string{
		maxTTL + 1:                    "requested TTL 168h0m0.000000001s is greater than the max allowed TTL 168h0m0s",
		365 * 24 * 3600 * time.Second: "requested TTL 8760h0m0s is greater than the max allowed TTL 168h0m0s",
		math.MaxInt64:                 "requested TTL 2562047h47m16.854775807s is greater than the max allowed TTL 168h0m0s",
	} {
		_, err := a.Issue(now, caller, ca.Request{CSR: workloadCSR(t), TTL: ttl})
		wantClass(t, err, ca.TTLError, "")
		if err.Error() != text {
			t.Errorf("error is %q, want %q", err, text)
		}
	}
}

// TestTTLCannotOverflow: with no bound of its own, the signer's end is one.
func TestTTLCannotOverflow(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{MaxTTL: math.MaxInt64})
	leaf := issue(t, a, now, ca.Request{CSR: workloadCSR(t), TTL: math.MaxInt64})
	if end := a.Signer().NotAfter(); !leaf.NotAfter.Equal(end) {
		t.Errorf("not after %s, want the signer's %s", leaf.NotAfter, end)
	}
}

// TestLeafIsClampedToItsIssuers: R-3, C-4, and 9.19 (both may end in one second).
func TestLeafIsClampedToItsIssuers(t *testing.T) {
	end := now.Add(time.Hour).Truncate(time.Second)
	early := func(c *x509.Certificate) { c.NotAfter = end }
	for name, edits := range map[string][3]func(*x509.Certificate){
		"root": {early, nil, nil}, "intermediate": {nil, early, nil}, "signing certificate": {nil, nil, early},
	} {
		t.Run(name, func(t *testing.T) {
			issuing := catest.Root(t, now, catest.Spec{Name: "root", Edit: edits[0]}).
				Intermediate(t, now, catest.Spec{Name: "policy", Edit: edits[1]}).
				Intermediate(t, now, catest.Spec{Name: "issuing", Edit: edits[2]})
			a := catest.Authority(t, now, ca.Config{Signer: issuing.Signer(t, now)})
			if leaf := issue(t, a, now, ca.Request{CSR: workloadCSR(t)}); !leaf.NotAfter.Equal(end) {
				t.Errorf("not after %s, want %s", leaf.NotAfter, end)
			}
			if leaf := issue(t, a, now, ca.Request{CSR: workloadCSR(t), TTL: end.Sub(now)}); !leaf.NotAfter.Equal(end) {
				t.Errorf("asked for exactly what is left: not after %s, want %s", leaf.NotAfter, end)
			}
		})
	}
}

func TestLeafBeginsNoEarlierThanItsIssuer(t *testing.T) {
	begin := now.Add(-time.Minute).Truncate(time.Second)
	root := catest.Root(t, now, catest.Spec{Name: "root", Edit: func(c *x509.Certificate) { c.NotBefore = begin }})
	a := catest.Authority(t, now, ca.Config{Signer: root.Signer(t, now)})
	if leaf := issue(t, a, now, ca.Request{CSR: workloadCSR(t)}); !leaf.NotBefore.Equal(begin) {
		t.Errorf("not before %s, want %s", leaf.NotBefore, begin)
	}
}

// TestSignerNearItsEndRefuses: with less left than the life asked for and less
// than ten minutes, a clamped certificate would be of no use (C-4).
func TestSignerNearItsEndRefuses(t *testing.T) {
	end := now.Add(24 * time.Hour).Truncate(time.Second)
	a := ending(t, end)
	for name, c := range map[string]struct {
		left, ttl time.Duration
		text      string // of the refusal; empty: it signs
	}{
		"ten minutes left, an hour asked":        {10 * time.Minute, time.Hour, ""},
		"a second less, an hour asked":           {10*time.Minute - time.Second, time.Hour, "the 9m59s that it has left is too little to sign"},
		"five minutes left, four asked":          {5 * time.Minute, 4 * time.Minute, ""},
		"five minutes left, five asked":          {5 * time.Minute, 5 * time.Minute, ""},
		"five minutes left, six asked":           {5 * time.Minute, 6 * time.Minute, "too little to sign"},
		"five minutes left, the default":         {5 * time.Minute, 0, "too little to sign"},
		"nothing left":                           {0, time.Hour, "signing certificate has expired at 2026-07-15T12:34:56Z"},
		"expired a second ago, a second asked":   {-time.Second, time.Second, "signing certificate has expired at 2026-07-15T12:34:56Z"},
		"expired long ago":                       {-1000 * time.Hour, 0, "signing certificate has expired at 2026-07-15T12:34:56Z"},
		"above the maximum counts before expiry": {-time.Hour, maxTTL + 1, "greater than the max allowed TTL"},
	} {
		t.Run(name, func(t *testing.T) {
			at := end.Add(-c.left)
			chain, err := a.Issue(at, caller, ca.Request{CSR: workloadCSR(t), TTL: c.ttl})
			if c.text == "" {
				if err != nil || chain[0].NotAfter.After(end) || !chain[0].NotAfter.After(at) {
					t.Errorf("error %v", err)
				}
				return
			}
			class := ca.CertGenError
			if strings.Contains(c.text, "TTL") {
				class = ca.TTLError
			}
			wantClass(t, err, class, c.text)
		})
	}
}

// TestNoCertificateIsBornExpired: C-5, for lives shorter than the resolution
// of a certificate's times.
func TestNoCertificateIsBornExpired(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{})
	for _, ttl := range []time.Duration{1, time.Millisecond, 999 * time.Millisecond, time.Second} {
		for _, at := range []time.Time{now, now.Truncate(time.Second), now.Truncate(time.Second).Add(-1)} {
			if leaf := issue(t, a, at, ca.Request{CSR: workloadCSR(t), TTL: ttl}); leaf.NotAfter.Before(at) {
				t.Errorf("a life of %s from %s ends at %s", ttl, at, leaf.NotAfter)
			}
		}
	}
}

func TestReady(t *testing.T) {
	end := now.Add(24 * time.Hour).Truncate(time.Second)
	a := ending(t, end)
	if err := a.Ready(now); err != nil {
		t.Error(err)
	}
	wantClass(t, a.Ready(end.Add(-time.Minute)), ca.CertGenError, "too little to sign")
	wantClass(t, a.Ready(end.Add(time.Minute)), ca.CertGenError, "signing certificate has expired at ")
	var none *ca.Authority
	wantClass(t, none.Ready(now), ca.CANotReady, "Istio CA is not ready")
}

func TestTimesAfter2049(t *testing.T) { // GeneralizedTime from there on
	late := time.Date(2049, 12, 31, 23, 59, 0, 0, time.UTC)
	a := catest.Authority(t, late, ca.Config{})
	leaf := issue(t, a, late, ca.Request{CSR: workloadCSR(t), TTL: time.Hour})
	if want := late.Add(time.Hour); !leaf.NotAfter.Equal(want) {
		t.Errorf("not after %s, want %s", leaf.NotAfter, want)
	}
}
