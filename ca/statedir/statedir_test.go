package statedir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/trust"
)

var (
	domain  = spiffeid.RequireTrustDomainFromString("cluster.local")
	newRoot = trust.SelfSigned{TrustDomain: domain, KeyType: trust.ECDSAP256, Lifetime: 24 * time.Hour}
)

// inMemory is a directory whose files need no disk, where there is such a place:
// some of these tests sync thousands of times.
func inMemory(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "statedir")
	if err != nil {
		dir = tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "state")
}

func open(tb testing.TB, path string) *Dir {
	tb.Helper()
	d, err := Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.Close() })
	return d
}

func beside(tb testing.TB, path string) *Dir {
	tb.Helper()
	d, err := Beside(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.Close() })
	return d
}

func load(tb testing.TB, d *Dir) (*trust.Signer, bool) {
	tb.Helper()
	signer, made, err := d.LoadRoot(time.Now(), newRoot)
	if err != nil {
		tb.Fatal(err)
	}
	return signer, made
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// contents are all files below a directory but locks, by their names.
func contents(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockName || e.Name() == editName {
			return err
		}
		text, err := os.ReadFile(path)
		name, relErr := filepath.Rel(dir, path)
		found[name] = string(text)
		return errors.Join(err, relErr)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func says(tb testing.TB, err error, want ...string) {
	tb.Helper()
	for _, text := range want {
		if err == nil || !strings.Contains(err.Error(), text) {
			tb.Errorf("%q is missing in: %v", text, err)
		}
	}
}

// TestWhatIsMade: everything for the owner alone.
func TestWhatIsMade(t *testing.T) {
	path := inMemory(t)
	d := open(t, path)
	load(t, d)
	if err := d.JoinTokens().Create(t.Context(), newToken(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := d.EditBans(t.Context(), func(l ca.BanList) error { l["0F"] = ca.Ban{}; return nil }); err != nil {
		t.Fatal(err)
	}
	count := 0
	err := filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		count++
		info, err := e.Info()
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %#o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil || count != 8 {
		t.Errorf("%d files and directories: %v", count, err)
	}
}

// TestDirectoriesThatWillNotDo, and what is said of them.
func TestDirectoriesThatWillNotDo(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(path string) error
		want    string
	}{
		"readable by a group":     {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o750)) }, "is open to other users (mode 0750), and a CA's key is in there: chmod 700 "},
		"searchable by others":    {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o701)) }, "is open to other users (mode 0701)"},
		"a file":                  {func(p string) error { return os.WriteFile(p, nil, 0o600) }, "not a directory"},
		"a link to nothing":       {func(p string) error { return os.Symlink("nothing", p) }, "no such file or directory"},
		"below nothing":           {func(p string) error { return os.Remove(filepath.Dir(p)) }, "no such file or directory: make it, or name another"},
		"tokens lead elsewhere":   {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Symlink("/tmp", p+"/tokens")) }, "tokens: path escapes"},
		"tokens are a file":       {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.WriteFile(p+"/tokens", nil, 0o600)) }, "tokens: not a directory"},
		"the lock is a directory": {func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Mkdir(p+"/lock", 0o700)) }, "lock: is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path := inMemory(t)
			if err := c.prepare(path); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path)
			says(t, err, c.want, filepath.Dir(path))
		})
	}
	path := inMemory(t)
	_, err := Beside(path)
	says(t, err, path, "citadel --state-dir makes it when it first starts")
	if _, err := os.Stat(path); err == nil {
		t.Error("a tool made the directory")
	}
}

// TestSomebodyElsesDirectory: citadel refuses it, and root's tools leave its
// owner what they make. Only root can try; others have been refused by the
// kernel before.
func TestSomebodyElsesDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: nothing is tested")
		return
	}
	const somebody = 54321
	path := inMemory(t)
	if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, somebody, somebody)); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	says(t, err, fmt.Sprintf("%s belongs to uid %d, and this runs as uid 0", path, somebody))
	d := beside(t, path)
	token := newToken(t, 1)
	if err := d.JoinTokens().Create(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := d.EditBans(t.Context(), func(ca.BanList) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{tokensName, tokensName + "/" + token.ID + ".json", bansName, editName} {
		if info, err := os.Lstat(filepath.Join(path, name)); err != nil || info.Sys().(*syscall.Stat_t).Uid != somebody {
			t.Errorf("%s is not the owner's: %v, %v", name, info, err)
		}
	}
	// What somebody put there to be given to him is not.
	bait := filepath.Join(filepath.Dir(path), "bait")
	write(t, bait, "root's")
	if err := errors.Join(os.Remove(d.Path(editName)), os.Link(bait, d.Path(editName))); err != nil {
		t.Fatal(err)
	}
	if err := d.EditBans(t.Context(), func(ca.BanList) error { return nil }); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(bait); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("given away: %v, %v", info, err)
	}
}

