package main

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
	"citadel/ca/policy"
	"citadel/nodeagent/policycache"
)

// TestUnreadIsTold once, for as long as it is the same, and shown.
func TestUnreadIsTold(t *testing.T) {
	cache, err := policycache.Open(spiffeid.ID{}, func() ([]byte, error) { return nil, fs.ErrNotExist }, func([]byte) error { return nil })
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

// file is what a folder says of a file.
type file struct {
	fs.FileInfo
	mode  fs.FileMode
	size  int64
	owner uint32
}

func (f file) Mode() fs.FileMode { return f.mode }
func (f file) Size() int64       { return f.size }
func (f file) Sys() any          { return &syscall.Stat_t{Uid: f.owner} }

// TestPolicyFileIsOurs: only this user or root can have written what counts.
func TestPolicyFileIsOurs(t *testing.T) {
	for _, c := range []struct {
		file file
		says string
	}{
		{file{mode: 0o600, owner: 7}, ""},
		{file{mode: 0o644, owner: 0}, ""},
		{file{mode: 0o600, owner: 8}, "belongs to user 8, and this agent is user 7"},
		{file{mode: 0o620, owner: 7}, "others may write it"},
		{file{mode: 0o602, owner: 0}, "others may write it"},
		{file{mode: 0o600 | fs.ModeSymlink, owner: 7}, "no regular file"},
		{file{mode: 0o600, owner: 7, size: longestPolicy + 1}, "is larger"},
	} {
		err := ours(c.file, 7)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.file, err, c.says)
		}
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
