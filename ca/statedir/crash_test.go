package statedir

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"citadel/ca"
	"citadel/ca/authn"
)

// TestMain is the test, or a process that does one thing and dies in the middle
// of it.
func TestMain(m *testing.M) {
	if does := os.Getenv("STATEDIR_DO"); does != "" {
		if err := child(does, os.Getenv("STATEDIR_PATH")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(does, path string) error {
	n, err := strconv.Atoi(os.Getenv("STATEDIR_DIE_AT"))
	if err != nil {
		return err
	}
	return do(does, path, func(string, string) error {
		if n--; n == 0 {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				return err
			}
			select {} // until it arrives
		}
		return nil
	})
}

// childKey is with what do joins.
const childKey = "the key that joins"

// do does one thing in a directory that it opens for that.
func do(does, path string, before hook) error {
	d, err := openBefore(path, before)
	if err != nil {
		return err
	}
	defer d.Close()
	ctx := context.Background()
	switch does {
	case "hold":
		fmt.Println("holds")
		select {}
	case "root":
		_, _, err = d.LoadRoot(time.Now(), newRoot)
	case "ban":
		err = d.EditBans(ctx, func(l ca.BanList) error { l["0F"] = ca.Ban{}; return nil })
	case "revoke":
		err = d.JoinTokens().Revoke(ctx, "0123456789")
	case "create":
		err = d.JoinTokens().Create(ctx, authn.JoinToken{ID: "0123456789", Uses: 1, Hash: "ab"})
	default: // the ID of a token
		err = d.JoinTokens().Use(ctx, does, takeBy(childKey))
	}
	return err
}

// step is one thing that a process can die of, or fail in.
type step struct {
	name    string
	prepare func(t *testing.T, path string) (does string)
	least   int // operations that it has at the least
	// after judges what is there when it was cut off, and whether the thing is
	// done; and that it can be done now.
	after func(t *testing.T, path, does string) (done bool)
}

var steps = []step{
	{"root", func(*testing.T, string) string { return "root" }, 25, afterRoot},
	{"use of a token", func(t *testing.T, path string) string {
		token := newToken(t, 1)
		d := open(t, path)
		load(t, d)
		ok(t, d.JoinTokens().Create(t.Context(), token))
		ok(t, d.Close())
		return token.ID
	}, 12, afterUse},
	{"new token", func(t *testing.T, path string) string { return "create" }, 12, afterCreate},
	{"revocation", func(t *testing.T, path string) string {
		d := open(t, path)
		ok(t, d.JoinTokens().Create(t.Context(), authn.JoinToken{ID: "0123456789", Uses: 1, Hash: "ab"}))
		ok(t, d.Close())
		return "revoke"
	}, 9, afterRevocation},
	{"ban", func(t *testing.T, path string) string {
		d := open(t, path)
		ok(t, d.EditBans(t.Context(), func(l ca.BanList) error { l["0E"] = ca.Ban{}; return nil }))
		ok(t, d.Close())
		return "ban"
	}, 12, afterBan},
}

func contentsIfThere(t *testing.T, path string) map[string]string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	return contents(t, path)
}

// afterRoot: there is one root at the most, and that is the one of ever after.
func afterRoot(t *testing.T, path, _ string) bool {
	seen := contentsIfThere(t, path)[certName]
	d := open(t, path)
	defer d.Close()
	first, made := load(t, d)
	if seen != "" && (made || seen != string(first.RootsPEM())) {
		t.Error("there was a root, and now there is another")
	}
	if again, made := load(t, d); made || !again.Cert().Equal(first.Cert()) {
		t.Error("another root at the next start")
	}
	onlyThese(t, path, certName, keyName)
	return !made
}

// afterUse: the use counts or not, and then once.
func afterUse(t *testing.T, path, id string) bool {
	d := open(t, path)
	defer d.Close()
	all, err := d.JoinTokens().List(t.Context())
	if err != nil || len(all) != 1 || len(all[0].Keys) > 1 {
		t.Fatalf("%v, %v", all, err)
	}
	done := slices.Equal(all[0].Keys, []string{childKey})
	if err := d.JoinTokens().Use(t.Context(), id, takeBy(childKey)); err != nil {
		t.Errorf("the host that asked cannot ask again: %v", err)
	}
	if err := d.JoinTokens().Use(t.Context(), id, takeBy("another")); !errors.Is(err, errUsed) {
		t.Errorf("a second host joins: %v", err)
	}
	onlyThese(t, path, certName, keyName, tokensName+"/"+id+".json")
	return done
}

func afterCreate(t *testing.T, path, _ string) bool {
	d := open(t, path)
	defer d.Close()
	all, err := d.JoinTokens().List(t.Context())
	if err != nil || len(all) > 1 {
		t.Fatalf("%v, %v", all, err)
	}
	if len(all) == 0 {
		ok(t, d.JoinTokens().Create(t.Context(), authn.JoinToken{ID: "0123456789", Uses: 1, Hash: "ab"}))
	}
	onlyThese(t, path, tokensName+"/0123456789.json")
	return len(all) == 1
}

func afterRevocation(t *testing.T, path, _ string) bool {
	d := open(t, path)
	defer d.Close()
	all, err := d.JoinTokens().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again := d.JoinTokens().Revoke(t.Context(), "0123456789"); (len(all) == 1) != (again == nil) {
		t.Errorf("there was %v, and revoked again: %v", all, again)
	}
	onlyThese(t, path)
	return len(all) == 0
}

func afterBan(t *testing.T, path, _ string) bool {
	d := open(t, path)
	defer d.Close()
	list, err := d.ReadBans(t.Context())
	_, old := list["0E"]
	_, done := list["0F"]
	if err != nil || !old {
		t.Fatalf("%v, %v", list, err)
	}
	ok(t, d.EditBans(t.Context(), func(l ca.BanList) error { l["0D"] = ca.Ban{}; return nil }))
	onlyThese(t, path, bansName)
	return done
}

// onlyThese: nothing half-written is left, once more was done.
func onlyThese(t *testing.T, path string, want ...string) {
	t.Helper()
	for name := range contents(t, path) {
		if !slices.Contains(want, name) {
			t.Errorf("%s is left", name)
		}
	}
}

// TestKilledAtEachOperation: the process is killed at its first operation on the
// file system, at its second, and so on until one runs through.
func TestKilledAtEachOperation(t *testing.T) {
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			seen := map[bool]int{}
			for n := 1; ; n++ {
				path, does := inMemory(t), ""
				alone(func() { does = s.prepare(t, path) })
				cmd := childThat(t, does, path, n)
				out, err := cmd.CombinedOutput()
				killed := err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
				if err != nil && !killed {
					t.Fatalf("operation %d: %v: %s", n, err, out)
				}
				done := false
				alone(func() { done = s.after(t, path, does) })
				seen[done]++
				if t.Failed() {
					t.Fatalf("killed at operation %d", n)
				}
				if !killed {
					if !done || n < s.least || seen[false] < 5 || seen[true] < 2 {
						t.Errorf("%d operations, %d times done and %d not, at the end: %v", n, seen[true], seen[false], done)
					}
					return
				}
			}
		})
	}
}