// TestOneServes: a second is refused and told who the first is, whether that is
// in this process or another; one that was killed is no longer there.
func TestOneServes(t *testing.T) {
	path := inMemory(t)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(path)
	says(t, err, fmt.Sprintf("%s is in use by another citadel (process %d): stop that one", path, os.Getpid()))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	child := childThat(t, "hold", path, 0)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "holds\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, err = Open(path)
	says(t, err, fmt.Sprintf("is in use by another citadel (process %d)", child.Process.Pid))
	beside(t, path) // tools come in
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	open(t, path)
}

// TestRootIsMadeOnce, and is the same ever after.
func TestRootIsMadeOnce(t *testing.T) {
	path := inMemory(t)
	first, made := load(t, open(t, path))
	if !made {
		t.Error("not made")
	}
	was := contents(t, path)
	if names := slices.Sorted(maps.Keys(was)); !slices.Equal(names, []string{certName, keyName}) {
		t.Errorf("there is %v", names)
	}
	d := beside(t, path)
	again, made := load(t, d)
	if made || !again.Cert().Equal(first.Cert()) || !trust.SamePublicKey(again.Key().Public(), first.Key().Public()) || !maps.Equal(contents(t, path), was) {
		t.Error("another root")
	}
	if roots, err := d.Roots(); err != nil || len(roots) != 1 || !roots[0].Equal(first.Cert()) {
		t.Errorf("%v, %v", roots, err)
	}
	if err := d.HoldsRoot(first.Cert()); err != nil {
		t.Error(err)
	}
}

