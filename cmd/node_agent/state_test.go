package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

func newState(t *testing.T) state { return state{filepath.Join(t.TempDir(), "state")} }

func (s state) path(name string) string { return filepath.Join(s.folder, name) }

// TestState: what it keeps is found by the next process, whole and for its
// owner alone, and nothing is left beside it.
func TestState(t *testing.T) {
	s := newState(t)
	if _, err := s.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key: %v", err)
	}
	if address, err := s.address(); address != "" || err != nil || s.owed() {
		t.Errorf("%q, %v", address, err)
	}
	key := catest.Key(t, trust.ECDSAP256, "joining")
	for range 2 { // the second replaces
		if err := errors.Join(s.Save(key), s.saveAddress("ca:8060"), s.owes(true)); err != nil {
			t.Fatal(err)
		}
	}
	s = state{s.folder}
	got, err := s.Load()
	if err != nil || !trust.SamePublicKey(got.Public(), key.Public()) {
		t.Errorf("%v", err)
	}
	if address, err := s.address(); address != "ca:8060" || err != nil || !s.owed() {
		t.Errorf("%q, %v", address, err)
	}
	entries, err := os.ReadDir(s.folder)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	for name, mode := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, keyName: 0o600, joinedName: 0o600, owedName: 0o600} {
		if info, err := os.Stat(s.path(name)); err != nil || info.Mode() != mode {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
	for range 2 { // the second finds nothing, which is no error
		if err := errors.Join(s.Remove(), s.owes(false)); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Load(); !errors.Is(err, fs.ErrNotExist) || s.owed() {
		t.Errorf("they are still there: %v", err)
	}
}

// TestStateIsReplacedAsOne: what a crash left of an earlier try is not in the
// way, is not shown, and keeps no mode of its own; a reader sees the old file
// or the new one.
func TestStateIsReplacedAsOne(t *testing.T) {
	s := newState(t)
	s.make(t, joinedName, `{"address":"old:1"}`)
	temp := s.path("." + joinedName + ".new")
	if err := os.WriteFile(temp, []byte(`{"addr`), 0o666); err != nil {
		t.Fatal(err)
	}
	if address, err := s.address(); address != "old:1" || err != nil {
		t.Errorf("%q, %v", address, err)
	}
	old, err := os.Open(s.path(joinedName))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := s.saveAddress("new:1"); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 100)
	if n, _ := old.Read(text); string(text[:n]) != `{"address":"old:1"}` {
		t.Errorf("the old file was written to: %q", text[:n])
	}
	if info, err := os.Stat(s.path(joinedName)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	// Somebody's link in the place of the temporary file is not written through.
	victim := written(t, "mine")
	if err := os.Symlink(victim, temp); err != nil {
		t.Fatal(err)
	}
	if err := s.saveAddress("third:1"); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(victim); string(text) != "mine" {
		t.Errorf("%q", text)
	}
}

func TestDamagedState(t *testing.T) {
	for _, text := range []string{"", "\x00\x00", "{}", `{"address":`, `{"address":""}`, `["ca:1"]`, "null", strings.Repeat("x", 2<<20)} {
		s := newState(t)
		s.make(t, joinedName, text)
		s.make(t, keyName, text)
		if _, err := s.address(); err == nil || !strings.Contains(err.Error(), joinedName) {
			t.Errorf("%.20q: %v", text, err)
		}
		if _, err := s.Load(); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), keyName) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	s := newState(t)
	if err := os.MkdirAll(s.path(joinedName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(s.path(keyName), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.address(); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("%v", err)
	}
	if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "is no regular file") {
		t.Errorf("%v", err)
	}
}

// TestStateThatCannotBeWritten says what, why and what to do, and leaves what
// was there.
func TestStateThatCannotBeWritten(t *testing.T) {
	s := newState(t)
	s.make(t, joinedName, `{"address":"old:1"}`)
	if err := os.MkdirAll(s.path("."+joinedName+".new")+"/in-the-way", 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.saveAddress("new:1")
	if want := "write " + s.path(joinedName) + ": directory not empty: free space there or make it writable, or give another folder by --state-dir"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if address, err := s.address(); address != "old:1" || err != nil {
		t.Errorf("%q, %v", address, err)
	}
	for _, folder := range []string{"/proc/nowhere", filepath.Join(written(t, ""), "below-a-file")} { // nobody, root neither, makes a folder there
		s := state{folder}
		for name, err := range map[string]error{"key": s.Save(catest.Key(t, trust.ECDSAP256, "joining")), "address": s.saveAddress("a:1"), "owed": s.owes(true)} {
			if err == nil || !strings.Contains(err.Error(), "make the state folder: mkdir ") || !strings.Contains(err.Error(), "give another by --state-dir") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestFullDisk of the state folder: nothing is asked with a key that would be
// forgotten, for the token would be used up; and nothing half is left.
func TestFullDisk(t *testing.T) {
	h, c := newHost(t), newCitadel(t, 0)
	j := c.join(t, time.Now())
	log, s := h.runs(`msg="no new certificate"`, append(joins(h, j), "--state-dir=/proc/nowhere")...)
	if !strings.Contains(s.LastError, "join token: make the state folder: mkdir /proc/nowhere") || !strings.Contains(log, "give another by --state-dir") {
		t.Errorf("%s", s.LastError)
	}
	if log, s := h.runs("CSR is approved successfully", joins(h, j)...); !s.Valid(time.Now()) || s.RenewedBy != "join token" {
		t.Errorf("the token was used up: %+v, %s", s, log)
	}
	kept := state{h.path("state")}
	if address, err := kept.address(); address != c.address || err != nil {
		t.Errorf("%q, %v", address, err)
	}
	if _, err := kept.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the joining key is left behind: %v", err)
	}
}

// TestReadRoots: what one file holds counts, whatever is wrong with the other.
func TestReadRoots(t *testing.T) {
	one := written(t, string(catest.Root(t, time.Now(), catest.Spec{Name: "one"}).PEM()))
	two := written(t, string(catest.Root(t, time.Now(), catest.Spec{Name: "two"}).PEM()))
	for name, c := range map[string]struct {
		caRoot, rootCert string
		n                int
		want             string
	}{
		"both":                  {one, two, 2, ""},
		"the first alone":       {one, "/nowhere", 1, ""},
		"the second alone":      {"", two, 1, ""},
		"the first is missing":  {"/nowhere", two, 1, "--ca-root: open /nowhere: no such file"},
		"the first is none":     {written(t, "x"), two, 1, "--ca-root: "},
		"the second is none":    {one, written(t, "x"), 1, "--root-cert: "},
		"neither is what it is": {written(t, "x"), written(t, "x"), 0, "--ca-root: "},
		"nothing":               {"", "/nowhere", 0, ""},
	} {
		roots, err := readRoots(c.caRoot, c.rootCert)
		if len(roots) != c.n || (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %d roots, %v", name, len(roots), err)
		}
	}
}

func FuzzStateFiles(f *testing.F) {
	f.Add([]byte(`{"address":"ca:8060"}`))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := newState(t)
		s.make(t, joinedName, string(text))
		s.make(t, keyName, string(text))
		if address, err := s.address(); (address == "") == (err == nil) {
			t.Errorf("%q, %v", address, err)
		}
		if key, err := s.Load(); (key == nil) == (err == nil) {
			t.Errorf("%v, %v", key, err)
		}
	})
}