// alone runs a function while no process is being started: the new one would
// hold the locks of this one until it runs its own program.
func alone(do func()) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	do()
}

// TestFailureAtEachOperation: the file system refuses one operation, or all from
// one on. The error names the place and the next step, nothing is half-done, and
// when the cause has gone it works.
func TestFailureAtEachOperation(t *testing.T) {
	for _, s := range steps {
		for errno, want := range map[syscall.Errno]string{
			syscall.ENOSPC: "no space left on device: free space on the file system of ", syscall.EROFS: "use StateDirectory= or ReadWritePaths=",
			syscall.EACCES: "must own ", syscall.EIO: "look into the kernel's log: the disk of ",
		} {
			for _, lasting := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v lasting %v", s.name, errno, lasting), func(t *testing.T) {
					t.Parallel()
					for at, ranThrough := 1, false; !ranThrough; at++ {
						alone(func() { ranThrough = failure{errno, want, lasting, at}.happen(t, s) })
						if t.Failed() {
							t.Fatalf("at operation %d", at)
						}
					}
				})
			}
		}
	}
}

type failure struct {
	errno   syscall.Errno
	says    string
	lasting bool
	at      int // the number of the operation
}

// happen has one step fail, and tells whether it had fewer operations.
func (f failure) happen(t *testing.T, s step) (ranThrough bool) {
	path := inMemory(t)
	does := s.prepare(t, path)
	count, failed := 0, ""
	err := do(does, path, func(operation, path string) error {
		if count++; count < f.at || count > f.at && !f.lasting {
			return nil
		}
		if failed == "" {
			failed = operation + " " + path
		}
		return f.errno
	})
	if !f.lasting && s.name != "root" && !strings.HasPrefix(failed, "remove ") {
		for name := range contentsIfThere(t, path) {
			if strings.HasSuffix(name, ".new") {
				t.Errorf("%s is left, half-written perhaps", name)
			}
		}
	}
	done := s.after(t, path, does)
	switch {
	case failed == "" && err != nil, failed != "" && err == nil:
		t.Errorf("at %s: error %v", failed, err)
	case err != nil:
		says(t, err, f.says, filepath.Dir(path))
		if !errors.Is(err, f.errno) || strings.Contains(err.Error(), "\n") {
			t.Errorf("at %s: error %v", failed, err)
		}
	case !done:
		t.Error("no error, and not done")
	}
	return failed == ""
}