// TestRootThatIsDamaged is an error that names the file, and is left alone: no
// other is made in its place.
func TestRootThatIsDamaged(t *testing.T) {
	other := contents(t, func() string { p := inMemory(t); load(t, open(t, p)); return p }())
	for name, c := range map[string]struct {
		damage func(t *testing.T, path string)
		want   []string
	}{
		"no key": {func(t *testing.T, p string) { remove(t, p, keyName) },
			[]string{"ca-cert.pem is there and ", "ca-key.pem is not: restore it from a backup, or move ca-cert.pem away"}},
		"no certificate": {func(t *testing.T, p string) { remove(t, p, certName) },
			[]string{"ca-key.pem is there and ", "ca-cert.pem is not: restore it from a backup, or move ca-key.pem away"}},
		"no key, and another's left over": {func(t *testing.T, p string) {
			remove(t, p, keyName)
			write(t, filepath.Join(p, temporary(keyName)), other[keyName])
		}, []string{"ca-key.pem is not: restore it"}},
		"no key, and half of one left over": {func(t *testing.T, p string) {
			text := contents(t, p)[keyName]
			remove(t, p, keyName)
			write(t, filepath.Join(p, temporary(keyName)), text[:100])
		}, []string{"ca-key.pem is not: restore it"}},
		"empty key":           {func(t *testing.T, p string) { write(t, p+"/"+keyName, "") }, []string{"ca-key.pem: is missing or empty"}},
		"empty certificate":   {func(t *testing.T, p string) { write(t, p+"/"+certName, "") }, []string{"ca-cert.pem: is missing or empty"}},
		"half a key":          {func(t *testing.T, p string) { write(t, p+"/"+keyName, other[keyName][:90]) }, []string{"ca-key.pem: is damaged"}},
		"half a certificate":  {func(t *testing.T, p string) { write(t, p+"/"+certName, other[certName][:90]) }, []string{"ca-cert.pem: is damaged"}},
		"another's key":       {func(t *testing.T, p string) { write(t, p+"/"+keyName, other[keyName]) }, []string{"ca-key.pem: the cert does not match the key"}},
		"key is a directory":  {func(t *testing.T, p string) { remove(t, p, keyName); mkdir(t, p+"/"+keyName) }, []string{"ca-key.pem: is no regular file: move it away"}},
		"key is a pipe":       {func(t *testing.T, p string) { remove(t, p, keyName); mkfifo(t, p+"/"+keyName) }, []string{"ca-key.pem: is no regular file"}},
		"key leads elsewhere": {func(t *testing.T, p string) { remove(t, p, keyName); symlink(t, "/etc/hostname", p+"/"+keyName) }, []string{"ca-key.pem: path escapes"}},
		"certificate too big": {func(t *testing.T, p string) { write(t, p+"/"+certName, strings.Repeat("x", maxBytes+1)) }, []string{"ca-cert.pem is larger than"}},
		"readable key":        {func(t *testing.T, p string) { chmod(t, p+"/"+keyName, 0o640) }, []string{"ca-key.pem can be read by other users (mode 0640): chmod 600 "}},
	} {
		t.Run(name, func(t *testing.T) {
			path := inMemory(t)
			d := open(t, path)
			signer, _ := load(t, d)
			c.damage(t, path)
			was := names(t, path)
			_, _, err := d.LoadRoot(time.Now(), newRoot)
			says(t, err, append(c.want, path)...)
			if err != nil && strings.Contains(err.Error(), "KEY-----") {
				t.Errorf("quotes the key: %v", err)
			}
			if now := names(t, path); !slices.Equal(now, was) {
				t.Errorf("there is %v, not %v", now, was)
			}
			if name != "readable key" && name != "no key, and another's left over" {
				if err := d.HoldsRoot(signer.Cert()); err == nil {
					t.Error("it is said to hold its root")
				}
			}
		})
	}
	t.Run("expired", func(t *testing.T) {
		path := inMemory(t)
		d := open(t, path)
		load(t, d)
		was := contents(t, path)
		_, _, err := d.LoadRoot(time.Now().Add(48*time.Hour), newRoot)
		says(t, err, "ca-cert.pem: expired at", "no other is made in its place")
		if !maps.Equal(contents(t, path), was) {
			t.Error("and yet it was changed")
		}
	})
}

// names are all names in a directory, with their kinds.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, fs.FormatDirEntry(e))
	}
	return all
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string)          { t.Helper(); ok(t, os.Remove(filepath.Join(dir, name))) }
func mkdir(t *testing.T, path string)                { t.Helper(); ok(t, os.Mkdir(path, 0o700)) }
func mkfifo(t *testing.T, path string)               { t.Helper(); ok(t, syscall.Mkfifo(path, 0o600)) }
func symlink(t *testing.T, to, path string)          { t.Helper(); ok(t, os.Symlink(to, path)) }
func chmod(t *testing.T, path string, m fs.FileMode) { t.Helper(); ok(t, os.Chmod(path, m)) }

