package certdir

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestForeignThingsInOurPlaces: each is an error that names it, and neither it
// nor what it leads to is changed.
func TestForeignThingsInOurPlaces(t *testing.T) {
	inside := func(name string) func(home string) string {
		return func(home string) string { return filepath.Join(home, name) }
	}
	linkTo := func(target string) func(testing.TB, string, string) {
		return func(tb testing.TB, path, outside string) { symlink(tb, outside+target, path) }
	}
	text := func(text string) func(testing.TB, string, string) {
		return func(tb testing.TB, path, _ string) { write(tb, path, text) }
	}
	mkdir := func(tb testing.TB, path, _ string) {
		if err := os.Mkdir(path, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	pipe := func(tb testing.TB, path, _ string) {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		where func(home string) string
		put   func(tb testing.TB, path, outside string)
		says  string
	}{
		"a directory for the key":            {inside("key.pem"), mkdir, "key.pem is neither a file nor a link of ours"},
		"a pipe for the chain":               {inside("cert-chain.pem"), pipe, "cert-chain.pem is neither a file nor a link of ours"},
		"a link out for the key":             {inside("key.pem"), linkTo("/file"), "which is not ours and is not followed"},
		"a link nowhere for the roots":       {inside("root-cert.pem"), linkTo("/none"), "which is not ours and is not followed"},
		"a text for the key":                 {inside("key.pem"), text("root:x:0:0:root:/root:/bin/sh\n"), "key.pem is a file of another kind, not a PEM private key"},
		"certificates for the key":           {inside("key.pem"), text("-----BEGIN CERTIFICATE-----\n"), "not a PEM private key"},
		"a key for the roots":                {inside("root-cert.pem"), text("-----BEGIN PRIVATE KEY-----\n"), "not a PEM certificate"},
		"a binary for the chain":             {inside("cert-chain.pem"), text("\x7fELF"), "cert-chain.pem is a file of another kind"},
		"a large file for the chain":         {inside("cert-chain.pem"), text(string(make([]byte, 1<<20+1))), "is larger than"},
		"a file for the store":               {inside(".citadel"), text("x"), ".citadel is not a directory, and nothing of ours"},
		"a link out for the store":           {inside(".citadel"), linkTo(""), ".citadel is not a directory, and nothing of ours"},
		"a file for current":                 {inside(".citadel/current"), text("x"), "current is not a link, and nothing of ours"},
		"a directory for current":            {inside(".citadel/current"), mkdir, "current is not a link, and nothing of ours"},
		"a link out for current":             {inside(".citadel/current"), linkTo(""), "which is no generation of ours"},
		"no number for current":              {inside(".citadel/current"), func(tb testing.TB, path, _ string) { symlink(tb, "01", path) }, "which is no generation of ours"},
		"the last number for current":        {inside(".citadel/current"), func(tb testing.TB, path, _ string) { symlink(tb, "9223372036854775807", path) }, "no number left"},
		"a link out for the lock":            {inside(".citadel/lock"), linkTo("/file"), "lock"},
		"a directory for the lock":           {inside(".citadel/lock"), mkdir, "lock"},
		"a file where current is made":       {inside(".citadel/.current.citadel-new"), text("x"), "is not a link, and nothing of ours"},
		"a file where the key's link's made": {inside(".key.pem.citadel-new"), text("x"), ".key.pem.citadel-new is not a link, and nothing of ours"},
	} {
		t.Run(name, func(t *testing.T) {
			d, outside := dirIn(t.TempDir()), t.TempDir()
			home := filepath.Dir(d.Key)
			write(t, outside+"/file", "theirs")
			if filepath.Dir(c.where(home)) != home {
				mkdir(t, home+"/.citadel", "")
			}
			c.put(t, c.where(home), outside)
			before, err := os.Lstat(c.where(home))
			if err != nil {
				t.Fatal(err)
			}
			s, err := d.Open()
			if err == nil {
				err = s.Install(newSet(t, "a"))
				s.Close()
			}
			wantError(t, err, nil, c.says)
			after, err := os.Lstat(c.where(home))
			if err != nil || !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
				t.Errorf("it was touched: %v", err)
			}
			if got := names(t, outside); !slices.Equal(got, []string{"file"}) {
				t.Errorf("outside is %q", got)
			}
			if got, _ := os.ReadFile(outside + "/file"); string(got) != "theirs" {
				t.Errorf("the file outside holds %q", got)
			}
			if got := names(t, home); len(got) > 2 {
				t.Errorf("left behind: %q", got)
			}
		})
	}
}

func symlink(tb testing.TB, target, path string) {
	tb.Helper()
	if err := os.Symlink(target, path); err != nil {
		tb.Fatal(err)
	}
}

// TestForeignThingsInTheStoreStay, and are in nobody's way.
func TestForeignThingsInTheStoreStay(t *testing.T) {
	d, outside := dirIn(t.TempDir()), t.TempDir()
	store := filepath.Join(filepath.Dir(d.Key), ".citadel")
	if err := os.MkdirAll(store+"/99/kept", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, store+"/2", "a file whose name is a number")
	write(t, store+"/6", "another")
	write(t, store+"/README", "a file")
	write(t, store+"/99/mine", "a file in what could be a generation")
	write(t, outside+"/key.pem", "theirs")
	symlink(t, outside, store+"/3")
	symlink(t, outside, store+"/1")
	for _, name := range []string{"a", "b", "c", "d"} {
		set := newSet(t, name)
		install(t, d, set)
		shows(t, d, set)
		if name == "b" && !slices.Contains(names(t, store), "5") {
			t.Error("the generation before is gone: it was taken for the foreign file beside it")
		}
	}
	if got := names(t, store); !slices.Equal(got, []string{"1", "2", "3", "6", "8", "9", "99", "README", "current", "lock"}) {
		t.Errorf("the store holds %q", got)
	}
	if got := names(t, store+"/99"); !slices.Equal(got, []string{"kept", "mine"}) {
		t.Errorf("the foreign directory holds %q", got)
	}
	if got := names(t, outside); !slices.Equal(got, []string{"key.pem"}) {
		t.Errorf("outside is %q", got)
	}
}
