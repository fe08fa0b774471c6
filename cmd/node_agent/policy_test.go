package main

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"citadel/ca/caclient"
	"citadel/ca/policy"
	"citadel/nodeagent/policycache"
)

// TestUnreadIsTold once, for as long as it is the same, and shown.
func TestUnreadIsTold(t *testing.T) {
	cache, err := policycache.Open(func() ([]byte, error) { return nil, fs.ErrNotExist }, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	w := &policyWatch{Cache: cache, p: &process{log: slog.New(slog.NewTextHandler(&log, nil))}}
	for _, unread := range [][]string{nil, {"Pod", "DestinationRule"}, {"Pod", "DestinationRule"}, nil, nil} {
		w.Update(time.Now(), caclient.PolicyUpdate{Version: "x.1", Generation: policy.V1, Unread: unread})
		w.tell(nil)
		status := w.Status(time.Now())
		if got := strings.Contains(policyLine(&status, time.Now()), "does not hear of Pod, DestinationRule: it may be old"); got != (unread != nil) {
			t.Errorf("%v: %s", unread, policyLine(&status, time.Now()))
		}
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, `unread="Pod, DestinationRule"`) || strings.Count(text, "hears of all that decides about mTLS again") != 1 {
		t.Error(text)
	}
}

// TestCAWithoutPolicy is no trouble of the host's: it is told once, and shown
// without an error.
func TestCAWithoutPolicy(t *testing.T) {
	h, ca := newHost(t), newCitadel(t, 0)
	h.holds(ca)
	log, s := h.runs("the CA serves no policy", at(ca)...)
	if !s.Valid(time.Now()) || strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") || strings.Contains(log, "unknown service") ||
		strings.Count(log, `level=INFO msg="the CA serves no policy (citadel --policy)"`) != 1 {
		t.Errorf("%+v\n%s", s, log)
	}
}

// TestCopiedKey is not left for everybody to read until the first renewal.
func TestCopiedKey(t *testing.T) {
	h, ca := newHost(t), newCitadel(t, 0)
	h.holds(ca)
	if err := os.Chmod(h.path("key.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.runs("no new certificate", "--ca-address=127.0.0.1:1", "--key-mode=0640")
	if info, err := os.Stat(h.path("key.pem")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