func newToken(tb testing.TB, uses int) authn.JoinToken {
	tb.Helper()
	token, _, err := authn.NewJoinToken(time.Now(), "vm", "web", time.Hour, uses)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

var errUsed = errors.New("has been used")

// takeBy is a use with a key, as authn counts it.
func takeBy(key string) func(*authn.JoinToken) (bool, error) {
	return func(t *authn.JoinToken) (bool, error) {
		switch {
		case slices.Contains(t.Keys, key):
			return false, nil
		case len(t.Keys) >= t.Uses:
			return false, errUsed
		}
		t.Keys = append(t.Keys, key)
		return true, nil
	}
}

func TestJoinTokensInFiles(t *testing.T) {
	path := inMemory(t)
	server, tool := open(t, path).JoinTokens(), beside(t, path).JoinTokens()
	token, other := newToken(t, 1), newToken(t, 3)
	for _, token := range []authn.JoinToken{token, other} {
		if err := tool.Create(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	says(t, tool.Create(t.Context(), token), "there is a join token "+token.ID)
	says(t, tool.Create(t.Context(), authn.JoinToken{ID: "../x"}), `"../x" is no ID`)
	if err := server.Use(t.Context(), token.ID, takeBy("k")); err != nil {
		t.Fatal(err)
	}
	if err := server.Use(t.Context(), token.ID, takeBy("l")); !errors.Is(err, errUsed) {
		t.Errorf("used twice: %v", err)
	}
	all, err := tool.List(t.Context())
	i := slices.IndexFunc(all, func(a authn.JoinToken) bool { return a.ID == token.ID })
	if err != nil || len(all) != 2 || len(all[i].Keys) != 1 || !all[i].Expires.Equal(token.Expires) || all[0].ID > all[1].ID {
		t.Errorf("%+v, %v", all, err)
	}
	if err := tool.Revoke(t.Context(), token.ID); err != nil {
		t.Error(err)
	}
	for _, err := range []error{server.Use(t.Context(), token.ID, takeBy("k")), server.Revoke(t.Context(), token.ID),
		tool.Revoke(t.Context(), "../lock"), server.Use(t.Context(), "../bans", takeBy("k"))} {
		if !errors.Is(err, authn.ErrNoJoinToken) {
			t.Errorf("revoked, or none: %v", err)
		}
	}
	if err := tool.Sweep(t.Context(), other.Expires.Add(24*time.Hour), 24*time.Hour); err != nil {
		t.Error(err)
	}
	if all, _ := tool.List(t.Context()); len(all) != 1 {
		t.Error("a token that is not old was swept")
	}
	if err := tool.Sweep(t.Context(), other.Expires.Add(25*time.Hour), 24*time.Hour); err != nil {
		t.Error(err)
	}
	if all, _ := tool.List(t.Context()); len(all) != 0 {
		t.Error("an old token was not swept")
	}
}

func TestJoinTokenThatIsNotOne(t *testing.T) {
	path := inMemory(t)
	d := open(t, path)
	token, good := newToken(t, 1), newToken(t, 1)
	ok(t, d.JoinTokens().Create(t.Context(), good))
	for name, text := range map[string]string{"no JSON": "{", "another's": `{"id":"0000000000"}`, "empty": "", "two": `{"id":"` + token.ID + `"}{}`} {
		file := filepath.Join(path, tokensName, token.ID+".json")
		write(t, file, text)
		err := d.JoinTokens().Use(t.Context(), token.ID, takeBy("k"))
		says(t, err, "no join token is in "+file+", whose name says so: delete it")
		all, err := d.JoinTokens().List(t.Context())
		says(t, err, "no join token is in "+file)
		if len(all) != 1 || all[0].ID != good.ID {
			t.Errorf("%s: the good one is not listed: %v", name, all)
		}
		if got := contents(t, path)[tokensName+"/"+token.ID+".json"]; got != text {
			t.Errorf("%s: it became %q", name, got)
		}
		if err := d.JoinTokens().Revoke(t.Context(), token.ID); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, filepath.Join(path, tokensName, "notes.txt"), "")
	write(t, filepath.Join(path, tokensName, temporary("x")), "")
	_, err := d.JoinTokens().List(t.Context())
	says(t, err, "notes.txt is no join token: move it away")
	if strings.Contains(err.Error(), temporary("x")) {
		t.Errorf("what is being written is told: %v", err)
	}
}

// TestOneUseMeansOne among many goroutines, and with the directory opened more
// than once.
func TestOneUseMeansOne(t *testing.T) {
	path := inMemory(t)
	dirs := []*Dir{open(t, path), beside(t, path), beside(t, path)}
	const uses, joins = 3, 60
	token := newToken(t, uses)
	ok(t, dirs[1].JoinTokens().Create(t.Context(), token))
	results := make(chan error, joins)
	for i := range joins {
		go func() { results <- dirs[i%len(dirs)].JoinTokens().Use(t.Context(), token.ID, takeBy(fmt.Sprint(i))) }()
	}
	won := 0
	for range joins {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, errUsed):
			t.Error(err)
		}
	}
	all, err := dirs[0].JoinTokens().List(t.Context())
	if won != uses || err != nil || len(all[0].Keys) != uses {
		t.Errorf("%d joined of %d, stored are %v: %v", won, uses, all, err)
	}
}

// TestRevokedStaysRevoked, though it is being used at that moment.
func TestRevokedStaysRevoked(t *testing.T) {
	path := inMemory(t)
	server, tool := open(t, path).JoinTokens(), beside(t, path).JoinTokens()
	for range 50 {
		token := newToken(t, 100)
		ok(t, tool.Create(t.Context(), token))
		begun := make(chan struct{})
		var using sync.WaitGroup
		using.Go(func() {
			close(begun)
			for i := range 20 {
				if err := server.Use(t.Context(), token.ID, takeBy(fmt.Sprint(i))); err != nil && !errors.Is(err, authn.ErrNoJoinToken) {
					t.Error(err)
				}
			}
		})
		<-begun
		ok(t, tool.Revoke(t.Context(), token.ID))
		using.Wait()
		if _, there := contents(t, path)[tokensName+"/"+token.ID+".json"]; there {
			t.Fatal("it came back")
		}
	}
}

func TestBansInAFile(t *testing.T) {
	path := inMemory(t)
	server, tool := open(t, path), beside(t, path)
	if list, err := server.ReadBans(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	put := func(d *Dir, whom string) error {
		return d.EditBans(t.Context(), func(l ca.BanList) error { l[whom] = ca.Ban{Reason: "stolen"}; return nil })
	}
	const many = 30
	failed := make(chan error, many)
	for i := range many {
		go func() { failed <- put([]*Dir{server, tool}[i%2], fmt.Sprintf("%X", i+1)) }()
	}
	for range many {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	says(t, put(tool, "nobody"), "neither a SPIFFE ID")
	if err := tool.EditBans(t.Context(), func(l ca.BanList) error { clear(l); return errUsed }); !errors.Is(err, errUsed) {
		t.Error(err)
	}
	if list, err := server.ReadBans(t.Context()); err != nil || len(list) != many || list["A"].Reason != "stolen" {
		t.Errorf("%v, %v", list, err)
	}
	for text, want := range map[string]string{"[": bansName + " is damaged", "": bansName + " is empty: restore it", strings.Repeat(" ", maxBytes+1): "is larger than"} {
		write(t, server.Path(bansName), text)
		_, err := server.ReadBans(t.Context())
		says(t, err, want)
		says(t, put(tool, "0F"), want)
	}
}

// TestBansStayReadable: what would be too large to be read again is not written.
func TestBansStayReadable(t *testing.T) {
	d := open(t, inMemory(t))
	err := d.EditBans(t.Context(), func(l ca.BanList) error { l["0F"] = ca.Ban{Reason: strings.Repeat("x", maxBytes)}; return nil })
	says(t, err, "would be larger than")
	if list, err := d.ReadBans(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestWhoStoppedInTheMiddle does not hold up the others for ever.
func TestWhoStoppedInTheMiddle(t *testing.T) {
	path := inMemory(t)
	synctest.Test(t, func(t *testing.T) {
		server, stopped := open(t, path), beside(t, path)
		lock, err := stopped.lockEdits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		begun := time.Now()
		err = server.JoinTokens().Create(t.Context(), newToken(t, 1))
		says(t, err, "edit.lock has been held by somebody else for 5s: look for a citadelctl that was stopped")
		if took := time.Since(begun); took < editLimit || took > editLimit+time.Second {
			t.Errorf("it took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := server.JoinTokens().Revoke(ctx, "0123456789"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("its own end: %v", err)
		}
		if _, err := server.ReadBans(t.Context()); err != nil {
			t.Errorf("reading waits: %v", err)
		}
		// Who thinks that removing the file helps, gets what he wants.
		remove(t, path, editName)
		if err := server.JoinTokens().Create(t.Context(), newToken(t, 1)); err != nil {
			t.Error(err)
		}
	})
}

func childThat(t *testing.T, does, path string, dieAt int) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "STATEDIR_DO="+does, "STATEDIR_PATH="+path, fmt.Sprintf("STATEDIR_DIE_AT=%d", dieAt))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// TestLockThatIsRemoved at the wrong moment is not the one that others hold.
func TestLockThatIsRemoved(t *testing.T) {
	path := inMemory(t)
	open(t, path)
	locks := 0
	d, err := besideBefore(path, func(operation, at string) error {
		if operation != "lock" {
			return nil
		}
		if locks++; locks > 1 {
			return nil
		}
		return os.Remove(at)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	lock, err := d.lockEdits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if !d.isStill(editName, lock) || locks != 2 {
		t.Errorf("after %d locks it holds a file that has no name", locks)
	}
}
