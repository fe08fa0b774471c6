package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

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