// TestNothingIsNamedBeforeItIsOnTheDisk, nor is anything said to be done: a
// power failure takes what was not synced.
func TestNothingIsNamedBeforeItIsOnTheDisk(t *testing.T) {
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			path := inMemory(t)
			does := s.prepare(t, path)
			unsynced, named := map[string]bool{}, 0 // files, and directories with new entries
			err := do(does, path, func(operation, at string) error {
				dir, base := filepath.Split(at)
				dir = strings.TrimSuffix(dir, "/")
				switch operation {
				case "make", "replace":
					for name := range unsynced {
						if base == certName || base == keyName || operation == "replace" && name == dir+"/"+temporary(base) {
							t.Errorf("%s %s: %s is not on the disk", operation, at, name)
						}
					}
					if operation == "replace" || base == certName || base == keyName {
						named++
					}
					if _, there := os.Lstat(at); operation == "replace" || there != nil && base != lockName && base != editName {
						unsynced[dir] = true
					}
				case "remove":
					if _, there := os.Lstat(at); there == nil && !strings.HasSuffix(base, ".new") {
						named++
						unsynced[dir] = true
					}
				case "write":
					unsynced[at] = true
				case "sync":
					delete(unsynced, at)
				}
				return nil
			})
			if err != nil || named == 0 || len(unsynced) > 0 {
				t.Errorf("%v: %d named, and at the end this is not on the disk: %v", err, named, unsynced)
			}
		})
	}
}

// TestRealDisks: one that is full, and one that is read-only. It mounts them,
// which needs root, in a process with mounts of its own.
func TestRealDisks(t *testing.T) {
	base := os.Getenv("STATEDIR_DISKS")
	if base == "" {
		if os.Geteuid() != 0 {
			t.Log("not root: nothing is tested")
			return
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRealDisks$", "-test.v")
		cmd.Env = append(os.Environ(), "STATEDIR_DISKS="+t.TempDir(), "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestRealDisks") {
			t.Errorf("the process: %v\n%s", err, out)
		}
		return
	}
	ok(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	ok(t, syscall.Mount("tmpfs", base, "tmpfs", 0, "size=256k"))
	empty, path, ballast := filepath.Join(base, "empty"), filepath.Join(base, "state"), filepath.Join(base, "ballast")
	ok(t, errors.Join(os.Mkdir(empty, 0o700), os.Mkdir(empty+"/tokens", 0o700)))
	d := open(t, path)
	load(t, d)
	token := newToken(t, 2)
	ok(t, d.JoinTokens().Create(t.Context(), token))
	ok(t, d.EditBans(t.Context(), func(l ca.BanList) error { l["0E"] = ca.Ban{}; return nil }))
	was := contents(t, path)
	changes := func(d *Dir) []error {
		return []error{
			d.JoinTokens().Use(t.Context(), token.ID, takeBy("k")), d.JoinTokens().Create(t.Context(), newToken(t, 1)),
			d.EditBans(t.Context(), func(l ca.BanList) error { l["0F"] = ca.Ban{}; return nil }),
		}
	}
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	fresh := open(t, empty)
	_, _, err := fresh.LoadRoot(time.Now(), newRoot)
	for _, err := range append(changes(d), err) {
		says(t, err, "no space left on device: free space on the file system of "+base)
	}
	if now := contents(t, path); !maps.Equal(now, was) {
		t.Errorf("the full disk has %v", now)
	}
	if left := contents(t, empty); len(left) > 0 {
		t.Errorf("of the root there is left %v", left)
	}
	load(t, d)
	ok(t, os.Remove(ballast))
	load(t, fresh)
	ok(t, errors.Join(d.Close(), fresh.Close()))

	ok(t, syscall.Mount("", base, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, err = Open(filepath.Join(base, "new"))
	says(t, err, "read-only file system: make the file system of "+base+" writable")
	_, err = Open(path)
	says(t, err, "read-only file system: make the file system of "+path+" writable; in a systemd unit, use StateDirectory= or ReadWritePaths=")
	for _, err := range changes(beside(t, path)) {
		says(t, err, "read-only file system: make the file system of ")
	}
	ok(t, syscall.Mount("", base, "", syscall.MS_REMOUNT, "size=256k"))
	again := open(t, path)
	load(t, again)
	for _, err := range changes(again) {
		ok(t, err)
	}
}
