package statedir

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	{"ban", func(t *testing.T, path string) string {
		d := open(t, path)
		ok(t, d.EditBans(t.Context(), func(l ca.BanList) error { l["0E"] = ca.Ban{}; return nil }))
		ok(t, d.Close())
		return "ban"
	}, 12, afterBan},
}

// afterRoot: there is one root at the most, and that is the one of ever after.
func afterRoot(t *testing.T, path, _ string) bool {
	var seen string
	if _, err := os.Stat(path); err == nil {
		seen = contents(t, path)[certName]
	}
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
				path := inMemory(t)
				does := s.prepare(t, path)
				cmd := childThat(t, does, path, n)
				out, err := cmd.CombinedOutput()
				killed := err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
				if err != nil && !killed {
					t.Fatalf("operation %d: %v: %s", n, err, out)
				}
				done := s.after(t, path, does)
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
					for at := 1; ; at++ {
						path := inMemory(t)
						does := s.prepare(t, path)
						count, failed := 0, ""
						err := do(does, path, func(operation, path string) error {
							if count++; count < at || count > at && !lasting {
								return nil
							}
							if failed == "" {
								failed = operation + " " + path
							}
							return errno
						})
						done := s.after(t, path, does)
						switch {
						case failed == "" && err != nil, failed != "" && err == nil:
							t.Errorf("error %v", err)
						case err != nil:
							says(t, err, want, path[:strings.LastIndexByte(path, '/')])
							if !errors.Is(err, errno) || strings.Contains(err.Error(), "\n") {
								t.Errorf("error %v", err)
							}
						case !done:
							t.Error("no error, and not done")
						}
						if t.Failed() {
							t.Fatalf("at operation %d, %s", at, failed)
						}
						if failed == "" {
							return
						}
					}
				})
			}
		}
	}
}
